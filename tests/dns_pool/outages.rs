//! F6 and F23: DNS is gone, and nobody who works with the pool notices.

use std::time::{Duration, Instant};

use podpool::{State, Target, testkit::fault_dns::Fault};

use crate::{
    common::{in_state, load::Load, until},
    site::{FOLLOW, Heard, Site, set},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f06_a_silent_name_server_is_noticed_by_no_caller() {
    let site = Site::start(2).await;
    let pool = site.pool(2, "").await;
    let (before, heard) = (set(&pool), Heard::of(&pool));
    let sessions = [site.sessions(0).await, site.sessions(1).await];
    let took = async |checkouts: usize| {
        let mut took = Vec::new();
        for _ in 0..checkouts {
            let began = Instant::now();
            let client = pool.get().await.expect("a connection");
            client.query_one("SELECT 1", &[]).await.expect("an answer");
            took.push(began.elapsed());
        }
        took.sort_unstable();
        took
    };
    let with = took(1000).await;
    site.dns.always(Fault::Drop);
    until(FOLLOW, "the pool misses DNS", || pool.status().resolve.failures > 0).await;
    let without = took(1000).await;
    let median = |took: &[Duration]| took[took.len() / 2];
    println!("checkout and statement, median: {:?} with DNS, {:?} without", median(&with), median(&without));
    assert!(median(&without) < median(&with) * 3, "{:?} with DNS, {:?} without", median(&with), median(&without));
    assert!(without[999] < Duration::from_millis(300), "{:?}", &without[990..]);
    until(FOLLOW, "three failures in a row", || pool.status().resolve.failures >= 3).await;
    assert_eq!(set(&pool), before);
    let events = heard.take();
    assert!(events.len() == 1 && events[0].starts_with("resolve_failed"), "{events:?}");
    site.dns.heal();
    until(FOLLOW, "the name resolves", || pool.status().resolve.ok).await;
    for (ordinal, before) in sessions.iter().enumerate() {
        let after = site.sessions(ordinal).await;
        assert!(after.is_superset(before), "Pod {ordinal}: {before:?}, then {after:?}; {:?}", pool.status().endpoints);
    }
    site.end(pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f23_pods_restart_in_place_without_dns_and_nobody_restarts_the_program() {
    let site = Site::start(3).await;
    let pool = site.pool(3, "").await;
    let before = set(&pool);
    site.dns.always(Fault::Drop);
    until(FOLLOW, "the pool misses DNS", || pool.status().resolve.failures > 0).await;
    let load = Load::start(&pool, Target::Any, 4);
    for ordinal in [1, 2] {
        site.cluster.restart(ordinal).await.expect("a restart");
        let back = Instant::now();
        until(FOLLOW, "three Pods serve", || in_state(&pool, State::Healthy) == 3).await;
        let ip = site.ip(ordinal);
        until(FOLLOW, "the Pod that restarted serves", || load.answered_since(&ip, back)).await;
        assert!(pool.status().resolve.failures > 0);
    }
    let report = load.stop().await;
    println!(
        "{} answers, {} failures while DNS was gone and two Pods restarted",
        report.answers.len(),
        report.failures.len()
    );
    assert_eq!(report.failures, [""; 0]);
    assert_eq!(set(&pool), before);

    site.dns.heal();
    site.publish(&[0, 1]);
    until(Duration::from_secs(15), "the set follows again", || set(&pool).len() == 2).await;
    assert!(pool.status().resolve.ok);
    site.end(pool).await;
}
