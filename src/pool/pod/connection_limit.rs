//! The limit on the connections of one client (`max_connections`), and a check that each server accepts enough
//! connections.
//!
//! `max_connections` is divided among the Pods instead of being shared: each Pod in use gets a probe connection and an
//! equal share of the remaining connections. Busy Pods therefore cannot starve a new Pod, and a checkout reads the
//! count of only one Pod. Connections to a Pod that is no longer in use count until they are closed. For this reason,
//! pooled connections are also counted over all Pods.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of pooled connections over all Pods, and its maximum.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    /// `max_connections`.
    limit: Option<usize>,
    /// Maximum number of pooled connections: `limit` minus the probe connections.
    max_pooled: AtomicUsize,
    /// Number of pooled connections that are open or being opened.
    pooled: AtomicUsize,
}

/// The division of `max_connections` among the Pods in use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Division {
    /// Maximum number of pooled connections of all Pods together.
    pub(crate) pooled: usize,
    /// Maximum number of pooled connections of each Pod, before the remainder is distributed.
    pub(crate) per_pod: usize,
    /// Number of Pods that may have one connection more than `per_pod`.
    pub(crate) remainder: usize,
}

impl Division {
    /// Divides `limit` among `pods` Pods, each of which has a probe connection. If `replaceable` is true, one more
    /// probe connection is reserved for a Pod that replaces another one. Each Pod gets at least one pooled connection,
    /// even if the total then exceeds `limit`: a Pod without a pooled connection could not serve any caller.
    pub(crate) fn of(limit: usize, pods: usize, replaceable: bool) -> Self {
        let pods = pods.max(1);
        let pooled = limit.saturating_sub(pods + usize::from(replaceable)).max(pods);
        Self { pooled, per_pod: pooled / pods, remainder: pooled % pods }
    }
}

/// Returns the number of Pods that can be used within `limit`. Each Pod needs one probe connection and one pooled
/// connection.
///
/// If the number is lower than `pods`, one connection is reserved for the probe of a replacement, and capacity for
/// `extra` further Pods is reserved. The result does not include these `extra` Pods.
pub(crate) fn max_pods(limit: usize, pods: usize, extra: usize) -> usize {
    if pods <= limit / 2 { pods } else { (limit.saturating_sub(1) / 2).saturating_sub(extra) }
}

// Relaxed: the counts guard no other data.
impl ConnectionLimit {
    pub(crate) fn new(limit: Option<usize>) -> Self {
        Self { limit, max_pooled: AtomicUsize::new(0), pooled: AtomicUsize::new(0) }
    }

    /// Sets the maximum number of pooled connections.
    pub(crate) fn set(&self, division: Division) {
        self.max_pooled.store(division.pooled, Ordering::Relaxed);
    }

    /// Returns the number of connections that may still be opened, or `usize::MAX` if there is no limit.
    pub(crate) fn available(&self) -> usize {
        if self.limit.is_none() {
            return usize::MAX;
        }
        self.max_pooled.load(Ordering::Relaxed).saturating_sub(self.pooled.load(Ordering::Relaxed))
    }

    /// Counts one more connection. Returns false if the maximum is reached.
    pub(crate) fn try_acquire(&self) -> bool {
        if self.limit.is_none() {
            return true;
        }
        let max = self.max_pooled.load(Ordering::Relaxed);
        let more = |pooled| (pooled < max).then_some(pooled + 1);
        self.pooled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Counts one connection less.
    pub(crate) fn release(&self) {
        if self.limit.is_some() {
            self.pooled.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The number of connections that all clients together open to one Pod, if every client has this client's
/// configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    /// Maximum number of connections of one client, including its probe.
    pub(crate) per_client: usize,
    /// Number of clients. `None` if it is not configured.
    pub(crate) clients: Option<usize>,
    /// Number of Pods that each client uses.
    pub(crate) used: usize,
    /// Number of all Pods behind the Service name.
    pub(crate) pods: usize,
    /// True if every client uses this Pod. This is the case for the primary if the clients write.
    pub(crate) used_by_all: bool,
}

impl Demand {
    /// Returns an explanation if the clients together need more than `slots` connections, the number that the server
    /// accepts.
    pub(crate) fn shortfall(&self, slots: u32) -> Option<String> {
        let &Self { per_client, clients, used, pods, used_by_all } = self;
        let (slots, pods) = (slots as usize, pods.max(1));
        let Some(clients) = clients else {
            let text = || {
                format!(
                    "one client opens up to {per_client} connections to it, including a probe, but the server accepts \
                     only {slots}"
                )
            };
            return (per_client > slots).then(text);
        };
        let here = if used_by_all { clients } else { (clients * used.min(pods)).div_ceil(pods) };
        let needed = here.saturating_mul(per_client);
        let which = match (used_by_all, here == clients) {
            (true, _) => "all of which use the primary",
            (false, true) => "all of which use it",
            (false, false) => "spread over all Pods",
        };
        let text = || {
            format!(
                "{clients} clients, {which}, open up to {needed} connections to it ({here} clients × {per_client}, \
                 including probes), but the server accepts only {slots}"
            )
        };
        (needed > slots).then(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn max_connections_is_split_across_pods_and_includes_probes(
            limit in 3..200usize, pods in 1..300usize, extra in 0..3usize
        ) {
            let used = max_pods(limit, pods, extra);
            let (all, extra_used) = (used == pods, if used == pods { 0 } else { extra });
            prop_assume!(all || (limit - 1) / 2 >= extra.max(1));
            let Division { pooled, per_pod, remainder } = Division::of(limit, used + extra_used, !all);
            prop_assert!(per_pod >= 1);
            prop_assert_eq!(per_pod * (used + extra_used) + remainder, pooled);
            let probes = used + extra_used + usize::from(!all);
            prop_assert!(pooled + probes <= limit, "{pooled} pooled connections and {probes} probes");
        }
    }

    #[test]
    fn shortfall_is_reported_only_if_the_server_has_too_few_slots() {
        let demand = Demand { per_client: 9, clients: None, used: 3, pods: 3, used_by_all: false };
        assert_eq!(demand.shortfall(9), None);
        assert_eq!(
            demand.shortfall(8).unwrap(),
            "one client opens up to 9 connections to it, including a probe, but the server accepts only 8"
        );
        let many = Demand { clients: Some(500), used: 1, pods: 20, per_client: 2, ..demand };
        assert_eq!(many.shortfall(90), None);
        assert_eq!(
            Demand { used_by_all: true, ..many }.shortfall(90).unwrap(),
            "500 clients, all of which use the primary, open up to 1000 connections to it (500 clients × 2, including \
             probes), but the server accepts only 90"
        );
        assert!(Demand { per_client: 4, ..many }.shortfall(90).unwrap().contains("25 clients × 4"));
        assert!(Demand { used: 20, ..many }.shortfall(90).unwrap().contains("all of which use it"));
    }

    #[test]
    fn try_acquire_fails_only_at_the_limit() {
        let unlimited = ConnectionLimit::new(None);
        assert!((0..10).all(|_| unlimited.try_acquire() && unlimited.available() == usize::MAX));
        unlimited.release();
        let limited = ConnectionLimit::new(Some(7));
        limited.set(Division::of(7, 3, false));
        assert!((0..4).all(|taken| limited.available() == 4 - taken && limited.try_acquire()));
        assert!(limited.available() == 0 && !limited.try_acquire());
        limited.release();
        assert!(limited.try_acquire());
    }
}
