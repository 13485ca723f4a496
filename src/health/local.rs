//! The health of this client itself. A client that is starved of CPU, stopped or suspended must not blame its Pods for
//! timeouts (the same idea as Lifeguard in HashiCorp's memberlist, and as the local pause guard of Cassandra's failure
//! detector).
//!
//! A periodic tick measures its own delay. A timeout during which the tick was late proves nothing about a Pod.

use std::time::Duration;

use crate::time::Instant;

/// The delays of the periodic tick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalHealth {
    /// Time between two ticks.
    interval: Duration,
    /// The delay of a tick from which on the client is considered unhealthy.
    tolerance: Duration,
    last_tick: Instant,
    /// Time of the last tick that was late.
    late_at: Option<Instant>,
}

impl LocalHealth {
    /// Creates the state before the first tick. A tick is late if its delay exceeds `tolerance`.
    pub(crate) fn new(interval: Duration, tolerance: Duration, now: Instant) -> Self {
        Self { interval, tolerance, last_tick: now, late_at: None }
    }

    /// Records a tick.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.is_overdue(now) {
            self.late_at = Some(now);
        }
        self.last_tick = now;
    }

    /// Returns true if a timer that was started at `since` and was due at `due` proves nothing: a tick was late in the
    /// meantime or is overdue now, or the timer itself has fired late.
    pub(crate) fn was_late(&self, since: Instant, due: Instant, now: Instant) -> bool {
        self.late_at.is_some_and(|late_at| late_at >= since)
            || self.is_overdue(now)
            || now.saturating_duration_since(due) > self.tolerance
    }

    fn is_overdue(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_tick) > self.interval + self.tolerance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);
    const TOLERANCE: Duration = Duration::from_millis(250);
    const TIMEOUT: Duration = Duration::from_secs(1);

    #[test]
    fn a_timeout_counts_while_the_ticks_are_on_time() {
        let start = Instant::now();
        let mut local = LocalHealth::new(TICK, TOLERANCE, start);
        for tick in 1..=20 {
            local.tick(start + TICK * tick + TOLERANCE / 2);
        }
        let sent = start + TICK * 11;
        assert!(!local.was_late(sent, sent + TIMEOUT, sent + TIMEOUT));
    }

    #[test]
    fn a_timeout_during_a_pause_of_the_client_does_not_count() {
        let start = Instant::now();
        let mut local = LocalHealth::new(TICK, TOLERANCE, start);
        local.tick(start + TICK);
        let sent = start + TICK;
        let resumed = start + Duration::from_secs(3);
        assert!(local.was_late(sent, sent + TIMEOUT, resumed), "before the first tick after the pause");
        local.tick(resumed);
        assert!(local.was_late(sent, sent + TIMEOUT, resumed), "after the first tick after the pause");
        let later = resumed + TICK;
        local.tick(later);
        assert!(!local.was_late(later, later + TICK, later + TICK), "a timeout that began after the pause counts");
    }

    #[test]
    fn a_timer_that_fires_late_does_not_count() {
        let start = Instant::now();
        let mut local = LocalHealth::new(TICK, TOLERANCE, start);
        let late = start + TIMEOUT + TOLERANCE + TICK / 2;
        local.tick(start + TIMEOUT + TOLERANCE - TICK);
        local.late_at = None;
        assert!(local.was_late(start, start + TIMEOUT, late));
        assert!(!local.was_late(start, start + TIMEOUT, start + TIMEOUT + TOLERANCE));
    }
}
