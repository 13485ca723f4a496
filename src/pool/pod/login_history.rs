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
mod tests {
    use super::*;
    use crate::{
        config::AuthMethod::{Md5, ScramSha256},
        time::Duration,
    };

    /// Records a login at this second. Returns whether the change was reported, and as a downgrade.
    fn login(history: &LoginHistory, start: Instant, second: u64, security: LoginSecurity) -> Option<bool> {
        history.record(security, start + Duration::from_secs(second)).map(|(_, change)| change.weaker)
    }

    #[test]
    fn a_late_login_is_reported_once_if_it_is_weaker() {
        let (history, start) = (LoginHistory::default(), Instant::now());
        let [scram, renewed] = [1, 2].map(|certificate| LoginSecurity::sample(ScramSha256, certificate));
        let md5 = LoginSecurity::sample(Md5, 1);
        assert_eq!(login(&history, start, 2, scram), None, "the first login");
        assert_eq!(login(&history, start, 1, renewed), None, "not weaker");
        assert_eq!(login(&history, start, 1, md5), Some(true));
        assert_eq!(login(&history, start, 0, md5), None);
        assert_eq!(login(&history, start, 2, scram), None, "the late login has not replaced the last one");
    }

    #[test]
    fn a_downgrade_to_an_earlier_protection_is_reported() {
        let (history, start) = (LoginHistory::default(), Instant::now());
        let [md5, renewed] = [1, 2].map(|certificate| LoginSecurity::sample(Md5, certificate));
        let scram = LoginSecurity::sample(ScramSha256, 2);
        let logins = [md5, renewed, scram, renewed, scram, md5, renewed, scram].into_iter().zip(0..);
        let reported: Vec<_> = logins.map(|(security, second)| login(&history, start, second, security)).collect();
        assert_eq!(
            reported,
            [None, Some(false), Some(false), Some(true), None, Some(true), None, None],
            "each protection is reported once as a change and once as a downgrade"
        );
    }

    #[test]
    fn alternating_protections_are_reported_once_each() {
        let (history, start) = (LoginHistory::default(), Instant::now());
        let mut second = 0;
        let mut reported = |certificates: std::ops::Range<u8>| {
            let changed = certificates.filter(|certificate| {
                second += 1;
                login(&history, start, second, LoginSecurity::sample(ScramSha256, *certificate)).is_some()
            });
            changed.count()
        };
        assert_eq!(reported(0..8), 7, "all but the first login");
        assert_eq!(reported(0..8), 1, "the first protection");
        for _ in 0..3 {
            assert_eq!(reported(0..8), 0);
        }
        assert_eq!(reported(8..9), 1, "the oldest one is forgotten");
        assert_eq!(reported(1..8), 0);
        assert_eq!(reported(0..1), 1);
    }
}
