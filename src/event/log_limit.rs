//! A limit on equal log lines, so that a Pod that changes its state all the time does not fill the log.

use std::collections::HashMap;

use crate::{
    address::Address,
    time::{Duration, Instant},
};

/// Number of lines about the same event and Pod that are logged within [`PERIOD`].
const LINES: u32 = 10;
/// The period after which lines are logged again.
const PERIOD: Duration = Duration::from_secs(60);
/// Number of combinations of event and Pod beyond which those without recent lines are forgotten.
const KEYS: usize = 1_024;

/// The log lines of the current period, by the event's name and the Pod's address.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    lines: HashMap<(&'static str, Option<Address>), Lines>,
}

#[derive(Debug)]
struct Lines {
    began: Instant,
    logged: u32,
    omitted: u64,
}

impl LogLimit {
    /// Counts a line. Returns `None` if it must be omitted, or else the number of lines that were omitted before it.
    pub(super) fn admit(&mut self, event: &'static str, address: Option<&Address>, now: Instant) -> Option<u64> {
        if self.lines.len() >= KEYS {
            self.lines.retain(|_, lines| now < lines.began + PERIOD);
        }
        let new = || Lines { began: now, logged: 0, omitted: 0 };
        let lines = self.lines.entry((event, address.cloned())).or_insert_with(new);
        if now >= lines.began + PERIOD {
            *lines = Lines { omitted: lines.omitted, ..new() };
        }
        if lines.logged == LINES {
            lines.omitted += 1;
            return None;
        }
        lines.logged += 1;
        Some(std::mem::take(&mut lines.omitted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lines_are_omitted_and_counted_until_the_period_ends() {
        let (start, mut limit) = (Instant::now(), LogLimit::default());
        let pods: Vec<Address> =
            ["10.0.0.1:5432", "10.0.0.2:5432"].map(|address| Address::Tcp(address.parse().unwrap())).into();
        let mut admit =
            |event, pod: usize, millis| limit.admit(event, Some(&pods[pod]), start + Duration::from_millis(millis));
        let admitted = (0..25).filter(|millis| admit("state_changed", 0, *millis).is_some()).count();
        assert_eq!(admitted, LINES as usize);
        assert_eq!(admit("state_changed", 1, 30), Some(0), "another Pod");
        assert_eq!(admit("role_changed", 0, 30), Some(0), "another event");
        assert_eq!(admit("state_changed", 0, 59_999), None);
        assert_eq!(admit("state_changed", 0, 60_000), Some(16), "a new period begins");
        assert_eq!(admit("state_changed", 0, 60_001), Some(0));
    }

    #[test]
    fn departed_pods_are_forgotten() {
        let (start, mut limit) = (Instant::now(), LogLimit::default());
        for port in 1..=3 * u16::try_from(KEYS).unwrap() {
            let address = Address::Tcp(([10, 0, 0, 1], port).into());
            assert_eq!(limit.admit("endpoint_added", Some(&address), start + PERIOD * u32::from(port)), Some(0));
        }
        assert!(limit.lines.len() <= KEYS, "{} combinations are kept", limit.lines.len());
    }
}
