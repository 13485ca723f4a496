use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use super::Limits;
use crate::{config::duration::Formatted, error::ConfigError};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// Lower bound of the refresh and probe intervals. Shorter intervals would overload the name servers and the Pods.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// Linux's `MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPINTVL`.
const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);
/// Linux's `MAX_TCP_KEEPCNT`.
const MAX_KEEPALIVE_COUNT: u32 = 127;
/// Upper bound of `pool_size`, `shared_connections`, `shared_depth`, `handshakes_per_pod`, `handshakes` and
/// `outlier_consecutive`. A larger value is most likely a mistake.
const MAX_PER_POD: usize = 1_000;
/// Upper bound of `subset_size`: more Pods than any Service has.
const MAX_PODS: usize = 100_000;
/// Upper bound of `max_connections`, `clients` and `statement_cache_size`. A larger value is most likely a mistake.
const MAX_TOTAL: usize = 1_000_000;

impl Limits {
    /// Returns true if callers may time out while the connections that they need are still being opened, because both
    /// time-outs differ from their defaults and `acquire_timeout` is the shorter one.
    pub(crate) fn callers_end_before_dials(&self) -> bool {
        let (acquire, connect) = (self.acquire_timeout, self.connect_timeout);
        acquire != Self::ACQUIRE_TIMEOUT && connect != Self::CONNECT_TIMEOUT && acquire < connect
    }

    /// Rejects values outside their range, and values that contradict each other.
    pub(in crate::config) fn validate(&self) -> Result<(), ConfigError> {
        check_duration("acquire_timeout", self.acquire_timeout, MILLISECOND..=HOUR)?;
        check_duration("connect_timeout", self.connect_timeout, MILLISECOND..=HOUR)?;
        check_duration("tcp_user_timeout", self.tcp_user_timeout, Duration::ZERO..=HOUR)?;
        if !self.tcp_user_timeout.is_zero() {
            check_duration("tcp_user_timeout", self.tcp_user_timeout, MILLISECOND..=HOUR)?;
        }
        check_whole_seconds("keepalives_idle", self.keepalives_idle)?;
        check_whole_seconds("keepalives_interval", self.keepalives_interval)?;
        check_number("keepalives_count", self.keepalives_count, 0..=MAX_KEEPALIVE_COUNT)?;
        check_number("pool_size", self.pool_size, 1..=MAX_PER_POD)?;
        if let Some(connections) = self.max_connections {
            check_number("max_connections", connections, 3..=MAX_TOTAL)?;
        }
        if let Some(pods) = self.subset_size {
            check_number("subset_size", pods, 1..=MAX_PODS)?;
        }
        if let Some(clients) = self.clients {
            check_number("clients", clients, 1..=MAX_TOTAL)?;
        }
        check_number("statement_cache_size", self.statement_cache_size, 0..=MAX_TOTAL)?;
        check_number("shared_connections", self.shared_connections, 1..=MAX_PER_POD)?;
        check_number("shared_depth", self.shared_depth, 1..=MAX_PER_POD)?;
        if let Some(slow) = self.shared_slow {
            check_duration("shared_slow", slow, MILLISECOND..=HOUR)?;
        }
        if self.min_idle > self.pool_size {
            let expected = format!("at most `pool_size`, which is {}", self.pool_size);
            return Err(ConfigError::new("min_idle", expected).got(self.min_idle.to_string()));
        }
        check_duration("max_lifetime", self.max_lifetime, SECOND..=YEAR)?;
        check_duration("idle_timeout", self.idle_timeout, SECOND..=YEAR)?;
        check_duration("ping_after", self.ping_after, Duration::ZERO..=HOUR)?;
        check_number("handshakes_per_pod", self.handshakes_per_pod, 1..=MAX_PER_POD)?;
        check_number("handshakes", self.handshakes, 1..=MAX_PER_POD)?;
        check_duration("refresh_min", self.refresh_min, MIN_INTERVAL..=HOUR)?;
        check_duration("refresh_max", self.refresh_max, MIN_INTERVAL..=HOUR)?;
        if self.refresh_max < self.refresh_min {
            let expected = format!("at least `refresh_min`, which is {}", Formatted(self.refresh_min));
            return Err(ConfigError::new("refresh_max", expected).got(Formatted(self.refresh_max).to_string()));
        }
        check_duration("dns_timeout", self.dns_timeout, MILLISECOND..=MINUTE)?;
        check_duration("dns_hedge", self.dns_hedge, MILLISECOND..=MINUTE)?;
        check_duration("probe_interval", self.probe_interval, MIN_INTERVAL..=HOUR)?;
        check_duration("probe_timeout", self.probe_timeout, MILLISECOND..=MINUTE)?;
        check_number("outlier_consecutive", self.outlier_consecutive as usize, 1..=MAX_PER_POD)?;
        check_number("outlier_success_rate", self.outlier_success_rate, 0.0..=1.0)?;
        check_duration("outlier_window", self.outlier_window, SECOND..=HOUR)?;
        if let Some(lag) = self.max_lag {
            check_duration("max_lag", lag, MILLISECOND..=DAY)?;
        }
        check_duration("detach_linger", self.detach_linger, Duration::ZERO..=DAY)?;
        check_duration("drain_timeout", self.drain_timeout, Duration::ZERO..=DAY)?;
        check_duration("close_timeout", self.close_timeout, Duration::ZERO..=DAY)
    }
}

fn check_duration(
    parameter: &'static str,
    value: Duration,
    range: RangeInclusive<Duration>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let expected = format!("a duration from {} to {}", Formatted(*range.start()), Formatted(*range.end()));
    Err(ConfigError::new(parameter, expected).got(Formatted(value).to_string()))
}

/// Rejects fractions of a second, which the socket options for keepalives would truncate.
fn check_whole_seconds(parameter: &'static str, value: Duration) -> Result<(), ConfigError> {
    if value.subsec_nanos() == 0 && value <= MAX_KEEPALIVE {
        return Ok(());
    }
    let expected = "whole seconds from 1s to 32767s, or 0 for the system's default";
    Err(ConfigError::new(parameter, expected).got(Formatted(value).to_string()))
}

fn check_number<T: Display + PartialOrd>(
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

    fn rejected(change: impl FnOnce(&mut Limits)) -> String {
        let mut limits = Limits::default();
        change(&mut limits);
        limits.validate().unwrap_err().to_string()
    }

    #[test]
    fn callers_end_before_dials_only_if_both_timeouts_are_set() {
        let limits =
            |acquire_timeout, connect_timeout| Limits { acquire_timeout, connect_timeout, ..Limits::default() };
        assert!(limits(SECOND / 2, SECOND).callers_end_before_dials());
        assert!(!limits(SECOND / 2, Limits::CONNECT_TIMEOUT).callers_end_before_dials());
        assert!(!limits(Limits::ACQUIRE_TIMEOUT, HOUR).callers_end_before_dials());
        assert!(!limits(SECOND, SECOND / 2).callers_end_before_dials());
    }

    #[test]
    fn accepts_the_default_limits() {
        Limits::default().validate().unwrap();
    }

    #[test]
    fn accepts_values_at_the_bounds_of_their_ranges() {
        let mut limits = Limits::default();
        limits.acquire_timeout = HOUR;
        limits.connect_timeout = MILLISECOND;
        limits.tcp_user_timeout = Duration::ZERO;
        limits.keepalives_idle = Duration::ZERO;
        limits.keepalives_interval = MAX_KEEPALIVE;
        limits.keepalives_count = 0;
        limits.pool_size = MAX_PER_POD;
        limits.min_idle = MAX_PER_POD;
        limits.ping_after = Duration::ZERO;
        limits.refresh_min = limits.refresh_max;
        limits.outlier_success_rate = 0.0;
        limits.detach_linger = Duration::ZERO;
        limits.drain_timeout = Duration::ZERO;
        limits.close_timeout = DAY;
        limits.validate().unwrap();
    }

    #[test]
    fn errors_contain_the_field_the_range_and_the_value() {
        assert_eq!(
            rejected(|limits| limits.acquire_timeout = Duration::ZERO),
            "parameter `acquire_timeout`: expected a duration from 1ms to 1h, got `0s`"
        );
        assert_eq!(
            rejected(|limits| limits.pool_size = 0),
            "parameter `pool_size`: expected a number from 1 to 1000, got `0`"
        );
        assert_eq!(
            rejected(|limits| limits.min_idle = 9),
            "parameter `min_idle`: expected at most `pool_size`, which is 8, got `9`"
        );
        assert_eq!(
            rejected(|limits| limits.refresh_min = Duration::from_secs(20)),
            "parameter `refresh_max`: expected at least `refresh_min`, which is 20s, got `10s`"
        );
    }

    #[test]
    fn rejects_values_outside_their_ranges() {
        type Change = fn(&mut Limits);
        let cases: [(&str, Change); 30] = [
            ("connect_timeout", |l| l.connect_timeout = Duration::ZERO),
            ("tcp_user_timeout", |l| l.tcp_user_timeout = Duration::from_micros(1)),
            ("keepalives_idle", |l| l.keepalives_idle = Duration::from_millis(1_500)),
            ("keepalives_interval", |l| l.keepalives_interval = MAX_KEEPALIVE + SECOND),
            ("keepalives_count", |l| l.keepalives_count = 128),
            ("pool_size", |l| l.pool_size = 1_001),
            ("max_connections", |l| l.max_connections = Some(2)),
            ("subset_size", |l| l.subset_size = Some(0)),
            ("clients", |l| l.clients = Some(0)),
            ("statement_cache_size", |l| l.statement_cache_size = 2_000_000),
            ("shared_connections", |l| l.shared_connections = 0),
            ("shared_depth", |l| l.shared_depth = 1_001),
            ("shared_slow", |l| l.shared_slow = Some(Duration::ZERO)),
            ("max_lifetime", |l| l.max_lifetime = Duration::ZERO),
            ("idle_timeout", |l| l.idle_timeout = Duration::MAX),
            ("ping_after", |l| l.ping_after = DAY),
            ("handshakes_per_pod", |l| l.handshakes_per_pod = 0),
            ("handshakes", |l| l.handshakes = 0),
            ("refresh_min", |l| l.refresh_min = Duration::ZERO),
            ("refresh_max", |l| l.refresh_max = DAY),
            ("dns_timeout", |l| l.dns_timeout = Duration::ZERO),
            ("dns_hedge", |l| l.dns_hedge = Duration::ZERO),
            ("probe_interval", |l| l.probe_interval = Duration::ZERO),
            ("probe_timeout", |l| l.probe_timeout = HOUR),
            ("outlier_consecutive", |l| l.outlier_consecutive = 0),
            ("outlier_success_rate", |l| l.outlier_success_rate = f64::NAN),
            ("outlier_window", |l| l.outlier_window = Duration::ZERO),
            ("detach_linger", |l| l.detach_linger = YEAR),
            ("drain_timeout", |l| l.drain_timeout = YEAR),
            ("close_timeout", |l| l.close_timeout = YEAR),
        ];
        for (name, change) in cases {
            let message = rejected(change);
            assert!(message.starts_with(&format!("parameter `{name}`")), "{message}");
        }
    }
}
