//! The last failure of a Pod, and the back-off of its dials.

use crate::{
    error::Attempt,
    time::{Duration, Instant},
    wire::Class,
};

/// Back-off after the first failed dial. Doubles with each further failure.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Maximum back-off between failed dials.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The last failure of a Pod since its last success, and the time before which it is not dialled.
#[derive(Debug, Default)]
pub(crate) struct LastFailure {
    last: Option<(Class, Attempt)>,
    /// The class of the refusal that was reported last.
    reported: Option<Class>,
    backoff: Duration,
    not_before: Option<Instant>,
}

impl LastFailure {
    /// Records a failed dial and extends the back-off. Returns true if the failure is a [new refusal](Self::is_new).
    pub(crate) fn dial_failed(&mut self, class: Class, attempt: Attempt, now: Instant) -> bool {
        let is_new = self.is_new(class);
        self.last = Some((class, attempt));
        self.backoff = (self.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
        self.not_before = Some(now + self.backoff);
        is_new
    }

    /// Records a failed probe. Returns true if the failure is a [new refusal](Self::is_new).
    pub(crate) fn probe_failed(&mut self, class: Class, attempt: Attempt) -> bool {
        let is_new = self.is_new(class);
        self.last = Some((class, attempt));
        is_new
    }

    /// Returns true if the Pod refuses all new connections for a reason that has not been reported yet.
    fn is_new(&mut self, class: Class) -> bool {
        let refused = matches!(class, Class::Access | Class::Credentials | Class::Tls);
        refused && self.reported.replace(class) != Some(class)
    }

    /// Records a passed probe. Its connection may be older than a refusal, so the refusal stays reported.
    pub(crate) fn probe_passed(&mut self) {
        *self = Self { reported: self.reported, ..Self::default() };
    }

    /// Forgets everything, because a connection was opened.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns the end of the back-off if it is in the future.
    pub(crate) fn not_before(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|&at| at > now)
    }

    /// Returns the last failure.
    pub(crate) fn last(&self) -> Option<(Class, Attempt)> {
        self.last.clone()
    }
}
