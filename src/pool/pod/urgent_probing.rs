//! While a caller waits for a Pod that nobody can offer, every Pod is probed often.

use tokio::sync::{Notify, futures::Notified};

use crate::{
    sync::{Mutex, lock},
    time::{Duration, Instant},
};

/// Between probes at first.
pub(crate) const FAST: Duration = Duration::from_millis(50);
/// Between probes after [`FAST_FOR`].
pub(crate) const SLOWER: Duration = Duration::from_millis(250);
/// How long it stays at [`FAST`].
pub(crate) const FAST_FOR: Duration = Duration::from_secs(5);

/// Who waits, and since when.
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

/// One caller's part in it, until dropped.
#[derive(Debug)]
pub(crate) struct UrgentProbingGuard<'a>(&'a UrgentProbing);

impl UrgentProbing {
    /// A caller begins to wait for what nobody can offer.
    pub(crate) fn begin(&self, now: Instant) -> UrgentProbingGuard<'_> {
        let mut state = lock(&self.state);
        state.waiting += 1;
        if state.waiting == 1 {
            state.since = Some(now);
            self.began.notify_waiters();
        }
        UrgentProbingGuard(self)
    }

    /// How often to probe at the moment, if it is urgent at all.
    pub(crate) fn pace(&self, now: Instant) -> Option<Duration> {
        let since = lock(&self.state).since?;
        Some(if now < since + FAST_FOR { FAST } else { SLOWER })
    }

    /// The next time that it becomes urgent. Cancel-safe.
    pub(crate) fn begun(&self) -> Notified<'_> {
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
    fn is_urgent_from_the_first_to_the_last_who_waits() {
        let urgent_probing = UrgentProbing::default();
        let now = Instant::now();
        assert_eq!(urgent_probing.pace(now), None);
        let first = urgent_probing.begin(now);
        let second = urgent_probing.begin(now + FAST_FOR);
        assert_eq!(urgent_probing.pace(now), Some(FAST));
        assert_eq!(urgent_probing.pace(now + FAST_FOR), Some(SLOWER));
        drop(first);
        assert!(urgent_probing.pace(now).is_some());
        drop(second);
        assert_eq!(urgent_probing.pace(now), None);
    }
}
