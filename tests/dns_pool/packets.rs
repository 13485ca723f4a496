//! Tests the number of DNS packets: one per address family and refresh, at most four per second while lookups fail, and
//! none per checkout.

use std::time::{Duration, Instant};

use podpool::{
    Pool,
    testkit::fault_dns::{Fault, FaultDns, Packet, RecordType},
};
use tokio::task::JoinSet;

use crate::{
    common::until,
    site::{FOLLOW, Site, count_of, refreshed},
};

const CALLERS: usize = 1000;

/// Makes `checkouts` checkouts from each of 1,000 concurrent callers.
async fn check_out(pool: &Pool, checkouts: usize) {
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let pool = pool.clone();
        callers.spawn(async move {
            for _ in 0..checkouts {
                drop(pool.get().await.expect("checkout succeeds"));
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("no caller panics");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_at_startup_share_one_lookup() {
    let site = Site::start(2).await;
    site.dns.always(Fault::Delay(Duration::from_millis(200)));
    let config = site.url(&[&site.dns], "&refresh_min=10s").parse().expect("the URL parses");
    let pool = Pool::builder(config).build().expect("the pool is created");
    check_out(&pool, 1).await;
    let log = site.dns.take_log();
    println!("{CALLERS} callers at startup: {} packets", log.len());
    let (a, aaaa) = (count_of(&log, RecordType::A), count_of(&log, RecordType::AAAA));
    assert_eq!((a, aaaa, log.len()), (1, 1, 2), "expected one A and one AAAA query: {log:?}");
    site.end(pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkouts_send_no_dns_packets_in_steady_state() {
    let site = Site::start(2).await;
    let pool = site.pool(2, "").await;
    refreshed(&pool, 1).await;
    site.dns.take_log();
    let before = pool.status().counters.resolve_ok;
    refreshed(&pool, 6).await;
    let refreshes = usize::try_from(pool.status().counters.resolve_ok - before).expect("the count fits in usize");
    let log = site.dns.take_log();
    let (a, aaaa) = (count_of(&log, RecordType::A), count_of(&log, RecordType::AAAA));
    println!("{refreshes} refreshes while idle: {a} packets for A, {aaaa} for AAAA, {} in total", log.len());
    assert_eq!(a, refreshes, "A queries per refresh while idle");
    // The name has no AAAA records, so the pool sends AAAA queries less often than A queries.
    assert!(aaaa <= 1 && a + aaaa == log.len(), "more AAAA or other queries than expected: {log:?}");

    // A load of 1,000 callers does not change the number of packets per refresh.
    let before = pool.status().counters.resolve_ok;
    let (mut checkouts, began) = (0, Instant::now());
    while pool.status().counters.resolve_ok < before + 5 {
        assert!(began.elapsed() < Duration::from_secs(60), "fewer than five refreshes in 60 s");
        check_out(&pool, 10).await;
        checkouts += 10 * CALLERS;
    }
    let packets_of = |log: &[Packet]| (count_of(log, RecordType::A), count_of(log, RecordType::AAAA));
    refreshed(&pool, 1).await;
    let refreshes = usize::try_from(pool.status().counters.resolve_ok - before).expect("the count fits in usize");
    let (a, aaaa) = packets_of(&site.dns.take_log());
    println!("{refreshes} refreshes, {checkouts} checkouts by {CALLERS} callers: {a} packets for A, {aaaa} for AAAA");
    assert_eq!(a, refreshes, "A queries per refresh under load");
    assert!(aaaa <= 2, "too many AAAA queries under load: {aaaa}");

    // If the name has records of both families, each refresh sends one packet per family.
    let ips = [site.ip(0), site.ip(1)];
    site.dns.set("postgresql-svc.k8s-training.svc.cluster.local.", &[&ips[0], &ips[1], "::1"]);
    until(Duration::from_secs(30), "the IPv6 address is found", || pool.status().endpoints.len() == 3).await;
    refreshed(&pool, 1).await;
    site.dns.take_log();
    let before = pool.status().counters.resolve_ok;
    refreshed(&pool, 5).await;
    let refreshes = usize::try_from(pool.status().counters.resolve_ok - before).expect("the count fits in usize");
    let counted = packets_of(&site.dns.take_log());
    println!("{refreshes} refreshes of both families: {} packets for A, {} for AAAA", counted.0, counted.1);
    assert_eq!(counted, (refreshes, refreshes), "A and AAAA queries per refresh with both families");
    site.end(pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn srv_discovery_sends_one_packet_per_refresh() {
    let site = Site::start(1).await;
    let port = site.cluster.port();
    site.publish_srv(&[("pod-a", 0, port)]);
    let pool = site.pool(1, "&discovery=srv&port_name=postgresql-port").await;
    refreshed(&pool, 1).await;
    site.dns.take_log();
    let before = pool.status().counters.resolve_ok;
    refreshed(&pool, 5).await;
    let refreshes = usize::try_from(pool.status().counters.resolve_ok - before).expect("the count fits in usize");
    let log = site.dns.take_log();
    println!("{refreshes} refreshes of SRV records: {} packets", log.len());
    let srv = count_of(&log, RecordType::SRV);
    assert_eq!((srv, log.len()), (refreshes, refreshes), "expected one SRV query per refresh: {log:?}");
    site.end(pool).await;
}

/// Returns the maximum number of packets in any one second. The window is 50 ms shorter than a second, because packets
/// reach the server with varying delays.
fn max_per_second(times: &[tokio::time::Instant]) -> usize {
    let window = Duration::from_millis(950);
    times.iter().map(|from| times.iter().filter(|at| (*from..*from + window).contains(at)).count()).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_lookups_send_at_most_four_packets_per_second() {
    let site = Site::start(2).await;
    let second = FaultDns::start().await.expect("the name server starts");
    for (servers, fault) in [
        (vec![&site.dns], Fault::Drop),
        (vec![&site.dns], Fault::Code(2)),
        (vec![&site.dns, &second], Fault::Code(2)),
        (vec![&site.dns, &second], Fault::Drop),
    ] {
        for server in &servers {
            server.heal();
        }
        let pool = Pool::connect(&site.url(&servers, "&refresh_max=1s")).await.expect("the pool is created");
        for server in &servers {
            server.always(fault.clone());
        }
        until(FOLLOW, "a lookup fails", || pool.status().resolve.failures > 0).await;
        for server in &servers {
            server.take_log();
        }
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) {
            check_out(&pool, 1).await;
            tokio::time::sleep(Duration::from_millis(50)).await; // paces the load
        }
        let took = began.elapsed();
        let mut times: Vec<_> = servers.iter().flat_map(|server| server.take_log()).map(|packet| packet.at).collect();
        times.sort_unstable();
        let (max, servers) = (max_per_second(&times), servers.len());
        println!("{servers} servers, {fault:?}: {} packets in {took:?}, at most {max} per second", times.len());
        assert!(!times.is_empty(), "{servers} servers, {fault:?}: no packets were sent");
        assert!(max <= 4, "{servers} servers, {fault:?}: {max} packets within one second: {times:?}");
        let limit = 4 * (took.as_secs_f64().ceil() as usize);
        assert!(times.len() <= limit, "{servers} servers, {fault:?}: {} packets in {took:?}", times.len());
        drop(pool);
    }
    site.cluster.shutdown().await.expect("the cluster shuts down");
}
