//! Everything is down for a while: the Pods, the name server, the pool's own tasks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{Config, Kind, Pool, State, Target, testkit::Cluster};

mod common;
use common::{in_state, server_addr, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_pods_gone_fails_by_the_deadline_and_works_again_without_a_restart() {
    let cluster = Cluster::start(3).await.expect("a cluster");
    let pool = Pool::connect(&cluster.url()).await.expect("a pool");
    until(Duration::from_secs(10), "three Pods serve", || in_state(&pool, State::Healthy) == 3).await;
    for pod in 0..3 {
        cluster.kill(pod).await.expect("SIGKILL");
    }

    let deadline = pool.config().limits().acquire_timeout;
    let began = Instant::now();
    let error = pool.get().await.expect_err("there is no Pod");
    let took = began.elapsed();
    println!("after {took:?}: {error}");
    assert!(took < deadline + Duration::from_millis(50), "{took:?}");
    assert_eq!(error.kind(), Kind::Connect);
    assert_eq!(error.attempts().len(), 3, "every Pod is named: {error}");
    for attempt in error.attempts() {
        assert!(attempt.cause().is_some(), "{error}");
    }

    // Nobody has answered for longer than a caller waits: the next one fails at once.
    until(deadline, "the silence is older than a caller waits", || began.elapsed() > deadline).await;
    let began = Instant::now();
    pool.get().await.expect_err("there is still no Pod");
    assert!(began.elapsed() < Duration::from_millis(50), "{:?}", began.elapsed());

    for pod in 0..3 {
        cluster.start_pod(pod).await.expect("a restart");
    }
    until(Duration::from_secs(10), "a Pod serves", || in_state(&pool, State::Healthy) > 0).await;
    let client = pool.get().await.expect("a connection");
    assert_eq!(server_addr(&client).await, client.endpoint().address().ip().to_string());
    drop(client);
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_server_gone_for_a_minute_fails_no_checkout() {
    let cluster = Cluster::start(2).await.expect("a cluster");
    let pool = Pool::connect(&cluster.url()).await.expect("a pool");
    until(Duration::from_secs(10), "two Pods serve", || in_state(&pool, State::Healthy) == 2).await;
    cluster.dns().stop().await;
    let gone = Instant::now();
    let mut checkouts = 0;
    while gone.elapsed() < Duration::from_secs(60) {
        let client = pool.get().await.expect("a connection, whatever DNS does");
        if checkouts % 50 == 0 {
            server_addr(&client).await;
        }
        checkouts += 1;
        tokio::time::sleep(Duration::from_millis(2)).await; // the pace of the load
    }
    let status = pool.status();
    println!("{checkouts} checkouts in a minute without DNS, {} failed refreshes", status.resolve.failures);
    assert_eq!(status.endpoints.len(), 2);
    assert!(!status.resolve.ok && status.resolve.failures > 5, "{:?}", status.resolve);
    // Back-off: at most four packets a second, two families, so no more than two refreshes a second.
    assert!(status.resolve.failures <= 120, "{:?}", status.resolve);
    cluster.dns().restart().await.expect("the name server is back");
    until(Duration::from_secs(10), "the name resolves", || pool.status().resolve.ok).await;
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}

/// 10,000 checkouts while the name server does not answer and the pool's one thread does nothing at all.
#[test]
fn a_checkout_waits_for_nobody() {
    let pools = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let servers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let cluster = servers.block_on(Cluster::start(2)).expect("a cluster");
    let config: Config = cluster.url().parse().expect("a URL");
    let pool = Pool::builder(config).runtime(pools.handle().clone()).build().expect("a pool");
    servers.block_on(async {
        pool.wait_ready(Target::Any, Duration::from_secs(10)).await.expect("a Pod serves");
        let warm = || pool.status().endpoints.iter().all(|pod| pod.idle > 0);
        until(Duration::from_secs(10), "both Pods are warm", warm).await;
        cluster.dns().pause();
    });

    let (stopped, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    pools.spawn({
        let (stopped, go_on) = (stopped.clone(), go_on.clone());
        async move {
            // Holds the only thread on which the directory, the refresher, the probers and every driver run.
            stopped.store(true, Ordering::SeqCst);
            let end = Instant::now() + Duration::from_secs(20);
            while !go_on.load(Ordering::SeqCst) && Instant::now() < end {
                std::thread::yield_now();
            }
        }
    });
    let took = servers.block_on(async {
        until(Duration::from_secs(5), "the pool's thread is held", || stopped.load(Ordering::SeqCst)).await;
        let queries = cluster.dns().queries();
        let waits = pool.status().counters.waits;
        let began = Instant::now();
        for _ in 0..10_000 {
            drop(pool.get().await.expect("a connection"));
        }
        let took = began.elapsed();
        assert_eq!(cluster.dns().queries(), queries, "no packet");
        assert_eq!(pool.status().counters.waits, waits, "no wait, no ping");
        took
    });
    go_on.store(true, Ordering::SeqCst);
    println!("10,000 checkouts with everything else stopped: {took:?}");
    drop(pool);
    servers.block_on(cluster.shutdown()).expect("an orderly end");
}
