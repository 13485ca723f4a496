//! CoreDNS with its cache, and the NodeLocal cache.

use std::time::Duration;

use hickory_proto::{op::ResponseCode, rr::RecordType};
use tokio::time::Instant;

use super::{
    super::{CacheSettings, CoreDnsSettings, Fault, Faulty, NameServer, NodeLocal, Rule, Transport},
    setup::{SERVICE, addresses, ask, question, running, slice},
};
use crate::kubernetes::{Change, SliceEvent};

const NONE: &[(u32, &str, bool)] = &[(0, "10.78.1.11", false)];
const ONE: &[(u32, &str, bool)] = &[(0, "10.78.1.11", true)];
const TWO: &[(u32, &str, bool)] = &[(0, "10.78.1.11", true), (1, "10.78.1.12", true)];

fn modified(pods: &[(u32, &str, bool)]) -> Change {
    Change::Slice(SliceEvent::Modified(slice("postgresql-svc-a", pods)))
}

fn at(start: Instant, millis: u64) -> Instant {
    start + Duration::from_millis(millis)
}

#[test]
fn a_success_is_kept_for_30_s_with_the_rest_of_its_ttl() {
    let (mut server, start) = running(CoreDnsSettings::cache_30(Instant::now()), ONE);
    assert_eq!(addresses(&mut server, start).2, 30);
    server.observe(start, modified(TWO));
    for (millis, count, ttl) in [(999, 1, 30), (1000, 1, 29), (29_999, 1, 1), (30_000, 2, 30)] {
        let (_, found, remaining) = addresses(&mut server, at(start, millis));
        assert_eq!((found.len(), remaining), (count, ttl), "after {millis} ms");
    }
}

#[test]
fn a_denial_is_kept_for_30_s_apart_from_other_questions() {
    let (mut server, start) = running(CoreDnsSettings::cache_30(Instant::now()), NONE);
    assert_eq!(addresses(&mut server, start).0, ResponseCode::NXDomain);
    server.observe(start, modified(ONE));
    let later = at(start, 29_999);
    assert_eq!(addresses(&mut server, later), (ResponseCode::NXDomain, vec![], 1));
    let srv = ask(&mut server, later, SERVICE, RecordType::SRV);
    assert_eq!(srv.answers.len(), 1, "another type is another entry");
    let pod = ask(&mut server, later, &format!("postgresql-sfs-0.{SERVICE}"), RecordType::A);
    assert_eq!(pod.answers.len(), 1, "another name is another entry");
    assert_eq!(addresses(&mut server, at(start, 30_000)).0, ResponseCode::NoError);
}

#[test]
fn a_denial_hides_the_success_that_it_followed() {
    let (mut server, start) = running(CoreDnsSettings::cache_30(Instant::now()), ONE);
    addresses(&mut server, start);
    server.observe(start, modified(NONE));
    let denied = at(start, 30_000);
    assert_eq!(addresses(&mut server, denied).0, ResponseCode::NXDomain);
    server.observe(denied, modified(TWO));
    assert_eq!(addresses(&mut server, at(denied, 29_000)).0, ResponseCode::NXDomain);
    assert_eq!(addresses(&mut server, at(denied, 30_000)).1.len(), 2);
}

#[test]
fn the_entries_are_lost_by_a_restart() {
    let (mut server, start) = running(CoreDnsSettings::cache_30(Instant::now()), ONE);
    addresses(&mut server, start);
    server.observe(start, modified(TWO));
    server.restart(at(start, 1000));
    assert_eq!(addresses(&mut server, at(start, 2000)).1.len(), 2);
}

#[test]
fn the_node_local_cache_keeps_denials_for_5_s_and_successes_for_the_rest_of_their_ttl() {
    let (server, start) = running(CoreDnsSettings::cache_30(Instant::now()), NONE);
    let mut node = NodeLocal::new(server, CacheSettings::NODE_LOCAL, fastrand::Rng::with_seed(1));
    assert_eq!(addresses(&mut node, start), (ResponseCode::NXDomain, vec![], 5));
    node.upstream().observe(start, modified(ONE));
    // The denial of CoreDNS ends after 30 s; that of the node is renewed until then, for 5 s at least.
    let mut now = start;
    while addresses(&mut node, now).0 == ResponseCode::NXDomain {
        now += Duration::from_secs(1);
    }
    assert_eq!(now - start, Duration::from_secs(30));
    node.upstream().observe(now, modified(TWO));
    assert_eq!(addresses(&mut node, at(now, 29_999)).1.len(), 1);
    assert_eq!(addresses(&mut node, at(now, 30_100)).1.len(), 2);
}

#[test]
fn the_node_local_cache_keeps_an_answer_that_is_about_to_expire_for_5_s_more() {
    let (mut server, start) = running(CoreDnsSettings::cache_30(Instant::now()), ONE);
    addresses(&mut server, start);
    server.observe(start, modified(TWO));
    let mut node = NodeLocal::new(server, CacheSettings::NODE_LOCAL, fastrand::Rng::with_seed(1));
    assert_eq!(addresses(&mut node, at(start, 29_000)).2, 5);
    assert_eq!(addresses(&mut node, at(start, 33_900)).1.len(), 1);
    assert_eq!(addresses(&mut node, at(start, 34_100)).1.len(), 2);
}

#[test]
fn the_node_local_cache_answers_servfail_after_5_s_of_silence_and_asks_over_tcp() {
    let (server, start) = running(CoreDnsSettings::kubeadm(Instant::now()), ONE);
    let faulty = Faulty::new(server, fastrand::Rng::with_seed(1));
    let mut node = NodeLocal::new(faulty, CacheSettings::NODE_LOCAL, fastrand::Rng::with_seed(1));
    node.upstream().set_rules(vec![Rule::every(Fault::Truncated)]);
    assert_eq!(addresses(&mut node, start).1.len(), 1, "no answer over TCP is truncated");
    for fault in [Fault::Silent, Fault::WrongId] {
        node.upstream().set_rules(vec![Rule::every(fault)]);
        let answers = node.answer(start, &question(SERVICE, RecordType::AAAA), Transport::Udp);
        let delays: Vec<_> = answers.iter().map(|(delay, _)| *delay).collect();
        assert_eq!(delays, [Duration::from_secs(5)]);
    }
    node.upstream().set_rules(vec![]);
    let code = |node: &mut _, now| ask(node, now, SERVICE, RecordType::AAAA).metadata.response_code;
    assert_eq!(code(&mut node, at(start, 9_900)), ResponseCode::ServFail, "a failure is kept for 5 s");
    assert_eq!(code(&mut node, at(start, 10_000)), ResponseCode::NoError);
}
