use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use super::Limits;
use crate::{config::duration::Written, error::ConfigError};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// The shortest pause between two resolutions or two probes: below it a client is a load test.
const PAUSE: Duration = Duration::from_millis(10);
/// Linux's `MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPINTVL`.
const KEEPALIVE: Duration = Duration::from_secs(32_767);
/// Linux's `MAX_TCP_KEEPCNT`.
const KEEPALIVE_COUNT: u32 = 127;
/// The most connections and handshakes per Pod, and the most failures in a row, that anyone means.
const MANY: usize = 1_000;
/// The most Pods of one Service.
const PODS: usize = 100_000;
/// More connections, clients and statements than anyone has.
const MOST: usize = 1_000_000;

impl Limits {
    /// Refuses a field outside its range, and two fields that contradict each other.
    pub(in crate::config) fn validate(&self) -> Result<(), ConfigError> {
        time("acquire_timeout", self.acquire_timeout, MILLISECOND..=HOUR)?;
        time("connect_timeout", self.connect_timeout, MILLISECOND..=HOUR)?;
        time("tcp_user_timeout", self.tcp_user_timeout, Duration::ZERO..=HOUR)?;
        if !self.tcp_user_timeout.is_zero() {
            time("tcp_user_timeout", self.tcp_user_timeout, MILLISECOND..=HOUR)?;
        }
        whole_seconds("keepalives_idle", self.keepalives_idle)?;
        whole_seconds("keepalives_interval", self.keepalives_interval)?;
        within("keepalives_count", self.keepalives_count, 0..=KEEPALIVE_COUNT)?;
        within("pool_size", self.pool_size, 1..=MANY)?;
        if let Some(connections) = self.max_connections {
            within("max_connections", connections, 3..=MOST)?;
        }
        if let Some(pods) = self.subset_size {
            within("subset_size", pods, 1..=PODS)?;
        }
        if let Some(clients) = self.clients {
            within("clients", clients, 1..=MOST)?;
        }
        within("statement_cache_size", self.statement_cache_size, 0..=MOST)?;
        if self.min_idle > self.pool_size {
            let expected = format!("at most `pool_size`, which is {}", self.pool_size);
            return Err(ConfigError::new("min_idle", expected).got(self.min_idle.to_string()));
        }
        time("max_lifetime", self.max_lifetime, SECOND..=YEAR)?;
        time("idle_timeout", self.idle_timeout, SECOND..=YEAR)?;
        time("ping_after", self.ping_after, Duration::ZERO..=HOUR)?;
        within("handshakes_per_pod", self.handshakes_per_pod, 1..=MANY)?;
        time("refresh_min", self.refresh_min, PAUSE..=HOUR)?;
        time("refresh_max", self.refresh_max, PAUSE..=HOUR)?;
        if self.refresh_max < self.refresh_min {
            let expected = format!("at least `refresh_min`, which is {}", Written(self.refresh_min));
            return Err(ConfigError::new("refresh_max", expected).got(Written(self.refresh_max).to_string()));
        }
        time("dns_timeout", self.dns_timeout, MILLISECOND..=MINUTE)?;
        time("dns_hedge", self.dns_hedge, MILLISECOND..=MINUTE)?;
        time("probe_interval", self.probe_interval, PAUSE..=HOUR)?;
        time("probe_timeout", self.probe_timeout, MILLISECOND..=MINUTE)?;
        within("outlier_consecutive", self.outlier_consecutive as usize, 1..=MANY)?;
        within("outlier_success_rate", self.outlier_success_rate, 0.0..=1.0)?;
        time("outlier_window", self.outlier_window, SECOND..=HOUR)?;
        if let Some(lag) = self.max_lag {
            time("max_lag", lag, MILLISECOND..=DAY)?;
        }
        time("drain_timeout", self.drain_timeout, Duration::ZERO..=DAY)?;
        time("close_timeout", self.close_timeout, Duration::ZERO..=DAY)
    }
}

fn time(parameter: &'static str, value: Duration, range: RangeInclusive<Duration>) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let expected = format!("a duration from {} to {}", Written(*range.start()), Written(*range.end()));
    Err(ConfigError::new(parameter, expected).got(Written(value).to_string()))
}

/// Sockets count keepalives in whole seconds; a fraction would be cut off unseen.
fn whole_seconds(parameter: &'static str, value: Duration) -> Result<(), ConfigError> {
    if value.subsec_nanos() == 0 && value <= KEEPALIVE {
        return Ok(());
    }
    let expected = "whole seconds from 1s to 32767s, or 0 for the system's own";
    Err(ConfigError::new(parameter, expected).got(Written(value).to_string()))
}

fn within<T: Display + PartialOrd>(
    parameter: &'static str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let expected = format!("a number from {} to {}", range.start(), range.end());
    Err(ConfigError::new(parameter, expected).got(value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Limits)) -> String {
        let mut limits = Limits::default();
        change(&mut limits);
        limits.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_in_range() {
        Limits::default().validate().unwrap();
    }

    #[test]
    fn the_ends_of_a_range_are_inside() {
        let mut limits = Limits::default();
        limits.acquire_timeout = HOUR;
        limits.connect_timeout = MILLISECOND;
        limits.tcp_user_timeout = Duration::ZERO;
        limits.keepalives_idle = Duration::ZERO;
        limits.keepalives_interval = KEEPALIVE;
        limits.keepalives_count = 0;
        limits.pool_size = MANY;
        limits.min_idle = MANY;
        limits.ping_after = Duration::ZERO;
        limits.refresh_min = limits.refresh_max;
        limits.outlier_success_rate = 0.0;
        limits.drain_timeout = Duration::ZERO;
        limits.close_timeout = DAY;
        limits.validate().unwrap();
    }

    #[test]
    fn names_the_field_the_range_and_the_value() {
        assert_eq!(
            refused(|limits| limits.acquire_timeout = Duration::ZERO),
            "parameter `acquire_timeout`: expected a duration from 1ms to 1h, got `0s`"
        );
        assert_eq!(
            refused(|limits| limits.pool_size = 0),
            "parameter `pool_size`: expected a number from 1 to 1000, got `0`"
        );
        assert_eq!(
            refused(|limits| limits.min_idle = 9),
            "parameter `min_idle`: expected at most `pool_size`, which is 8, got `9`"
        );
        assert_eq!(
            refused(|limits| limits.refresh_min = Duration::from_secs(20)),
            "parameter `refresh_max`: expected at least `refresh_min`, which is 20s, got `10s`"
        );
    }

    #[test]
    fn refuses_zero_where_it_is_senseless_and_what_nobody_means() {
        type Change = fn(&mut Limits);
        let cases: [(&str, Change); 25] = [
            ("connect_timeout", |l| l.connect_timeout = Duration::ZERO),
            ("tcp_user_timeout", |l| l.tcp_user_timeout = Duration::from_micros(1)),
            ("keepalives_idle", |l| l.keepalives_idle = Duration::from_millis(1_500)),
            ("keepalives_interval", |l| l.keepalives_interval = KEEPALIVE + SECOND),
            ("keepalives_count", |l| l.keepalives_count = 128),
            ("pool_size", |l| l.pool_size = 1_001),
            ("max_connections", |l| l.max_connections = Some(2)),
            ("subset_size", |l| l.subset_size = Some(0)),
            ("clients", |l| l.clients = Some(0)),
            ("statement_cache_size", |l| l.statement_cache_size = 2_000_000),
            ("max_lifetime", |l| l.max_lifetime = Duration::ZERO),
            ("idle_timeout", |l| l.idle_timeout = Duration::MAX),
            ("ping_after", |l| l.ping_after = DAY),
            ("handshakes_per_pod", |l| l.handshakes_per_pod = 0),
            ("refresh_min", |l| l.refresh_min = Duration::ZERO),
            ("refresh_max", |l| l.refresh_max = DAY),
            ("dns_timeout", |l| l.dns_timeout = Duration::ZERO),
            ("dns_hedge", |l| l.dns_hedge = Duration::ZERO),
            ("probe_interval", |l| l.probe_interval = Duration::ZERO),
            ("probe_timeout", |l| l.probe_timeout = HOUR),
            ("outlier_consecutive", |l| l.outlier_consecutive = 0),
            ("outlier_success_rate", |l| l.outlier_success_rate = f64::NAN),
            ("outlier_window", |l| l.outlier_window = Duration::ZERO),
            ("drain_timeout", |l| l.drain_timeout = YEAR),
            ("close_timeout", |l| l.close_timeout = YEAR),
        ];
        for (name, change) in cases {
            let message = refused(change);
            assert!(message.starts_with(&format!("parameter `{name}`")), "{message}");
        }
    }
}
