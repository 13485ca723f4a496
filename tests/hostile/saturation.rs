//! Tests a pool with more callers than connections, and many pools that lose a server at the same moment.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use podpool::{
    Config, Endpoint, Pool, State, Target,
    config::{
        Limits,
        ssl::{Ssl, SslMode},
    },
    discovery::Fixed,
};
use tokio::time::{sleep, timeout};

use crate::{
    common::{in_state, until},
    counting_server::CountingServer,
};

const SOON: Duration = Duration::from_secs(10);

fn pool(servers: &[&CountingServer], change: impl FnOnce(&mut Limits)) -> Pool {
    let mut limits = Limits::default();
    change(&mut limits);
    let config =
        Config::new("pods").expect("the name parses").with_user("user").with_dbname("database").with_limits(limits);
    let config = config.with_ssl(Ssl::new(SslMode::Disable));
    let endpoints: Vec<_> = servers.iter().map(|server| Endpoint::new(server.address())).collect();
    Pool::builder(config).resolver(Fixed::new(endpoints)).build().expect("the pool is created")
}

/// Four callers wait for a server that refuses the first four dials. All callers are served within 200 ms of the last
/// refusal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_are_served_soon_after_the_server_stops_refusing_dials() {
    for round in 0..20 {
        let server = CountingServer::start(Duration::ZERO, usize::MAX).await;
        let pool = pool(&[&server], |limits| {
            limits.min_idle = 0;
            limits.pool_size = 4;
        });
        until(SOON, "the Pod is healthy", || in_state(&pool, State::Healthy) == 1).await;
        let counts = server.counts();
        counts.refuse_next.store(4, Ordering::SeqCst);
        let served = (0..4).map(|_| async {
            let client = pool.get().await.expect("checkout succeeds");
            (Instant::now(), client)
        });
        let served = timeout(SOON, join_all(served)).await.expect("every caller is served");
        let refused = counts.last_refusal.lock().expect("the lock is not poisoned").expect("four dials are refused");
        let last = served.iter().map(|(at, _)| at.saturating_duration_since(refused)).max().expect("four callers");
        println!("round {round}: the last of 4 waiters was served {last:.0?} after the last refusal");
        assert!(last < Duration::from_millis(200), "round {round}: {last:?}");
    }
}

/// 64 callers share 4 connections and use each for 2 ms. No wait is longer than 1.5 mean rounds, even if half of the
/// callers give up early. A round is one wait and one use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_waiter_waits_much_longer_than_the_others() {
    const CALLERS: usize = 64;
    const WORK: Duration = Duration::from_millis(2);
    let server = CountingServer::start(Duration::ZERO, usize::MAX).await;
    let pool = pool(&[&server], |limits| {
        limits.pool_size = 4;
        limits.min_idle = 4;
    });
    until(SOON, "four connections are idle", || pool.status().endpoints.iter().any(|pod| pod.idle == 4)).await;
    for cancelling in [false, true] {
        let callers = (0..CALLERS).map(|caller| {
            let pool = pool.clone();
            async move {
                let (mut waits, started) = (Vec::new(), Instant::now());
                while started.elapsed() < Duration::from_secs(2) {
                    let began = Instant::now();
                    if cancelling && caller % 2 == 1 {
                        // Gives up before it is served.
                        let _ = timeout(Duration::from_millis(3), pool.get()).await;
                        continue;
                    }
                    let client = pool.get().await.expect("checkout succeeds");
                    waits.push(began.elapsed());
                    sleep(WORK).await;
                    drop(client);
                }
                waits
            }
        });
        let tasks: Vec<_> = callers.map(tokio::spawn).collect();
        let mut waits = Vec::new();
        for task in tasks {
            // Skips each caller's first two waits and its last one, because the queue is still filling up or already
            // emptying.
            let mut one = task.await.expect("the task does not panic");
            one.pop();
            waits.extend(one.into_iter().skip(2));
        }
        let mean_wait = waits.iter().sum::<Duration>() / u32::try_from(waits.len()).expect("few waits");
        let round = mean_wait + WORK;
        let longest = waits.iter().max().copied().expect("there are waits");
        println!(
            "cancelling: {cancelling}; {} waits, mean round {round:.1?}, longest wait {longest:.1?} = {:.2} rounds",
            waits.len(),
            longest.as_secs_f64() / round.as_secs_f64()
        );
        assert!(longest.as_secs_f64() <= 1.5 * round.as_secs_f64(), "{longest:?} of {round:?}");
    }
}

/// 2,000 callers wait for a role that no Pod has. Other callers are not delayed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_for_a_role_that_no_pod_has_do_not_delay_others() {
    let server = CountingServer::start(Duration::ZERO, usize::MAX).await;
    let pool = pool(&[&server], |limits| limits.acquire_timeout = Duration::from_secs(60));
    until(SOON, "the Pod is healthy", || in_state(&pool, State::Healthy) == 1).await;
    drop(pool.get().await.expect("checkout succeeds"));
    // The counting server is a standby.
    let waiters: FuturesUnordered<_> = (0..2000).map(|_| pool.get_for(Target::Primary)).collect();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { until(SOON, "all callers wait", || pool.status().counters.waits >= 2000).await }
    });
    let mut waiters = Box::pin(waiters.into_future());
    tokio::select! {
        _ = &mut waiters => panic!("no Pod is a primary"),
        done = waiting => done.expect("the task does not panic"),
    }
    let waits = pool.status().counters.waits;
    for _ in 0..1000 {
        drop(pool.get().await.expect("checkout succeeds"));
    }
    // Some may: while no Pod is a primary, frequent probes borrow the idle connection.
    let waited = pool.status().counters.waits - waits;
    assert!(waited < 50, "{waited} of 1000 callers with another target have waited");
    drop(waiters);
    until(SOON, "no caller waits", || pool.status().endpoints[0].waiting == 0).await;
}

/// 500 clients lose one of two servers at the same moment, and the server stays down. The clients spread their dials
/// over the first five seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_spread_their_dials_to_a_server_that_is_down() {
    const CLIENTS: usize = 500;
    let (lost, other) = (
        CountingServer::start(Duration::ZERO, usize::MAX).await,
        CountingServer::start(Duration::ZERO, usize::MAX).await,
    );
    let mut pools = Vec::new();
    for _ in 0..CLIENTS {
        pools.push(pool(&[&lost, &other], |limits| limits.clients = Some(CLIENTS)));
    }
    let all = || pools.iter().all(|pool| pool.status().endpoints.iter().filter(|pod| pod.idle >= 1).count() == 2);
    until(Duration::from_secs(60), "every client has a connection to both servers", all).await;
    let counts = lost.counts();
    // Some clients may still open their connections for probes.
    let last = || counts.attempts.lock().expect("the lock is not poisoned").last().copied();
    let is_quiet = || last().is_none_or(|at| at.elapsed() > Duration::from_secs(1));
    until(Duration::from_secs(60), "no client opens a connection", is_quiet).await;
    counts.attempts.lock().expect("the lock is not poisoned").clear();
    let began = Instant::now();
    counts.take_down();
    sleep(Duration::from_secs(5)).await;
    let attempts = counts.attempts.lock().expect("the lock is not poisoned").clone();
    let mut buckets = [0usize; 50];
    for attempt in attempts {
        let bucket = attempt.saturating_duration_since(began).as_millis() as usize / 100;
        if let Some(count) = buckets.get_mut(bucket) {
            *count += 1;
        }
    }
    let (sum, max) = (buckets.iter().sum::<usize>(), buckets.iter().max().copied().unwrap_or_default());
    let mean = sum as f64 / buckets.len() as f64;
    println!("{sum} attempts in 5 s, {mean:.1} per 100 ms, at most {max} ({:.1} times the mean)", max as f64 / mean);
    assert!(sum >= CLIENTS, "fewer dials than clients: {sum}");
    assert!(max as f64 <= 4.0 * mean, "{buckets:?}");
}
