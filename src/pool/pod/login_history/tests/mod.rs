//! Tests which changes of the protection of logins are reported.

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
