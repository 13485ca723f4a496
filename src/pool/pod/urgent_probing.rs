//! Urgent probing: while a caller waits and no Pod can serve its target, every Pod is probed at short intervals.

use tokio::sync::{Notify, futures::Notified};

use crate::{
    sync::{Mutex, lock},
    time::{Duration, Instant},
};

/// Interval between probes of one Pod during the first [`FAST_FOR`].
pub(crate) const FAST: Duration = Duration::from_millis(50);
/// Interval between probes of one Pod after that.
pub(crate) const SLOWER: Duration = Duration::from_millis(250);
/// Time for which [`FAST`] applies.
pub(crate) const FAST_FOR: Duration = Duration::from_secs(5);

/// The callers that need urgent probing.
#[derive(Debug, Default)]
pub(crate) struct UrgentProbing {
    state: Mutex<Waiting>,
    began: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    waiting: usize,
    since: Option<Instant>,
}

/// One caller's need for urgent probing, until dropped.
#[derive(Debug)]
pub(crate) struct UrgentProbingGuard<'a>(&'a UrgentProbing);

impl UrgentProbing {
    /// Registers a caller that no Pod can serve.
    pub(crate) fn begin(&self, now: Instant) -> UrgentProbingGuard<'_> {
        let mut state = lock(&self.state);
        state.waiting += 1;
        if state.waiting == 1 {
            state.since = Some(now);
            self.began.notify_waiters();
        }
        UrgentProbingGuard(self)
    }

    /// Returns the current interval between probes, or `None` if no caller needs urgent probing.
    pub(crate) fn interval(&self, now: Instant) -> Option<Duration> {
        let since = lock(&self.state).since?;
        Some(if now < since + FAST_FOR { FAST } else { SLOWER })
    }

    /// Waits for the next start of urgent probing. Cancel-safe.
    pub(crate) fn began(&self) -> Notified<'_> {
        self.began.notified()
    }
}

impl Drop for UrgentProbingGuard<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.waiting -= 1;
        if state.waiting == 0 {
            state.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lasts_from_the_first_to_the_last_guard() {
        let urgent_probing = UrgentProbing::default();
        let now = Instant::now();
        assert_eq!(urgent_probing.interval(now), None);
        let first = urgent_probing.begin(now);
        let second = urgent_probing.begin(now + FAST_FOR);
        assert_eq!(urgent_probing.interval(now), Some(FAST));
        assert_eq!(urgent_probing.interval(now + FAST_FOR), Some(SLOWER));
        drop(first);
        assert!(urgent_probing.interval(now).is_some());
        drop(second);
        assert_eq!(urgent_probing.interval(now), None);
    }
}
