//! Tests checkouts while all Pods are down, while the name server is down, and while the pool's tasks cannot run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{Config, Event, Events, Kind, Pool, State, Target, testkit::Cluster};

mod common;
use common::{in_state, server_addr, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkouts_fail_by_the_deadline_without_pods_then_recover() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let pool = Pool::connect(&cluster.url()).await.expect("the pool is created");
    until(Duration::from_secs(10), "three Pods serve", || in_state(&pool, State::Healthy) == 3).await;
    for pod in 0..3 {
        cluster.kill(pod).await.expect("SIGKILL is sent");
    }

    let deadline = pool.config().limits().acquire_timeout;
    let began = Instant::now();
    let error = pool.get().await.expect_err("every Pod is down");
    let took = began.elapsed();
    println!("checkout failed after {took:?}: {error}");
    assert!(
        took < deadline + Duration::from_millis(50),
        "checkout took {took:?}, expected at most its deadline of {deadline:?}"
    );
    assert_eq!(error.kind(), Kind::Connect);
    assert_eq!(error.attempts().len(), 3, "the error does not name every Pod: {error}");
    for attempt in error.attempts() {
        assert!(attempt.cause().is_some(), "an attempt has no cause: {error}");
    }

    // Once no Pod has responded for longer than the acquire timeout, checkouts fail immediately.
    until(deadline, "the outage is longer than the acquire timeout", || began.elapsed() > deadline).await;
    let began = Instant::now();
    pool.get().await.expect_err("every Pod is still down");
    let took = began.elapsed();
    assert!(took < Duration::from_millis(50), "checkout failed only after {took:?}");

    for pod in 0..3 {
        cluster.start_pod(pod).await.expect("the Pod restarts");
    }
    until(Duration::from_secs(10), "a Pod serves", || in_state(&pool, State::Healthy) > 0).await;
    let client = pool.get().await.expect("checkout succeeds");
    assert_eq!(server_addr(&client).await, client.endpoint().address().tcp().unwrap().ip().to_string());
    drop(client);
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_pool_reports_that_every_pod_is_down_and_when_the_primary_serves() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    for pod in 0..2 {
        cluster.kill(pod).await.expect("SIGKILL is sent");
    }
    let config: Config = format!("{}&target_session_attrs=primary", cluster.url()).parse().expect("the URL parses");
    let pool = Pool::builder(config).build().expect("the pool is created");
    let mut events = pool.events();
    let began = Instant::now();
    let (mut none_healthy, mut lost) = (None, None);
    while none_healthy.is_none() || lost.is_none() {
        match next(&mut events).await {
            event @ Event::NoHealthyPods { .. } => none_healthy = Some(event),
            event @ Event::PrimaryLost { .. } => lost = Some(event),
            _ => {}
        }
    }
    let (none_healthy, lost) = (none_healthy.unwrap().to_string(), lost.unwrap().to_string());
    println!("after {:?}: {none_healthy}\n{lost}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(2), "the outage is reported after {:?}", began.elapsed());
    assert!(none_healthy.starts_with("no_healthy_pods: none of 2 Pods: "), "{none_healthy}");
    assert!(lost.starts_with("primary_lost: no Pod is the primary: "), "{lost}");
    for text in [&none_healthy, &lost] {
        assert_eq!(text.matches("failed in tcp: ").count(), 2, "the reason of each Pod: {text}");
    }

    for pod in 0..2 {
        cluster.start_pod(pod).await.expect("the Pod starts");
    }
    let (mut again, mut found) = (None, None);
    while again.is_none() || found.is_none() {
        match next(&mut events).await {
            Event::HealthyPodsAgain { after } => again = Some(after),
            Event::PrimaryFound { endpoint, after } => found = Some((endpoint, after)),
            _ => {}
        }
    }
    let (primary, after) = found.unwrap();
    assert_eq!(primary.address().to_string(), cluster.pod(0).address().to_string());
    assert!(after.is_some_and(|after| after <= began.elapsed()) && again.unwrap() <= began.elapsed());
}

/// Waits for the next event.
async fn next(events: &mut Events) -> Event {
    let next = tokio::time::timeout(Duration::from_secs(20), events.next()).await.expect("an event within 20 s");
    next.expect("the pool is open").expect("no event is lost")
}

#[tokio::test]
async fn a_checkout_that_ends_before_the_first_connection_is_open_says_so() {
    // The system accepts the connections of this socket, but no server responds to them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = silent.local_addr().expect("the socket has an address");
    let url = format!("postgres://app@{address}/app?acquire_timeout=300ms&connect_timeout=20s&probe_timeout=20s");
    let config: Config = url.parse().expect("the URL parses");
    let pool = Pool::builder(config).build().expect("the pool is created");
    let error = pool.get().await.expect_err("the server does not respond");
    assert_eq!(error.kind(), Kind::Connecting, "{error}");
    let text = error.to_string();
    assert!(text.starts_with("no connection has been opened yet after 3"), "{text}");
    assert!(text.ends_with(&format!("{address} is still being connected to")), "{text}");
    assert!(error.attempts().iter().all(|attempt| attempt.cause().is_none()), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkouts_succeed_while_the_name_server_is_down() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let pool = Pool::connect(&cluster.url()).await.expect("the pool is created");
    until(Duration::from_secs(10), "two Pods serve", || in_state(&pool, State::Healthy) == 2).await;
    cluster.dns().stop().await;
    let gone = Instant::now();
    let mut checkouts = 0;
    while gone.elapsed() < Duration::from_secs(60) {
        let client = pool.get().await.expect("checkout succeeds without DNS");
        if checkouts % 50 == 0 {
            server_addr(&client).await;
        }
        checkouts += 1;
        tokio::time::sleep(Duration::from_millis(2)).await; // paces the load
    }
    let status = pool.status();
    println!("{checkouts} checkouts in a minute without DNS, {} failed refreshes", status.resolve.failures);
    assert_eq!(status.endpoints.len(), 2);
    assert!(!status.resolve.ok && status.resolve.failures > 5, "too few failed refreshes: {:?}", status.resolve);
    // The rate limit is four packets per second. A refresh sends two, so there are at most two refreshes per second.
    assert!(status.resolve.failures <= 120, "too many refreshes in a minute: {:?}", status.resolve);
    cluster.dns().restart().await.expect("the name server restarts");
    until(Duration::from_secs(10), "the name resolves", || pool.status().resolve.ok).await;
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Makes 10,000 checkouts while the name server does not respond and the only thread of the pool's runtime is blocked.
#[test]
fn checkout_does_no_io_and_does_not_wait_for_tasks() {
    let pools = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let servers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let cluster = servers.block_on(Cluster::start(2)).expect("the cluster starts");
    let config: Config = cluster.url().parse().expect("the URL parses");
    let pool = Pool::builder(config).runtime(pools.handle().clone()).build().expect("the pool is created");
    servers.block_on(async {
        pool.wait_ready(Target::Any, Duration::from_secs(10)).await.expect("a Pod serves");
        let warm = || pool.status().endpoints.iter().all(|pod| pod.idle > 0);
        until(Duration::from_secs(10), "both Pods have an idle connection", warm).await;
        cluster.dns().pause();
    });

    let (blocked, release) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    pools.spawn({
        let (blocked, release) = (blocked.clone(), release.clone());
        async move {
            // Blocks the only thread that runs the pool's tasks: the task that maintains the set of Pods, the DNS
            // refresh, the probes, and the drivers of all connections.
            blocked.store(true, Ordering::SeqCst);
            let end = Instant::now() + Duration::from_secs(20);
            while !release.load(Ordering::SeqCst) && Instant::now() < end {
                std::thread::yield_now();
            }
        }
    });
    let took = servers.block_on(async {
        until(Duration::from_secs(5), "the pool's thread is blocked", || blocked.load(Ordering::SeqCst)).await;
        let queries = cluster.dns().queries();
        let waits = pool.status().counters.waits;
        let began = Instant::now();
        for _ in 0..10_000 {
            drop(pool.get().await.expect("checkout succeeds"));
        }
        let took = began.elapsed();
        assert_eq!(cluster.dns().queries(), queries, "a checkout sent a DNS query");
        assert_eq!(pool.status().counters.waits, waits, "a checkout waited");
        took
    });
    release.store(true, Ordering::SeqCst);
    println!("10,000 checkouts with the pool's thread blocked: {took:?}");
    drop(pool);
    servers.block_on(cluster.shutdown()).expect("the cluster shuts down");
}
