//! Name servers follow the API server with a delay, each on its own.

use std::{collections::BTreeSet, time::Duration};

use hickory_proto::op::ResponseCode;
use tokio::time::Instant;

use super::{
    super::{CoreDns, CoreDnsSettings, Replicas},
    setup::{added, addresses, running, service, slice},
};
use crate::kubernetes::{Change, SliceEvent};

const ONE: &[(u32, &str, bool)] = &[(0, "10.78.1.11", true)];
const TWO: &[(u32, &str, bool)] = &[(0, "10.78.1.11", true), (1, "10.78.1.12", true)];

fn modified(pods: &[(u32, &str, bool)]) -> Change {
    Change::Slice(SliceEvent::Modified(slice("postgresql-svc-a", pods)))
}

#[test]
fn an_answer_shows_a_change_after_50_to_120_ms() {
    let mut delays = BTreeSet::new();
    let (mut server, mut now) = running(CoreDnsSettings::kubeadm(Instant::now()), ONE);
    for round in 0..50 {
        let (pods, count) = if round % 2 == 0 { (TWO, 2) } else { (ONE, 1) };
        server.observe(now, modified(pods));
        let begin = now;
        while addresses(&mut server, now).1.len() != count {
            now += Duration::from_millis(1);
        }
        delays.insert((now - begin).as_millis());
    }
    assert!(*delays.first().unwrap() >= 50 && *delays.last().unwrap() <= 120, "{delays:?}");
    assert!(delays.len() > 20, "the delays differ: {delays:?}");
}

#[test]
fn changes_become_known_in_their_order() {
    let (mut server, now) = running(CoreDnsSettings::kubeadm(Instant::now()), ONE);
    for pods in [TWO, ONE, TWO, ONE] {
        server.observe(now, modified(pods));
    }
    server.observe(now, Change::Slice(SliceEvent::Deleted(slice("postgresql-svc-a", ONE))));
    let later = now + Duration::from_millis(121);
    assert_eq!(addresses(&mut server, later).0, ResponseCode::NXDomain);
}

#[test]
fn an_answer_stays_old_while_the_api_server_is_away_and_catches_up_within_its_back_off() {
    let (mut server, mut now) = running(CoreDnsSettings::kubeadm(Instant::now()), ONE);
    server.set_available(now, false);
    server.observe(now, modified(TWO));
    now += Duration::from_secs(100);
    assert_eq!(addresses(&mut server, now).1.len(), 1);
    server.set_available(now, true);
    let back = now;
    while addresses(&mut server, now).1.len() == 1 {
        now += Duration::from_millis(100);
    }
    assert!(now - back <= Duration::from_secs(60), "{:?}", now - back);
}

#[test]
fn a_name_server_that_starts_while_the_api_server_is_away_fails_until_it_has_listed() {
    let start = Instant::now();
    let changes = [service(), added(slice("postgresql-svc-a", ONE))];
    let random = fastrand::Rng::with_seed(3);
    let mut server = CoreDns::start(start, CoreDnsSettings::kubeadm(start), changes, false, random);
    assert!(!server.is_listening(start + Duration::from_millis(4999)));
    let mut now = start + Duration::from_secs(5);
    assert_eq!(addresses(&mut server, now), (ResponseCode::ServFail, vec![], 5));
    server.set_available(now, true);
    while addresses(&mut server, now).0 == ResponseCode::ServFail {
        now += Duration::from_millis(100);
    }
    assert_eq!(addresses(&mut server, now).1.len(), 1);
    // A restart loses everything, but lists again soon.
    server.restart(now);
    assert!(!server.is_listening(now + Duration::from_millis(49)));
    assert_eq!(addresses(&mut server, now + Duration::from_millis(121)).1.len(), 1);
}

#[test]
fn replicas_disagree_for_as_long_as_one_has_not_seen_a_change() {
    let start = Instant::now();
    let (first, now) = running(CoreDnsSettings::kubeadm(start), ONE);
    let (second, _) = running(CoreDnsSettings::kubeadm(start), ONE);
    let mut replicas = Replicas::new(vec![first, second], fastrand::Rng::with_seed(5));
    replicas.replica(1).set_available(now, false);
    replicas.observe(now, &modified(TWO));
    let later = now + Duration::from_secs(1);
    let sizes: BTreeSet<usize> = (0..20).map(|_| addresses(&mut replicas, later).1.len()).collect();
    assert_eq!(sizes, BTreeSet::from([1, 2]));
    replicas.set_available(later, true);
    let sizes: BTreeSet<usize> =
        (0..20).map(|_| addresses(&mut replicas, later + Duration::from_secs(60)).1.len()).collect();
    assert_eq!((sizes, replicas.len()), (BTreeSet::from([2]), 2));
}
