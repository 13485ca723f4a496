//! The protection of a Pod's last login. Reports when it changes.

use super::Pod;
use crate::{
    event::Event,
    sync::{Mutex, lock},
    time::Instant,
    wire::login_security::LoginSecurity,
};

/// The protection of the last login, and the time at which its dial began.
#[derive(Debug, Default)]
pub(crate) struct LoginHistory(Mutex<Option<(Instant, LoginSecurity)>>);

impl LoginHistory {
    /// Records a login whose dial began at `began`. Returns the previous protection if it was different. Ignores a dial
    /// that began before the last recorded one, because concurrent dials may end in a different order.
    fn record(&self, security: LoginSecurity, began: Instant) -> Option<LoginSecurity> {
        let mut last = lock(&self.0);
        if last.is_some_and(|(recorded, _)| began < recorded) {
            return None;
        }
        let (_, before) = last.replace((began, security))?;
        (before != security).then_some(before)
    }
}

impl Pod {
    /// Records the protection of a login whose dial began at `began`, and emits an event if it has changed.
    pub(crate) fn record_login(&self, security: LoginSecurity, began: Instant) {
        let Some(before) = self.logins.record(security, began) else { return };
        let (endpoint, from, to) = (self.endpoint.clone(), before.to_string().into(), security.to_string().into());
        self.shared().events.emit(match security.is_weaker_than(&before) {
            true => Event::SecurityDowngraded { endpoint, from, to },
            false => Event::SecurityChanged { endpoint, from, to },
        });
    }
}
