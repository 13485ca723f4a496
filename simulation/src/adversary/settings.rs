use std::time::Duration;

use super::{
    Caller, Fault, Leak, Topology, Window,
    text::{keywords, record},
};

keywords! {
    /// The source of the set of Pods.
    Discovery {
        /// A and AAAA records of the Service name.
        Dns = "dns",
        /// SRV records.
        Srv = "srv",
    }
}

keywords! {
    /// The use of Pods that are absent from DNS.
    AbsentPods {
        /// They are drained.
        Drain = "drain",
        /// They stay in use.
        Keep = "keep",
    }
}

keywords! {
    /// The use of the primary while every standby exceeds the maximum lag.
    LagFallback {
        /// The checkout fails.
        Fail = "fail",
        /// The primary serves the checkout.
        Primary = "primary",
    }
}

keywords! {
    /// The policy that chooses a Pod.
    Policy {
        /// The default.
        LeastCost = "least-cost",
        /// The fewest connections in use.
        LeastInFlight = "least-in-flight",
        /// The moving average of the latency.
        PeakEwma = "peak-ewma",
        /// Each Pod in turn.
        RoundRobin = "round-robin",
        /// A random Pod.
        Random = "random",
    }
}

keywords! {
    /// The reset of session state after use.
    Reset {
        /// Only where the caller may have changed the session.
        Auto = "auto",
        /// Never.
        None = "none",
        /// After each use.
        Discard = "discard",
    }
}

record! {
    /// The settings of the clients' pools: parameters of podpool's URL with the same names and the same defaults.
    Settings {
        /// Time limit for a checkout.
        acquire_timeout: Duration = Duration::from_secs(5),
        /// Time limit for a dial.
        connect_timeout: Duration = Duration::from_secs(2),
        /// Time that sent data may stay unacknowledged.
        tcp_user_timeout: Duration = Duration::from_secs(3),
        /// Maximum number of connections to each Pod.
        pool_size: u32 = 8,
        /// Minimum number of open connections to each Pod.
        min_idle: u32 = 1,
        /// Maximum number of connections to all Pods.
        max_connections: Option<u32> = None,
        /// Maximum number of Pods in use.
        subset_size: Option<u32> = None,
        /// Number of clients that the settings state.
        clients: Option<u32> = None,
        /// Maximum number of cached prepared statements.
        statement_cache_size: u32 = 256,
        /// The reset of session state.
        reset: Reset = Reset::Auto,
        /// Number of shared connections to each Pod.
        shared_connections: u32 = 1,
        /// Maximum number of statements in flight on a shared connection.
        shared_depth: u32 = 32,
        /// Time after which a statement on a shared connection is slow.
        shared_slow: Option<Duration> = None,
        /// Maximum age of a connection.
        max_lifetime: Duration = Duration::from_secs(1800),
        /// Time after which an idle connection is closed.
        idle_timeout: Duration = Duration::from_secs(600),
        /// Idle time after which a connection is pinged.
        ping_after: Duration = Duration::from_secs(1),
        /// Maximum number of handshakes with each Pod.
        handshakes_per_pod: u32 = 2,
        /// Maximum number of handshakes with all Pods.
        handshakes: u32 = 32,
        /// Minimum time between two resolutions.
        refresh_min: Duration = Duration::from_secs(1),
        /// Maximum time between two resolutions.
        refresh_max: Duration = Duration::from_secs(10),
        /// Time limit for a resolution.
        dns_timeout: Duration = Duration::from_secs(2),
        /// Time after which the next name server is queried too.
        dns_hedge: Duration = Duration::from_millis(300),
        /// Interval between two probes.
        probe_interval: Duration = Duration::from_secs(5),
        /// Time limit for a probe.
        probe_timeout: Duration = Duration::from_secs(1),
        /// Consecutive failed statements after which a Pod is ejected.
        outlier_consecutive: u32 = 5,
        /// Maximum lag of a standby in time.
        max_lag: Option<Duration> = None,
        /// Maximum lag of a standby in bytes.
        max_lag_bytes: Option<u32> = None,
        /// The use of the primary while every standby lags.
        lag_fallback: LagFallback = LagFallback::Fail,
        /// The use of Pods that are absent from DNS.
        absent_pods: AbsentPods = AbsentPods::Drain,
        /// Time for which the connections to an absent Pod stay open.
        detach_linger: Duration = Duration::from_secs(30),
        /// Time for which checked-out connections of a drained Pod stay open.
        drain_timeout: Duration = Duration::from_secs(60),
        /// Time for which closing the pool waits for checked-out connections.
        close_timeout: Duration = Duration::from_secs(30),
        /// The policy.
        policy: Policy = Policy::LeastCost,
        /// The source of the set of Pods.
        discovery: Discovery = Discovery::Dns,
    }
}

/// Draws one value of a list.
fn one<T: Copy>(random: &mut fastrand::Rng, values: &[T]) -> T {
    values[random.usize(..values.len())]
}

/// Draws a duration of a list of milliseconds.
fn millis(random: &mut fastrand::Rng, values: &[u64]) -> Duration {
    Duration::from_millis(one(random, values))
}

impl Settings {
    /// The name of the Service port, which SRV records contain.
    pub const PORT_NAME: &'static str = "postgresql";

    /// Returns the settings that differ from the defaults as the query of a URL, without the question mark.
    #[must_use]
    pub fn query(&self) -> String {
        let query = self.fields().query();
        match self.discovery {
            Discovery::Dns => query,
            // SRV records belong to a named port.
            Discovery::Srv => format!("{query}&port_name={}", Self::PORT_NAME),
        }
    }

    /// Draws settings. Each one differs from its default with a probability of 25 %.
    pub(super) fn draw(topology: &Topology, random: &mut fastrand::Rng) -> Self {
        let mut drawn = Self::default();
        // The draws are the same whether a value is used or not, so that one setting does not change the others.
        macro_rules! sometimes {
            ($field:ident, $value:expr) => {
                let (value, is_used) = ($value, random.u32(..4) == 0);
                if is_used {
                    drawn.$field = value;
                }
            };
        }
        sometimes!(acquire_timeout, millis(random, &[200, 500, 1000, 2000, 10_000]));
        sometimes!(connect_timeout, millis(random, &[250, 500, 1000, 3000]));
        sometimes!(tcp_user_timeout, millis(random, &[1000, 2000, 5000]));
        sometimes!(pool_size, one(random, &[1, 2, 3, 4, 16]));
        sometimes!(min_idle, one(random, &[0, 2, 4]));
        sometimes!(max_connections, Some(one(random, &[3, 4, 6, 10, 20, 40])));
        sometimes!(subset_size, Some(random.u32(1..=topology.pods)));
        sometimes!(clients, Some(one(random, &[topology.clients, topology.clients, 25])));
        sometimes!(statement_cache_size, one(random, &[0, 1, 2, 16]));
        sometimes!(reset, one(random, Reset::ALL));
        sometimes!(max_lifetime, millis(random, &[2000, 5000, 20_000]));
        sometimes!(idle_timeout, millis(random, &[1000, 3000, 10_000]));
        sometimes!(ping_after, millis(random, &[0, 100, 5000, 60_000]));
        sometimes!(handshakes_per_pod, one(random, &[1, 4, 8]));
        sometimes!(handshakes, one(random, &[1, 2, 4]));
        sometimes!(refresh_min, millis(random, &[100, 500, 2000]));
        sometimes!(refresh_max, millis(random, &[2000, 5000]));
        sometimes!(dns_timeout, millis(random, &[500, 1000, 4000]));
        sometimes!(dns_hedge, millis(random, &[50, 100, 1000]));
        sometimes!(probe_interval, millis(random, &[500, 1000, 2000, 10_000]));
        sometimes!(probe_timeout, millis(random, &[250, 500, 2000]));
        sometimes!(outlier_consecutive, one(random, &[1, 2, 10]));
        sometimes!(max_lag, Some(millis(random, &[500, 1000, 2000, 5000])));
        sometimes!(max_lag_bytes, Some(one(random, &[1000, 10_000, 100_000])));
        sometimes!(lag_fallback, LagFallback::Primary);
        sometimes!(absent_pods, AbsentPods::Keep);
        sometimes!(detach_linger, millis(random, &[0, 1000, 5000]));
        sometimes!(drain_timeout, millis(random, &[0, 1000, 10_000]));
        sometimes!(close_timeout, millis(random, &[0, 1000, 5000]));
        sometimes!(policy, one(random, Policy::ALL));
        sometimes!(discovery, Discovery::Srv);
        // Values that contradict each other are rejected by podpool.
        drawn.min_idle = drawn.min_idle.min(drawn.pool_size);
        drawn.refresh_max = drawn.refresh_max.max(drawn.refresh_min);
        drawn
    }

    /// Draws the settings of shared connections.
    pub(super) fn share(&mut self, random: &mut fastrand::Rng) {
        self.shared_connections = one(random, &[1, 1, 2]);
        // The other callers need connections too.
        self.pool_size = self.pool_size.max(2 * self.shared_connections + 2);
        self.shared_depth = one(random, &[1, 2, 8, 32]);
        self.shared_slow = one(random, &[None, None, Some(Duration::from_millis(50)), Some(Duration::from_secs(1))]);
    }

    /// Returns true if a client uses every Pod, whatever their number.
    pub(crate) fn uses_every_pod(&self) -> bool {
        self.subset_size.is_none() && self.max_connections.is_none()
    }

    /// Changes the settings without which some load and some faults have no consequences.
    pub(super) fn suit(&mut self, callers: &[Caller], faults: &[Window]) {
        if callers.iter().any(|caller| caller.leak == Leak::Session) {
            self.reset = Reset::Discard;
        }
        if faults.iter().any(|window| matches!(window.fault, Fault::ReplayPaused { .. })) {
            self.max_lag.get_or_insert(Duration::from_secs(1));
        }
        if faults.iter().any(|window| matches!(window.fault, Fault::Slow { .. })) {
            // Other policies do not react, and shares are not defined if clients use different Pods.
            (self.policy, self.subset_size, self.max_connections) = (Policy::LeastCost, None, None);
        }
    }

    /// Lets a client use every Pod, and gives its callers enough connections and time.
    pub(super) fn suffice(&mut self) {
        let default = Self::default();
        (self.subset_size, self.max_connections) = (default.subset_size, default.max_connections);
        self.pool_size = self.pool_size.max(2 * default.pool_size);
        self.acquire_timeout = self.acquire_timeout.max(default.acquire_timeout);
        self.connect_timeout = self.connect_timeout.max(Duration::from_secs(1));
    }

    /// Shortens the intervals and time limits on which the bounds of a recovery depend (`properties::bounds`).
    pub(super) fn shorten(&mut self) {
        let second = Duration::from_secs(1);
        for time in
            [&mut self.probe_interval, &mut self.probe_timeout, &mut self.dns_timeout, &mut self.connect_timeout]
        {
            *time = (*time).min(second);
        }
        self.refresh_max = self.refresh_max.min(2 * second).max(self.refresh_min);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_has_an_empty_query() {
        assert_eq!(Settings::default().query(), "");
    }

    #[test]
    fn a_query_contains_the_settings_that_differ() {
        let settings = Settings { max_lag: Some(Duration::from_secs(2)), reset: Reset::Discard, ..Settings::default() };
        assert_eq!(settings.query(), "reset=discard&max_lag=2000ms");
        assert_eq!(Settings::parse(settings.fields()), Ok(settings));
        let settings = Settings { discovery: Discovery::Srv, ..Settings::default() };
        assert_eq!(settings.query(), "discovery=srv&port_name=postgresql");
    }

    #[test]
    fn every_setting_is_drawn() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..500 {
            let settings = Settings::draw(&Topology::default(), &mut fastrand::Rng::with_seed(seed));
            assert_eq!(Settings::parse(settings.fields()), Ok(settings.clone()));
            seen.extend(settings.query().split('&').map(|pair| pair.split('=').next().unwrap_or_default().to_owned()));
        }
        assert!(seen.len() >= 31, "{seen:?}");
    }
}
