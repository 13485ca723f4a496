//! F21, and the packets: one a family and refresh, no more than four a second while DNS fails, none for a checkout.

use std::time::{Duration, Instant};

use podpool::{
    Pool,
    testkit::fault_dns::{Fault, FaultDns, Packet, RecordType},
};
use tokio::task::JoinSet;

use crate::{
    common::until,
    site::{FOLLOW, Site, of, refreshed},
};

const CALLERS: usize = 1000;

/// So many callers at once, each with so many checkouts.
async fn check_out(pool: &Pool, checkouts: usize) {
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let pool = pool.clone();
        callers.spawn(async move {
            for _ in 0..checkouts {
                drop(pool.get().await.expect("a connection"));
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("no caller panics");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f21_a_thousand_callers_at_the_start_cost_one_packet_a_family() {
    let site = Site::start(2).await;
    site.dns.always(Fault::Delay(Duration::from_millis(200)));
    let config = site.url(&[&site.dns], "&refresh_min=10s").parse().expect("a URL");
    let pool = Pool::builder(config).build().expect("a pool");
    check_out(&pool, 1).await;
    let log = site.dns.take_log();
    println!("{CALLERS} callers at the start: {} packets", log.len());
    assert_eq!((of(&log, RecordType::A), of(&log, RecordType::AAAA), log.len()), (1, 1, 2), "{log:?}");
    site.end(pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_steady_state_is_one_packet_a_family_and_refresh_whatever_is_checked_out() {
    let site = Site::start(2).await;
    let pool = site.pool(2, "").await;
    refreshed(&pool, 1).await;
    site.dns.take_log();
    let before = pool.status().counters.resolve_ok;
    refreshed(&pool, 6).await;
    let refreshes = usize::try_from(pool.status().counters.resolve_ok - before).expect("few");
    let log = site.dns.take_log();
    let (a, aaaa) = (of(&log, RecordType::A), of(&log, RecordType::AAAA));
    println!("{refreshes} refreshes, idle: {a} packets for A, {aaaa} for AAAA, which is empty, {} in all", log.len());
    assert_eq!(a, refreshes);
    assert!(aaaa <= 1 && a + aaaa == log.len(), "{log:?}");

    // As many with a thousand callers at work all the time.
    let before = pool.status().counters.resolve_ok;
    let (mut checkouts, began) = (0, Instant::now());
    while pool.status().counters.resolve_ok < before + 5 {
        assert!(began.elapsed() < Duration::from_secs(60), "five refreshes do not come");
        check_out(&pool, 10).await;
        checkouts += 10 * CALLERS;
    }
    let packets_of = |log: &[Packet]| (of(log, RecordType::A), of(log, RecordType::AAAA));
    refreshed(&pool, 1).await;
    let refreshes = usize::try_from(pool.status().counters.resolve_ok - before).expect("few");
    let (a, aaaa) = packets_of(&site.dns.take_log());
    println!("{refreshes} refreshes, {checkouts} checkouts by {CALLERS} callers: {a} packets for A, {aaaa} for AAAA");
    assert_eq!(a, refreshes);
    assert!(aaaa <= 2, "{aaaa}");

    // Both families are there: one packet each.
    let ips = [site.ip(0), site.ip(1)];
    site.dns.set("postgresql-svc.k8s-training.svc.cluster.local.", &[&ips[0], &ips[1], "::1"]);
    until(Duration::from_secs(30), "the other family is found", || pool.status().endpoints.len() == 3).await;
    refreshed(&pool, 1).await;
    site.dns.take_log();
    let before = pool.status().counters.resolve_ok;
    refreshed(&pool, 5).await;
    let refreshes = usize::try_from(pool.status().counters.resolve_ok - before).expect("few");
    let counted = packets_of(&site.dns.take_log());
    println!("{refreshes} refreshes of both families: {} packets for A, {} for AAAA", counted.0, counted.1);
    assert_eq!(counted, (refreshes, refreshes));
    site.end(pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_srv_the_steady_state_is_one_packet_a_refresh() {
    let site = Site::start(1).await;
    let port = site.cluster.port();
    site.publish_srv(&[("pod-a", 0, port)]);
    let pool = site.pool(1, "&discovery=srv&port_name=postgresql-port").await;
    refreshed(&pool, 1).await;
    site.dns.take_log();
    let before = pool.status().counters.resolve_ok;
    refreshed(&pool, 5).await;
    let refreshes = usize::try_from(pool.status().counters.resolve_ok - before).expect("few");
    let log = site.dns.take_log();
    println!("{refreshes} refreshes by SRV: {} packets", log.len());
    assert_eq!((of(&log, RecordType::SRV), log.len()), (refreshes, refreshes), "{log:?}");
    site.end(pool).await;
}

/// How many of the packets came within a second, at the most. A twentieth of it is left to the way to the server.
fn within_a_second(times: &[tokio::time::Instant]) -> usize {
    let second = Duration::from_millis(950);
    times.iter().map(|from| times.iter().filter(|at| (*from..*from + second).contains(at)).count()).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_dns_fails_no_more_than_four_packets_go_out_a_second() {
    let site = Site::start(2).await;
    let second = FaultDns::start().await.expect("a name server");
    for (servers, fault) in [
        (vec![&site.dns], Fault::Drop),
        (vec![&site.dns], Fault::Code(2)),
        (vec![&site.dns, &second], Fault::Code(2)),
        (vec![&site.dns, &second], Fault::Drop),
    ] {
        for server in &servers {
            server.heal();
        }
        let pool = Pool::connect(&site.url(&servers, "&refresh_max=1s")).await.expect("a pool");
        for server in &servers {
            server.always(fault.clone());
        }
        until(FOLLOW, "lookups fail", || pool.status().resolve.failures > 0).await;
        for server in &servers {
            server.take_log();
        }
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) {
            check_out(&pool, 1).await;
            tokio::time::sleep(Duration::from_millis(50)).await; // the pace of the load
        }
        let took = began.elapsed();
        let mut times: Vec<_> = servers.iter().flat_map(|server| server.take_log()).map(|packet| packet.at).collect();
        times.sort_unstable();
        let (most, servers) = (within_a_second(&times), servers.len());
        println!("{servers} servers, {fault:?}: {} packets in {took:?}, at most {most} within a second", times.len());
        assert!(most <= 4 && !times.is_empty(), "{times:?}");
        assert!(times.len() <= 4 * (took.as_secs_f64().ceil() as usize), "{times:?}");
        drop(pool);
    }
    site.cluster.shutdown().await.expect("an orderly end");
}
