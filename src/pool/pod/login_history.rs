//! The protection of a Pod's logins. Reports when it changes.

use super::Pod;
use crate::{
    event::Event,
    sync::{Mutex, lock},
    time::Instant,
    wire::login_security::LoginSecurity,
};

/// The number of changes that are remembered, so that an address in front of several servers does not cause an event at
/// each dial.
const REMEMBERED: usize = 8;

/// The protections of a Pod's logins.
#[derive(Debug, Default)]
pub(crate) struct LoginHistory(Mutex<Logins>);

#[derive(Debug, Default)]
struct Logins {
    /// The protection of the last login, and the time at which its dial began.
    last: Option<(Instant, LoginSecurity)>,
    /// The last changes that were reported, without duplicates. The most recent one is at the end.
    reported: Vec<Change>,
}

/// A change to this protection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Change {
    to: LoginSecurity,
    /// True if the protection before the change was stronger.
    weaker: bool,
}

impl LoginHistory {
    /// Records a login whose dial began at `began`. Returns the previous protection and the change if the change must
    /// be reported.
    ///
    /// Concurrent dials may end in a different order. A dial that began before the last recorded one does not replace
    /// it, and is reported only if its protection is weaker.
    fn record(&self, security: LoginSecurity, began: Instant) -> Option<(LoginSecurity, Change)> {
        let mut logins = lock(&self.0);
        let late = logins.last.is_some_and(|(recorded, _)| began < recorded);
        let before = if late { logins.last } else { logins.last.replace((began, security)) };
        let (_, before) = before?;
        let change = Change { to: security, weaker: security.is_weaker_than(&before) };
        if before == security || (late && !change.weaker) {
            return None;
        }
        if let Some(index) = logins.reported.iter().position(|reported| *reported == change) {
            logins.reported[index..].rotate_left(1);
            return None;
        }
        if logins.reported.len() == REMEMBERED {
            logins.reported.remove(0);
        }
        logins.reported.push(change);
        Some((before, change))
    }
}

impl Pod {
    /// Returns true if the pool has ever logged in to the Pod.
    pub(crate) fn has_logged_in(&self) -> bool {
        lock(&self.logins.0).last.is_some()
    }

    /// Records the protection of a login whose dial began at `began`, and emits an event if it is new.
    pub(crate) fn record_login(&self, security: LoginSecurity, began: Instant) {
        let Some((before, Change { to, weaker })) = self.logins.record(security, began) else { return };
        let (endpoint, from, to) = (self.endpoint.clone(), before.to_string().into(), to.to_string().into());
        self.shared().events.emit(match weaker {
            true => Event::SecurityDowngraded { endpoint, from, to },
            false => Event::SecurityChanged { endpoint, from, to },
        });
    }
}

#[cfg(test)]
mod tests;
