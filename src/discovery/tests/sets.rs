//! What becomes of the set of Pods: F1 to F4, F12, F15, F17.
#![allow(clippy::print_stdout, reason = "a test says what it measured")]

use super::*;

#[tokio::test]
async fn f01_a_set_grows_shrinks_and_is_replaced() {
    let server = start().await;
    server.set(SVC, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let mut follower = Follower::new(dns(&[&server]));
    assert_eq!(follower.step().await.unwrap(), pods(&[1, 2, 3]));

    server.set(SVC, &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]);
    assert_eq!(follower.step().await.unwrap(), pods(&[1, 2, 3, 4, 5]));

    // Healthy Pods that are scaled away are gone with the second answer, a second after the first.
    server.set(SVC, &["10.0.0.1", "10.0.0.2"]);
    assert_eq!(follower.step().await.unwrap(), pods(&[1, 2, 3, 4, 5]));
    assert_eq!(follower.waited, Duration::from_secs(1));
    assert_eq!(follower.step().await.unwrap(), pods(&[1, 2]));
    assert!(!follower.again);

    server.set(SVC, &["10.0.0.8", "10.0.0.9"]);
    assert_eq!(follower.step().await.unwrap(), pods(&[1, 2, 8, 9]));
    assert_eq!(follower.step().await.unwrap(), pods(&[8, 9]));

    // Six lookups: one packet each for A, and AAAA only until it was denied twice.
    let kinds = kinds(&server.take_log());
    assert_eq!(kinds.iter().filter(|kind| **kind == RecordType::A).count(), 6);
    assert_eq!(kinds.len(), 6 + 2);
}

#[tokio::test]
async fn the_steady_state_is_one_packet_a_family_and_lookup() {
    let server = start().await;
    let count = |kind| move |log: &[Packet]| log.iter().filter(|packet| packet.kind == kind).count();
    for (ips, v6) in [(&["10.0.0.1", "10.0.0.2"][..], 2 + 2), (&["10.0.0.1", "fd00::1"], 30)] {
        server.set(SVC, ips);
        let mut log = Vec::new();
        // Where this machine stands still, a question is repeated. And of 60 questions two have the same id once in 75
        // times: the second one is then taken for a repeat, which waits for room. Neither is the steady state.
        for _ in 0..5 {
            let dns = dns(&[&server]);
            let mut longest = Duration::ZERO;
            for _ in 0..30 {
                let asked = Instant::now();
                dns.resolve().await.unwrap();
                longest = longest.max(asked.elapsed());
            }
            log = server.take_log();
            if longest < Duration::from_millis(200) {
                break;
            }
            println!("a lookup took {longest:?}: once more");
        }
        assert_eq!((count(RecordType::A)(&log), count(RecordType::AAAA)(&log), log.len()), (30, v6, 30 + v6));
    }
}

#[tokio::test]
async fn a_name_whose_one_address_is_the_services_own_is_told_of() {
    for (owner, told) in [(SVC.to_owned(), true), (format!("postgresql-sfs-0.{SVC}"), false)] {
        let server = start().await;
        server.set_records(".", vec![address(SVC, TTL, "10.96.0.7"), pointer("10.96.0.7", &owner)]);
        let dns = dns(&[&server]);
        for _ in 0..8 {
            dns.resolve().await.unwrap();
        }
        assert_eq!(dns.stats().cluster_ip.is_some(), told);
        let asked = kinds(&server.take_log());
        assert_eq!(asked.iter().filter(|kind| **kind == RecordType::PTR).count(), 1);
    }
}

#[tokio::test]
async fn f02_order_and_duplicates_change_nothing() {
    let server = start().await;
    let mut follower = Follower::new(dns(&[&server]));
    let mut seen = Vec::new();
    for order in [[1, 2, 3, 1], [3, 1, 2, 3], [2, 3, 1, 1]] {
        let records = order.map(|last: u8| address(SVC, TTL, &format!("10.0.0.{last}")));
        server.set_records(SVC, records.to_vec());
        seen.push(follower.dns.resolve().await.unwrap().endpoints);
        assert_eq!(follower.step().await.unwrap(), pods(&[1, 2, 3]));
        assert!(!follower.again);
    }
    seen.dedup();
    assert_eq!(seen.len(), 1);
    // Each lookup one packet for A, whatever the order.
    assert_eq!(server.take_log().iter().filter(|packet| packet.kind == RecordType::A).count(), 6);
}

/// How long, by the follower's clock, until the set is empty; `None` if it never is within `lookups`.
async fn empties(follower: &mut Follower, lookups: usize) -> Option<Duration> {
    let start = follower.now;
    for _ in 0..lookups {
        let at = follower.now;
        assert!(follower.step().await.is_err());
        if follower.known.is_empty() {
            return Some(at - start);
        }
    }
    None
}

#[tokio::test]
async fn f03_nxdomain_empties_only_after_three_over_its_ttl_and_never_while_a_pod_passes() {
    let seconds = Duration::from_secs;
    tokio::join!(
        denied_again_and_again(Fault::NoSuchName(5), seconds(10)),
        denied_again_and_again(Fault::NoSuchName(30), seconds(30)),
        denied_again_and_again(Fault::Code(3), seconds(10)),
    );
}

async fn denied_again_and_again(fault: Fault, after: Duration) {
    let server = start().await;
    server.set(SVC, &["10.0.0.1", "10.0.0.2"]);
    let mut follower = Follower::new(dns(&[&server]));
    follower.step().await.unwrap();

    // Once, and then an answer.
    server.nth(None, 0, 2, fault.clone());
    let error = follower.step().await.unwrap_err();
    assert_eq!(error.kind(), ResolveErrorKind::NoSuchName);
    assert_eq!(follower.set(), pods(&[1, 2]));
    assert_eq!(follower.step().await.unwrap(), pods(&[1, 2]));

    // Twice, with Pods that fail.
    follower.all_pass(false);
    server.nth(None, 0, 4, fault.clone());
    for _ in 0..2 {
        follower.step().await.unwrap_err();
        assert_eq!(follower.set(), pods(&[1, 2]));
    }
    assert_eq!(follower.step().await.unwrap(), pods(&[1, 2]));

    // For ever, with Pods that pass.
    follower.all_pass(true);
    server.always(fault.clone());
    assert_eq!(empties(&mut follower, 6).await, None);
    assert_eq!(follower.set(), pods(&[1, 2]));

    // And with Pods that fail: the denials heard so far count, so begin anew.
    server.heal();
    follower.step().await.unwrap();
    follower.all_pass(false);
    server.always(fault);
    let took = empties(&mut follower, 30).await.unwrap();
    assert!(took >= after && took < after + Duration::from_secs(6), "{took:?} of {after:?}");
}

#[tokio::test]
async fn f04_nodata_for_a_is_a_denial_and_for_aaaa_alone_is_usual() {
    let server = start().await;
    server.set(SVC, &["10.0.0.1"]);
    server.on(RecordType::AAAA, Fault::NoData(5));
    let mut follower = Follower::new(dns(&[&server]));
    assert_eq!(follower.step().await.unwrap(), pods(&[1]));
    assert_eq!(server.take_log().len(), 2);

    server.always(Fault::NoData(5));
    let error = follower.step().await.unwrap_err();
    assert_eq!((error.kind(), error.negative_ttl()), (ResolveErrorKind::NoAddress, Some(Duration::from_secs(5))));
    assert_eq!(follower.set(), pods(&[1]));
    follower.all_pass(false);
    let took = empties(&mut follower, 30).await.unwrap();
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(16), "{took:?}");
    // An empty A half always has the other one asked too: no denial without both.
    let log = server.take_log();
    assert_eq!(log.iter().filter(|packet| packet.kind == RecordType::A).count() * 2, log.len());
}

#[tokio::test]
async fn f12_the_ttl_is_followed_within_its_bounds() {
    let server = start().await;
    let dns = dns(&[&server]);
    let mut follower = Follower::new(dns);
    for (ttls, due) in [
        (vec![0, 0], 1),
        (vec![1], 1),
        (vec![5, 5], 5),
        (vec![30], 10),
        (vec![86_400], 10),
        (vec![30, 7, 86_400], 7),
        (vec![u32::MAX], 1),
    ] {
        let records = ttls.iter().zip(1..).map(|(ttl, last)| address(SVC, *ttl, &format!("10.0.0.{last}"))).collect();
        server.set_records(SVC, records);
        follower.confirm = Confirm::new();
        follower.known.clear();
        follower.step().await.unwrap();
        let due = Duration::from_secs(due);
        let waited = follower.waited;
        assert!(waited >= due.mul_f64(0.88) && waited <= due.mul_f64(1.1), "TTLs {ttls:?}: {waited:?}");
    }
    // The remaining TTL that a cache tells counts down; the lookup takes it as it is.
    server.set_records(SVC, vec![address(SVC, 3, "10.0.0.1")]);
    let resolution = follower.dns.resolve().await.unwrap();
    assert!(resolution.valid_until - Instant::now() <= Duration::from_secs(3));
    assert_eq!(kinds(&server.take_log()).iter().filter(|kind| **kind == RecordType::A).count(), 8);
}

#[tokio::test]
async fn f15_two_replicas_that_disagree_cost_no_healthy_pod() {
    let server = start().await;
    server.set(SVC, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let mut follower = Follower::new(dns(&[&server]));
    follower.step().await.unwrap();
    for round in 0..12 {
        let stale = if round % 2 == 0 { ["10.0.0.1", "10.0.0.2"] } else { ["10.0.0.2", "10.0.0.3"] };
        server.set(SVC, &stale);
        assert_eq!(follower.step().await.unwrap(), pods(&[1, 2, 3]));
        assert!(follower.again);
    }
    assert_eq!(server.take_log().len(), 13 + 2 + 1);
}

#[tokio::test]
async fn f17_a_pod_that_moves_and_an_address_that_is_taken_over_are_other_pods() {
    let server = start().await;
    let set = |pods: &[(u8, u8)]| {
        let target = |pod: u8| format!("postgresql-sfs-{pod}.{SVC}");
        let services = pods.iter().map(|(pod, _)| service(SRV, 5432, &target(*pod)));
        let glue = pods.iter().map(|(pod, last)| address(&target(*pod), TTL, &format!("10.0.0.{last}")));
        server.set_records(SVC, services.chain(glue).collect());
    };
    let named = |pods: &[(u8, u8)]| -> Vec<String> {
        pods.iter().map(|(pod, last)| format!("postgresql-sfs-{pod} (10.0.0.{last}:5432)")).collect()
    };
    let mut options = options(&[&server]);
    options.srv_port_name = Some("postgresql-port".into());
    let mut follower = Follower::new(Dns::new(options).unwrap());
    set(&[(0, 1), (1, 2)]);
    assert_eq!(follower.step().await.unwrap(), named(&[(0, 1), (1, 2)]));

    // Pod 1 restarts with a new address. Its old one fails, so one answer removes it.
    let old = follower.known.keys().nth(1).unwrap().clone();
    follower.known.insert(old, false);
    set(&[(0, 1), (1, 3)]);
    assert_eq!(follower.step().await.unwrap(), named(&[(0, 1), (1, 3)]));

    // Pod 2 gets the address that Pod 1 had until now: a Pod of its own beside the old one, until that is confirmed.
    set(&[(0, 1), (2, 3)]);
    assert_eq!(follower.step().await.unwrap(), named(&[(0, 1), (1, 3), (2, 3)]));
    assert_eq!(follower.step().await.unwrap(), named(&[(0, 1), (2, 3)]));
    assert_eq!(kinds(&server.take_log()), [RecordType::SRV; 4]);
}
