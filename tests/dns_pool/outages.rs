//! Tests that checkouts neither fail nor become slower while the name server does not respond, even if Pods restart.

use std::time::{Duration, Instant};

use podpool::{State, Target, testkit::fault_dns::Fault};

use crate::{
    common::{in_state, load::Load, until},
    site::{EventLog, FOLLOW, Site, members},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkouts_stay_fast_while_the_name_server_does_not_respond() {
    let site = Site::start(2).await;
    let pool = site.pool(2, "").await;
    let (before, events) = (members(&pool), EventLog::of(&pool));
    let sessions = [site.sessions(0).await, site.sessions(1).await];
    let took = async |checkouts: usize| {
        let mut took = Vec::new();
        for _ in 0..checkouts {
            let began = Instant::now();
            let client = pool.get().await.expect("checkout succeeds");
            client.query_one("SELECT 1", &[]).await.expect("the query succeeds");
            took.push(began.elapsed());
        }
        took.sort_unstable();
        took
    };
    let with = took(1000).await;
    site.dns.always(Fault::Drop);
    until(FOLLOW, "a lookup fails", || pool.status().resolve.failures > 0).await;
    let without = took(1000).await;
    let median = |took: &[Duration]| took[took.len() / 2];
    println!("checkout and statement, median: {:?} with DNS, {:?} without", median(&with), median(&without));
    assert!(
        median(&without) < median(&with) * 3,
        "checkout and statement, median: {:?} with DNS, {:?} without",
        median(&with),
        median(&without)
    );
    assert!(without[999] < Duration::from_millis(300), "slowest requests without DNS: {:?}", &without[990..]);
    until(FOLLOW, "three consecutive lookups fail", || pool.status().resolve.failures >= 3).await;
    assert_eq!(members(&pool), before);
    let events = events.take();
    assert!(
        events.len() == 1 && events[0].starts_with("resolve_failed"),
        "expected one event `resolve_failed`, got {events:?}"
    );
    site.dns.heal();
    until(FOLLOW, "the name resolves", || pool.status().resolve.ok).await;
    for (ordinal, before) in sessions.iter().enumerate() {
        let after = site.sessions(ordinal).await;
        assert!(
            after.is_superset(before),
            "Pod {ordinal} lost sessions: {before:?}, then {after:?}; {:?}",
            pool.status().endpoints
        );
    }
    site.end(pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_restart_during_a_dns_outage_serve_again() {
    let site = Site::start(3).await;
    let pool = site.pool(3, "").await;
    let before = members(&pool);
    site.dns.always(Fault::Drop);
    until(FOLLOW, "a lookup fails", || pool.status().resolve.failures > 0).await;
    let load = Load::start(&pool, Target::Any, 4);
    for ordinal in [1, 2] {
        site.cluster.restart(ordinal).await.expect("the Pod restarts");
        let back = Instant::now();
        until(FOLLOW, "three Pods serve", || in_state(&pool, State::Healthy) == 3).await;
        let ip = site.ip(ordinal);
        until(FOLLOW, "the restarted Pod serves", || load.answered_since(&ip, back)).await;
        assert!(pool.status().resolve.failures > 0, "a lookup succeeded during the DNS outage");
    }
    let report = load.stop().await;
    println!(
        "{} responses, {} failures while DNS was down and two Pods restarted",
        report.answers.len(),
        report.failures.len()
    );
    assert_eq!(report.failures, [""; 0], "failed requests");
    assert_eq!(members(&pool), before);

    site.dns.heal();
    site.publish(&[0, 1]);
    until(Duration::from_secs(15), "the pool follows DNS again", || members(&pool).len() == 2).await;
    assert!(pool.status().resolve.ok, "the last lookup failed");
    site.end(pool).await;
}
