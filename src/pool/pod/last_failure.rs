//! What went wrong with a Pod last, and when to try again.

use crate::{
    error::Attempt,
    time::{Duration, Instant},
    wire::Class,
};

/// After the first failed dial.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// At most.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A Pod's last_failure, if it has any.
#[derive(Debug, Default)]
pub(crate) struct LastFailure {
    last: Option<(Class, Attempt)>,
    /// Why nobody was let in when that was said last.
    said: Option<Class>,
    backoff: Duration,
    not_before: Option<Instant>,
}

impl LastFailure {
    /// A dial failed: the next one is to wait, twice as long each time. Says whether it is [news](Self::news).
    pub(crate) fn dial_failed(&mut self, class: Class, attempt: Attempt, now: Instant) -> bool {
        let news = self.news(class);
        self.last = Some((class, attempt));
        self.backoff = (self.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
        self.not_before = Some(now + self.backoff);
        news
    }

    /// A probe failed. Says whether it is [news](Self::news).
    pub(crate) fn probe_failed(&mut self, class: Class, attempt: Attempt) -> bool {
        let news = self.news(class);
        self.last = Some((class, attempt));
        news
    }

    /// Whether the Pod lets nobody in, and this has not been said yet.
    fn news(&mut self, class: Class) -> bool {
        let shut = matches!(class, Class::Access | Class::Credentials | Class::Tls);
        shut && self.said.replace(class) != Some(class)
    }

    /// A probe passed, perhaps on a connection that was opened before the Pod let nobody in any more.
    pub(crate) fn probe_passed(&mut self) {
        *self = Self { said: self.said, ..Self::default() };
    }

    /// A connection was opened.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// When it may be dialled, if not now.
    pub(crate) fn not_before(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|&at| at > now)
    }

    /// What went wrong last.
    pub(crate) fn last(&self) -> Option<(Class, Attempt)> {
        self.last.clone()
    }
}
