//! Tests the set of Pods after changes, negative responses and contradictory answers, and the interval between lookups.
#![allow(clippy::print_stdout, reason = "a test prints its measurements")]

use super::*;

#[tokio::test]
async fn follows_pods_that_are_added_removed_and_replaced() {
    let server = start().await;
    server.set(SVC, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let mut follower = Follower::new(dns(&[&server]));
    assert_eq!(follower.step().await.unwrap(), pods(&[1, 2, 3]));

    server.set(SVC, &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]);
    assert_eq!(follower.step().await.unwrap(), pods(&[1, 2, 3, 4, 5]));

    // The absence of healthy Pods is confirmed by a second answer, after the TTL of 5 s of the first.
    server.set(SVC, &["10.0.0.1", "10.0.0.2"]);
    assert_eq!(follower.step().await.unwrap(), pods(&[1, 2, 3, 4, 5]));
    assert!((4500..=5000).contains(&follower.waited.as_millis()), "{:?}", follower.waited);
    assert_eq!(follower.step().await.unwrap(), pods(&[1, 2]));
    assert!(!follower.recheck);

    server.set(SVC, &["10.0.0.8", "10.0.0.9"]);
    assert_eq!(follower.step().await.unwrap(), pods(&[1, 2, 8, 9]));
    assert_eq!(follower.step().await.unwrap(), pods(&[8, 9]));

    // Each of the six lookups queries A records. Only the first two query AAAA records, because the Service has no IPv6
    // addresses.
    let kinds = kinds(&server.take_log());
    assert_eq!(kinds.iter().filter(|kind| **kind == RecordType::A).count(), 6);
    assert_eq!(kinds.len(), 6 + 2);
}

#[tokio::test]
async fn steady_state_lookup_sends_one_packet_per_family() {
    let server = start().await;
    let count = |kind| move |log: &[Packet]| log.iter().filter(|packet| packet.kind == kind).count();
    for (ips, v6) in [(&["10.0.0.1", "10.0.0.2"][..], 2 + 2), (&["10.0.0.1", "fd00::1"], 30)] {
        server.set(SVC, ips);
        let mut log = Vec::new();
        // Repeat the measurement after either of two disturbances. If the machine stalls, a query is retransmitted. In
        // one of 75 runs, two of the 30 queries for an address family have the same random id by chance. The second
        // query then counts as a retransmission and waits for the rate limit.
        for _ in 0..5 {
            let dns = dns(&[&server]);
            let mut longest = Duration::ZERO;
            for _ in 0..30 {
                let begin = Instant::now();
                dns.resolve().await.unwrap();
                longest = longest.max(begin.elapsed());
            }
            log = server.take_log();
            if longest < Duration::from_millis(200) {
                break;
            }
            println!("a lookup took {longest:?}: retrying");
        }
        assert_eq!((count(RecordType::A)(&log), count(RecordType::AAAA)(&log), log.len()), (30, v6, 30 + v6));
    }
}

#[tokio::test]
async fn reports_a_name_whose_only_address_is_the_cluster_ip() {
    for (owner, reported) in [(SVC.to_owned(), true), (format!("postgresql-sfs-0.{SVC}"), false)] {
        let server = start().await;
        server.set_records(".", vec![address(SVC, TTL, "10.96.0.7"), pointer("10.96.0.7", &owner)]);
        let dns = dns(&[&server]);
        for _ in 0..8 {
            dns.resolve().await.unwrap();
        }
        assert_eq!(dns.stats().cluster_ip.is_some(), reported);
        let kinds = kinds(&server.take_log());
        assert_eq!(kinds.iter().filter(|kind| **kind == RecordType::PTR).count(), 1);
    }
}

#[tokio::test]
async fn ignores_the_order_of_records_and_duplicates() {
    let server = start().await;
    let mut follower = Follower::new(dns(&[&server]));
    let mut seen = Vec::new();
    for order in [[1, 2, 3, 1], [3, 1, 2, 3], [2, 3, 1, 1]] {
        let records = order.map(|last: u8| address(SVC, TTL, &format!("10.0.0.{last}")));
        server.set_records(SVC, records.to_vec());
        seen.push(follower.dns.resolve().await.unwrap().endpoints);
        assert_eq!(follower.step().await.unwrap(), pods(&[1, 2, 3]));
        assert!(!follower.recheck);
    }
    seen.dedup();
    assert_eq!(seen.len(), 1);
    // Each of the six lookups sends one A query.
    assert_eq!(server.take_log().iter().filter(|packet| packet.kind == RecordType::A).count(), 6);
}

/// Returns the time on the follower's clock until all Pods are removed, or `None` if that takes more than `lookups`
/// lookups.
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
async fn nxdomain_removes_all_pods_only_if_repeated_and_none_passes() {
    let seconds = Duration::from_secs;
    tokio::join!(
        repeats_nxdomain(Fault::NoSuchName(5), seconds(10)),
        repeats_nxdomain(Fault::NoSuchName(30), seconds(30)),
        repeats_nxdomain(Fault::Code(3), seconds(10)),
    );
}

async fn repeats_nxdomain(fault: Fault, after: Duration) {
    let server = start().await;
    server.set(SVC, &["10.0.0.1", "10.0.0.2"]);
    let mut follower = Follower::new(dns(&[&server]));
    follower.step().await.unwrap();

    // One negative lookup, then an answer: the Pods stay.
    server.nth(None, 0, 2, fault.clone());
    let error = follower.step().await.unwrap_err();
    assert_eq!(error.kind(), ResolveErrorKind::NoSuchName);
    assert_eq!(follower.set(), pods(&[1, 2]));
    assert_eq!(follower.step().await.unwrap(), pods(&[1, 2]));

    // Two negative lookups while the Pods fail: the Pods stay.
    follower.all_pass(false);
    server.nth(None, 0, 4, fault.clone());
    for _ in 0..2 {
        follower.step().await.unwrap_err();
        assert_eq!(follower.set(), pods(&[1, 2]));
    }
    assert_eq!(follower.step().await.unwrap(), pods(&[1, 2]));

    // Only negative lookups while the Pods pass: the Pods stay.
    follower.all_pass(true);
    server.always(fault.clone());
    assert_eq!(empties(&mut follower, 6).await, None);
    assert_eq!(follower.set(), pods(&[1, 2]));

    // Only negative lookups while the Pods fail: the Pods are removed. The answer in between resets the count of
    // negative responses.
    server.heal();
    follower.step().await.unwrap();
    follower.all_pass(false);
    server.always(fault);
    let took = empties(&mut follower, 30).await.unwrap();
    assert!(took >= after && took < after + Duration::from_secs(6), "{took:?} of {after:?}");
}

#[tokio::test]
async fn nodata_is_negative_unless_the_other_family_has_addresses() {
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
    // If the name has no A records, AAAA records are always queried too, because a lookup is negative only if both
    // responses are negative.
    let log = server.take_log();
    assert_eq!(log.iter().filter(|packet| packet.kind == RecordType::A).count() * 2, log.len());
}

#[tokio::test]
async fn limits_a_negative_ttl_to_one_day_and_treats_a_set_top_bit_as_zero() {
    let server = start().await;
    for (ttl, limited) in [(86_400, 86_400), (i32::MAX as u32, 86_400), (1 << 31, 0), (u32::MAX, 0)] {
        for fault in [Fault::NoSuchName(ttl), Fault::NoData(ttl)] {
            server.always(fault);
            let error = dns(&[&server]).resolve().await.unwrap_err();
            assert_eq!(error.negative_ttl(), Some(Duration::from_secs(limited)), "TTL {ttl}: {error}");
        }
    }
}

#[tokio::test]
async fn lookup_interval_follows_the_ttl_within_its_bounds() {
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
        follower.confirm = Confirm::default();
        follower.known.clear();
        follower.step().await.unwrap();
        let due = Duration::from_secs(due);
        let waited = follower.waited;
        assert!(waited >= due.mul_f64(0.88) && waited <= due.mul_f64(1.1), "TTLs {ttls:?}: {waited:?}");
    }
    // If a DNS cache returns the remaining TTL of a record, that TTL is used unchanged.
    server.set_records(SVC, vec![address(SVC, 3, "10.0.0.1")]);
    let resolution = follower.dns.resolve().await.unwrap();
    assert!(resolution.valid_until - Instant::now() <= Duration::from_secs(3));
    assert_eq!(kinds(&server.take_log()).iter().filter(|kind| **kind == RecordType::A).count(), 8);
}

#[tokio::test]
async fn keeps_healthy_pods_while_two_dns_replicas_disagree() {
    let server = start().await;
    server.set(SVC, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let mut follower = Follower::new(dns(&[&server]));
    follower.step().await.unwrap();
    for round in 0..12 {
        let stale = if round % 2 == 0 { ["10.0.0.1", "10.0.0.2"] } else { ["10.0.0.2", "10.0.0.3"] };
        server.set(SVC, &stale);
        assert_eq!(follower.step().await.unwrap(), pods(&[1, 2, 3]));
        assert!(follower.recheck);
    }
    assert_eq!(server.take_log().len(), 13 + 2 + 1);
}

#[tokio::test]
async fn treats_a_moved_pod_and_a_reused_address_as_new_pods() {
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

    // Pod 1 restarts with a new address. The old address fails, so a single answer removes it.
    let old = follower.known.keys().nth(1).unwrap().clone();
    follower.known.insert(old, false);
    set(&[(0, 1), (1, 3)]);
    assert_eq!(follower.step().await.unwrap(), named(&[(0, 1), (1, 3)]));

    // Pod 2 gets the address of Pod 1. Both Pods are listed until the absence of Pod 1 is confirmed.
    set(&[(0, 1), (2, 3)]);
    assert_eq!(follower.step().await.unwrap(), named(&[(0, 1), (1, 3), (2, 3)]));
    assert_eq!(follower.step().await.unwrap(), named(&[(0, 1), (2, 3)]));
    assert_eq!(kinds(&server.take_log()), [RecordType::SRV; 4]);
}
