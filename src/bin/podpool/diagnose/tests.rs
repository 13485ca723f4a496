use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use podpool::{Phase, Role, TlsReason, discovery::ResolveErrorKind};

use super::*;
use crate::facts::{Answer, Failure, HostFacts, LookupFailure, PodFacts, Server};

fn address(last: u8) -> SocketAddr {
    ([10, 0, 0, last], 5432).into()
}

/// A server without any fault at 10.0.0.`last`.
fn server(last: u8, role: Role) -> Server {
    Server {
        version: 170_000,
        role,
        own_address: Some(address(last)),
        tls: Some("TLSv1.3 TLS_AES_256_GCM_SHA384".to_owned()),
        max_connections: 100,
        reserved: 3,
        sessions: 10,
        slots: Some(97),
        system: Some(7),
        timeline: Some(1),
        position: Some(1000),
        receiving: role == Role::Standby,
        ..Server::default()
    }
}

fn pod(last: u8, visit: Result<Server, Failure>) -> PodFacts {
    let address = address(last);
    PodFacts { pod: address.to_string(), address: Some(address.into()), visit, took: Duration::from_millis(5) }
}

fn answer(pods: usize) -> Answer {
    let server = Some(([10, 96, 0, 10], 53).into());
    Answer { name: "db.ns.svc.".into(), server, pods, ttl: Duration::from_secs(5), cluster_ip: None }
}

/// A primary and two standbys without any fault.
fn good(url: &str) -> Facts {
    let pods = vec![
        pod(1, Ok(server(1, Role::Primary))),
        pod(2, Ok(server(2, Role::Standby))),
        pod(3, Ok(server(3, Role::Standby))),
    ];
    let host = HostFacts { host: "db.ns.svc".into(), lookup: Some(Ok(answer(3))) };
    Facts { config: url.parse().unwrap(), hosts: vec![host], pods }
}

const URL: &str = "postgres://app@db.ns.svc/shop";

/// Changes the good set-up and returns the findings that are not `Ok`.
fn after(url: &str, change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = good(url);
    change(&mut facts);
    diagnose(&facts).into_iter().filter(|finding| finding.severity > Severity::Ok).collect()
}

fn change_server(facts: &mut Facts, index: usize, change: impl Fn(&mut Server)) {
    change(facts.pods[index].visit.as_mut().unwrap());
}

fn fail(facts: &mut Facts, phase: Phase, change: impl Fn(&mut Failure)) {
    for pod in &mut facts.pods {
        let mut failure = Failure { phase: Some(phase), text: "the text".into(), ..Failure::default() };
        change(&mut failure);
        pod.visit = Err(failure);
    }
}

#[test]
fn a_good_set_up_passes_every_step() {
    let findings = diagnose(&good(URL));
    assert!(findings.iter().all(|finding| finding.severity == Severity::Ok && finding.remedy.is_none()));
    let steps: Vec<_> = findings.iter().map(|finding| finding.step).collect();
    use Step::*;
    assert_eq!(steps, [Dns, Service, Tcp, Tls, Login, Proxy, Role, Slots, Lag, Clock]);
}

#[test]
fn lookups() {
    for (kind, cause, remedy) in [
        (ResolveErrorKind::NoSuchName, "cannot be resolved", "kubectl get service db -n ns"),
        (ResolveErrorKind::NoAddress, "cannot be resolved", "no ready Pod"),
        (ResolveErrorKind::Timeout, "cannot be resolved", "UDP and TCP port 53"),
        (ResolveErrorKind::ServerFailure("SERVFAIL"), "cannot be resolved", "log of CoreDNS"),
    ] {
        let findings = after(URL, |facts| {
            facts.hosts[0].lookup = Some(Err(LookupFailure { kind, text: "the text".into() }));
            facts.pods.clear();
        });
        let [finding] = &*findings else { panic!("{findings:?}") };
        assert!(finding.step == Step::Dns && finding.severity == Severity::Error, "{finding:?}");
        assert!(finding.cause.contains(cause) && finding.remedy.as_ref().unwrap().contains(remedy), "{finding:?}");
    }
}

#[test]
fn failures_of_all_pods_share_a_finding() {
    type Change = fn(&mut Failure);
    let cases: [(Phase, Change, Step, &str, &str); 10] = [
        (Phase::Tcp, |failure| failure.io = Some(ErrorKind::ConnectionRefused), Step::Tcp, "listens", "containerPort"),
        (Phase::Tcp, |_| {}, Step::Tcp, "does not answer", "NetworkPolicy"),
        (Phase::Tls, |failure| failure.tls = Some(TlsReason::Expired), Step::Tls, "expired", "issue a new one"),
        (Phase::Tls, |failure| failure.tls = Some(TlsReason::NotOffered), Step::Tls, "does not offer", "ssl=on"),
        (Phase::Startup, |failure| failure.sqlstate = Some("28P01".into()), Step::Login, "password", "nowhere"),
        (Phase::Startup, |failure| failure.sqlstate = Some("42501".into()), Step::Login, "may not", "GRANT CONNECT"),
        (Phase::Startup, |failure| failure.sqlstate = Some("57P03".into()), Step::Login, "now", "starting"),
        (Phase::Startup, |failure| failure.sqlstate = Some("53300".into()), Step::Slots, "full", "pool_size"),
        (Phase::Wait, |_| {}, Step::Login, "in time", "connect_timeout"),
        (Phase::Credentials, |_| {}, Step::Login, "no usable password", "nowhere"),
    ];
    for (phase, change, step, cause, remedy) in cases {
        let findings = after(URL, |facts| fail(facts, phase, change));
        let [finding] = &*findings else { panic!("{findings:?}") };
        assert!(finding.step == step && finding.severity == Severity::Error, "{finding:?}");
        assert_eq!(finding.pods.len(), 3);
        assert!(finding.cause.contains(cause) && finding.cause.ends_with(": the text"), "{finding:?}");
        assert!(finding.remedy.as_ref().unwrap().contains(remedy), "{finding:?}");
    }
}

#[test]
fn a_step_that_no_pod_has_reached_is_not_listed() {
    let mut facts = good(URL);
    fail(&mut facts, Phase::Tls, |failure| failure.tls = Some(TlsReason::WrongName));
    let steps: Vec<_> = diagnose(&facts).iter().map(|finding| finding.step).collect();
    assert_eq!(steps, [Step::Dns, Step::Service, Step::Tcp, Step::Tls]);
}

/// Returns the only finding that is not `Ok`.
fn only(url: &str, change: impl FnOnce(&mut Facts)) -> Finding {
    let findings = after(url, change);
    let [finding] = &*findings else { panic!("{findings:#?}") };
    finding.clone()
}

#[test]
fn proxies() {
    let pooled = only(URL, |facts| (0..3).for_each(|pod| change_server(facts, pod, |pod| pod.pooled = true)));
    assert!((pooled.step, pooled.severity, pooled.pods.len()) == (Step::Proxy, Severity::Warning, 3), "{pooled:?}");
    let forwarded = only(URL, |facts| change_server(facts, 1, |pod| pod.own_address = Some(address(9))));
    assert!((forwarded.step, forwarded.severity) == (Step::Proxy, Severity::Note), "{forwarded:?}");
}

#[test]
fn roles() {
    let standby = |facts: &mut Facts| change_server(facts, 0, |pod| pod.role = Role::Standby);
    let none = only(URL, standby);
    assert!((none.step, none.severity) == (Step::Role, Severity::Error), "{none:?}");
    let unneeded = only(&format!("{URL}?target_session_attrs=standby"), standby);
    assert_eq!(unneeded.severity, Severity::Note);

    let two = only(URL, |facts| change_server(facts, 2, |pod| (pod.role, pod.timeline) = (Role::Primary, Some(2))));
    assert!(two.severity == Severity::Error && two.pods.contains(&"10.0.0.3:5432: timeline 2".into()), "{two:?}");
    let foreign = only(URL, |facts| change_server(facts, 2, |pod| pod.system = Some(8)));
    assert!(foreign.cause.contains("different database clusters"), "{foreign:?}");
    let read_only = only(URL, |facts| change_server(facts, 0, |pod| pod.read_only = true));
    assert_eq!(read_only.severity, Severity::Warning);
    let url = format!("{URL}?target_session_attrs=standby");
    let missing = only(&url, |facts| facts.pods.truncate(1));
    assert!(missing.cause.contains("no Pod is a standby"), "{missing:?}");
}

#[test]
fn slots() {
    let full = only(URL, |facts| change_server(facts, 1, |pod| pod.sessions = 90));
    assert!((full.step, &*full.pods) == (Step::Slots, &["10.0.0.2:5432: 90 of 97".to_owned()][..]), "{full:?}");
    let many = only(&format!("{URL}?clients=20&pool_size=8"), |_| {});
    assert!(many.cause.contains("= 180, and this user has 97 slots"), "{many:?}");
    assert!(many.remedy.unwrap().contains("at most 3"));
    assert_eq!(after(&format!("{URL}?clients=10&pool_size=8"), |_| {}), []);
}

#[test]
fn lag_and_clocks() {
    let behind = |pod: &mut Server| {
        (pod.behind, pod.position, pod.replayed_ago) = (true, Some(400), Some(Duration::from_secs(3)));
    };
    let short = only(URL, |facts| change_server(facts, 1, behind));
    assert!((short.step, short.severity) == (Step::Lag, Severity::Note), "{short:?}");
    assert!(short.cause.contains("600 bytes behind the primary"), "{short:?}");
    let late = only(&format!("{URL}?max_lag=2s"), |facts| change_server(facts, 1, behind));
    assert!(late.severity == Severity::Warning && late.cause.contains("does not read"), "{late:?}");
    for (change, remedy) in [
        ((|pod: &mut Server| pod.paused = true) as fn(&mut Server), "pg_wal_replay_resume"),
        (|pod| pod.receiving = false, "primary_conninfo"),
    ] {
        let late = only(URL, |facts| {
            change_server(facts, 1, behind);
            change_server(facts, 1, change);
        });
        assert!(late.severity == Severity::Warning && late.remedy.as_ref().unwrap().contains(remedy), "{late:?}");
    }

    let one = only(URL, |facts| change_server(facts, 1, |pod| pod.clock = -2.5));
    assert_eq!((one.step, &*one.pods), (Step::Clock, &["10.0.0.2:5432: -2.5 s".to_owned()][..]));
    let all = only(URL, |facts| (0..3).for_each(|pod| change_server(facts, pod, |pod| pod.clock = 60.0)));
    assert!(all.cause.contains("agree with each other"), "{all:?}");
    // The time of the query could explain the difference.
    let slow = |pod: &mut Server| (pod.clock, pod.round_trip) = (1.5, Duration::from_secs(2));
    assert_eq!(after(URL, |facts| change_server(facts, 1, slow)), []);
}

#[test]
fn plain_text_over_a_network_is_a_note() {
    let plain = only(URL, |facts| (0..3).for_each(|pod| change_server(facts, pod, |pod| pod.tls = None)));
    assert!((plain.step, plain.severity, plain.pods.len()) == (Step::Tls, Severity::Note, 3), "{plain:?}");
}
