//! Evidence from ended sessions. The end of one session is evidence about that session only: an administrator or a
//! timeout may have ended it. It is evidence about the Pod only if a second session ends at about the same time, or if
//! a probe confirms it.

use std::time::Duration;

use crate::time::Instant;

/// Two sessions that end within this time are evidence that the server has ended: a shutdown or a crash ends all
/// sessions at once.
pub(crate) const TOGETHER: Duration = Duration::from_millis(100);

/// The conclusion from the end of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Conclusion {
    /// The Pod is suspect: it must be probed, and other Pods are preferred until it responds.
    Suspect,
    /// The server has ended.
    Ended,
}

/// The suspicion against one Pod.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Suspicion {
    /// Time at which the last session ended, and the number of its pool. `None` if the Pod has responded to a probe
    /// that was sent since then.
    ended: Option<(Instant, u64)>,
}

impl Suspicion {
    /// Returns true if a session has ended and the Pod has not responded to a probe since then.
    pub(crate) fn is_suspect(&self) -> bool {
        self.ended.is_some()
    }

    /// Applies the end of a session of this pool that the pool did not end. `others_live` is true if other pools of the
    /// group have sessions on the Pod that have not ended. The end of the sessions of one pool is then evidence about
    /// its user or database only, such as `DROP DATABASE … WITH (FORCE)`.
    pub(crate) fn session_ended(&mut self, pool: u64, others_live: bool, now: Instant) -> Conclusion {
        let before = self.ended.replace((now, pool));
        match before {
            Some((before, other))
                if now.saturating_duration_since(before) <= TOGETHER && (other != pool || !others_live) =>
            {
                Conclusion::Ended
            }
            _ => Conclusion::Suspect,
        }
    }

    /// Applies a response to a probe that was sent at `sent`. Returns true if this ends a suspicion.
    pub(crate) fn responded(&mut self, sent: Instant) -> bool {
        self.ended.take_if(|(ended, _)| *ended <= sent).is_some()
    }

    /// Ends the suspicion, because the Pod was ejected.
    pub(crate) fn clear(&mut self) {
        self.ended = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_one_session_makes_the_pod_suspect_until_it_responds() {
        let now = Instant::now();
        let mut suspicion = Suspicion::default();
        assert!(!suspicion.is_suspect());
        for second in 0..30 {
            let now = now + Duration::from_secs(second);
            assert_eq!(suspicion.session_ended(1, false, now), Conclusion::Suspect);
            assert!(suspicion.is_suspect());
            assert!(suspicion.responded(now + Duration::from_millis(1)));
            assert!(!suspicion.is_suspect());
        }
    }

    #[test]
    fn two_sessions_that_end_together_prove_that_the_server_has_ended() {
        let now = Instant::now();
        let mut suspicion = Suspicion::default();
        suspicion.session_ended(1, false, now);
        assert_eq!(suspicion.session_ended(1, false, now + TOGETHER), Conclusion::Ended);
        suspicion.clear();
        suspicion.session_ended(1, false, now);
        assert_eq!(suspicion.session_ended(1, false, now + TOGETHER * 2), Conclusion::Suspect);
    }

    #[test]
    fn a_response_to_an_earlier_probe_does_not_end_the_suspicion() {
        let now = Instant::now();
        let mut suspicion = Suspicion::default();
        suspicion.session_ended(1, false, now);
        assert!(!suspicion.responded(now - Duration::from_millis(1)));
        assert!(suspicion.is_suspect());
    }

    #[test]
    fn sessions_of_one_pool_prove_nothing_while_those_of_another_live() {
        let now = Instant::now();
        let mut suspicion = Suspicion::default();
        for millis in 0..50 {
            let now = now + Duration::from_millis(millis);
            assert_eq!(suspicion.session_ended(1, true, now), Conclusion::Suspect);
        }
        let now = now + TOGETHER;
        assert_eq!(suspicion.session_ended(2, true, now), Conclusion::Ended, "the sessions of two pools have ended");
        suspicion.clear();
        suspicion.session_ended(1, true, now);
        assert_eq!(suspicion.session_ended(1, false, now), Conclusion::Ended, "no session is left");
    }
}
