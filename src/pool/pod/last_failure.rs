//! The last failure of a Pod, and the backoff that failed dials cause.

use super::{fleet::Fleet, jitter::jittered};
use crate::{
    error::{Attempt, Phase},
    time::{Duration, Instant},
    wire::{AuthError, Class},
};

/// Backoff after the first failed dial. Doubles with each further failure.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Maximum backoff after failed dials.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Jitter of a backoff, as a fraction in either direction.
const JITTER: f64 = 0.25;

/// The last failure of a Pod, until a dial succeeds or a probe ends the backoff, and the backoff of its dials.
#[derive(Debug, Default)]
pub(crate) struct LastFailure {
    last: Option<(Class, Attempt)>,
    /// The class of the last refusal for which an event was emitted, and whether the pool itself has refused the
    /// server's authentication request.
    reported: Option<(Class, bool)>,
    backoff: Duration,
    /// Time of the failure that started the current backoff.
    failed_at: Option<Instant>,
    not_before: Option<Instant>,
}

impl LastFailure {
    /// Records the failure of a dial that began at `started`, and starts a backoff of 50 ms. The backoff doubles with
    /// each further failure, up to 1 s. Dials that were already in progress when a dial failed count as part of the
    /// same failure. In a large fleet, each backoff is at least the fleet's dial interval. Returns true if the failure
    /// is a [new refusal](Self::report_refusal).
    ///
    /// `unit` is a random number from 0 to 1 for the [`JITTER`] of the backoff. Without jitter, clients that lose a
    /// server at the same moment would also redial it at the same moment.
    pub(crate) fn dial_failed(
        &mut self,
        class: Class,
        attempt: Attempt,
        started: Instant,
        now: Instant,
        fleet: Fleet,
        unit: f64,
    ) -> bool {
        let is_new = self.report_refusal(class, &attempt);
        self.last = Some((class, attempt));
        if self.failed_at.is_none_or(|failed_at| failed_at < started) {
            self.backoff = (self.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX).max(fleet.dial_interval());
            self.not_before = Some(now + jittered(self.backoff, JITTER, unit));
            self.failed_at = Some(now);
        }
        is_new
    }

    /// Delays the next dial until `until`, because the Pod has lost a session and a probe will find out whether the
    /// server still accepts connections.
    pub(crate) fn hold(&mut self, until: Instant) {
        self.not_before = self.not_before.max(Some(until));
    }

    /// Records a failed probe. Returns true if the failure is a [new refusal](Self::report_refusal).
    pub(crate) fn probe_failed(&mut self, class: Class, attempt: Attempt) -> bool {
        let is_new = self.report_refusal(class, &attempt);
        self.last = Some((class, attempt));
        is_new
    }

    /// Marks a refusal of all new connections as reported: by the server, or by the hook `after_connect`. Returns true
    /// if this is a refusal for a reason other than the last reported one.
    pub(crate) fn report_refusal(&mut self, class: Class, attempt: &Attempt) -> bool {
        let refused = matches!(class, Class::Access | Class::Credentials | Class::Tls) || is_setup(attempt);
        let reason = (class, attempt.cause().is_some_and(|cause| cause.is::<AuthError>()));
        refused && self.reported.replace(reason) != Some(reason)
    }

    /// Records a passed probe. The last refusal stays marked as reported, because the probe's connection may have been
    /// opened before the refusal. For the same reason, a server without free connection slots passes probes, so the
    /// backoff of its dials continues. So does the one after a failure of the hook `after_connect`, which does not run
    /// on the connections that only probes use.
    pub(crate) fn probe_passed(&mut self) {
        let is_setup = self.last.as_ref().is_some_and(|(_, attempt)| is_setup(attempt));
        if self.class() != Some(Class::Full) && !is_setup {
            *self = Self { reported: self.reported, ..Self::default() };
        }
    }

    /// Records a passed probe that used the user and database of another pool. A refusal that may depend on them
    /// continues.
    pub(crate) fn server_responds(&mut self) {
        if matches!(self.class(), None | Some(Class::NotReady)) {
            self.probe_passed();
        }
    }

    /// Clears the state after a connection was opened.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns true if a dial has failed since the last success of a dial, or of a probe that ended the backoff.
    pub(crate) fn is_failing(&self) -> bool {
        self.failed_at.is_some()
    }

    /// Returns the end of the backoff if that time is in the future.
    pub(crate) fn not_before(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|&at| at > now)
    }

    /// Returns the class of the last failure.
    pub(crate) fn class(&self) -> Option<Class> {
        self.last.as_ref().map(|(class, _)| *class)
    }

    /// Returns the last failure.
    pub(crate) fn last(&self) -> Option<(Class, Attempt)> {
        self.last.clone()
    }
}

/// Returns true if the hook `after_connect` has failed.
fn is_setup(attempt: &Attempt) -> bool {
    attempt.phase() == Phase::AfterConnect
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;

    fn fail(failure: &mut LastFailure, started: Instant, now: Instant, unit: f64) -> Duration {
        let attempt = Endpoint::new(([127, 0, 0, 1], 5432).into()).attempt(Phase::Tcp, "refused");
        failure.dial_failed(Class::NotReady, attempt, started, now, Fleet::new(None), unit);
        failure.not_before(now).map_or(Duration::ZERO, |at| at - now)
    }

    #[test]
    fn backoff_doubles_once_per_round_of_concurrent_failures() {
        let mut failure = LastFailure::default();
        let mut now = Instant::now();
        for millis in [50, 100, 200, 400, 800, 1000, 1000] {
            let started = now;
            now += Duration::from_secs(2);
            assert_eq!(fail(&mut failure, started, now, 0.5), Duration::from_millis(millis));
            // A dial that began before the first dial failed counts as part of that failure and does not double the
            // backoff again.
            assert_eq!(fail(&mut failure, started, now, 0.5), Duration::from_millis(millis));
            now += Duration::from_millis(1);
        }
        failure.clear();
        assert_eq!(fail(&mut failure, now, now + Duration::from_secs(1), 0.5), BACKOFF_MIN);
    }

    #[test]
    fn each_backoff_of_a_large_fleet_is_at_least_its_dial_interval() {
        let (now, fleet) = (Instant::now(), Fleet::new(Some(500)));
        let attempt = Endpoint::new(([127, 0, 0, 1], 5432).into()).attempt(Phase::Tcp, "refused");
        let mut failure = LastFailure::default();
        failure.dial_failed(Class::NotReady, attempt, now, now, fleet, 0.5);
        assert_eq!(failure.not_before(now), Some(now + fleet.dial_interval()));
        failure.hold(now + Duration::from_secs(1));
        assert_eq!(failure.not_before(now), Some(now + fleet.dial_interval()), "the later end applies");
        failure.probe_passed();
        assert_eq!(failure.not_before(now), None);
    }

    #[test]
    fn a_passed_probe_ends_the_backoff_unless_it_says_nothing_about_new_connections() {
        let now = Instant::now();
        let cases = [
            (Class::NotReady, Phase::Startup, false),
            (Class::Full, Phase::Startup, true),
            (Class::NotReady, Phase::AfterConnect, true),
        ];
        for (class, phase, continues) in cases {
            let attempt = Endpoint::new(([127, 0, 0, 1], 5432).into()).attempt(phase, "refused");
            let mut failure = LastFailure::default();
            failure.dial_failed(class, attempt, now, now, Fleet::new(None), 0.5);
            failure.probe_passed();
            assert_eq!(failure.not_before(now).is_some(), continues, "{class:?}, {phase}");
        }
    }

    #[test]
    fn a_refused_authentication_request_is_reported_after_a_rejected_password() {
        let endpoint = Endpoint::new(([127, 0, 0, 1], 5432).into());
        let rejected = || endpoint.attempt(Phase::Startup, "SQLSTATE 28P01");
        let refused = || endpoint.attempt(Phase::Startup, AuthError::unencrypted_password());
        let mut failure = LastFailure::default();
        for (attempt, is_new) in [(rejected(), true), (rejected(), false), (refused(), true), (refused(), false)] {
            assert_eq!(failure.probe_failed(Class::Access, attempt), is_new);
        }
    }

    #[test]
    fn jitter_varies_the_backoff_by_a_quarter() {
        let now = Instant::now();
        assert_eq!(fail(&mut LastFailure::default(), now, now, 0.0), BACKOFF_MIN.mul_f64(0.75));
        assert_eq!(fail(&mut LastFailure::default(), now, now, 1.0), BACKOFF_MIN.mul_f64(1.25));
    }
}
