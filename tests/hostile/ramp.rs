//! How a pool grows, and how it lets go: a server that counts what it is asked for, and takes its time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use podpool::{
    Config, Endpoint, Pool, State, Target,
    config::{
        Limits,
        ssl::{Ssl, SslMode},
    },
    discovery::Fixed,
};

use crate::{
    common::{in_state, until},
    patient::{Counts, Patient},
};

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

fn pool(servers: &[&Patient], limits: Limits) -> Pool {
    let config = Config::new("pods").expect("a name").with_user("user").with_dbname("database").with_limits(limits);
    // These servers know nothing of TLS, not even how to say so.
    let config = config.with_ssl(Ssl::new(SslMode::Disable));
    let endpoints: Vec<_> = servers.iter().map(|server| Endpoint::new(server.address())).collect();
    Pool::builder(config).resolver(Fixed::new(endpoints)).build().expect("a pool")
}

/// A caller who gives up wastes no handshake: the connection comes to the pool.
#[tokio::test(flavor = "current_thread")]
async fn a_connection_outlives_the_caller_it_was_opened_for() {
    let server = Patient::start(Duration::from_millis(150), usize::MAX).await;
    let pool = pool(&[&server], limits(|limits| limits.min_idle = 0));
    until(Duration::from_secs(5), "the Pod is healthy", || in_state(&pool, State::Healthy) == 1).await;
    for _ in 0..5 {
        // Gone long before the handshake ends.
        tokio::time::timeout(Duration::from_millis(20), pool.get()).await.expect_err("nothing is open yet");
    }
    until(Duration::from_secs(5), "what was begun is finished", || pool.status().endpoints[0].idle == 1).await;
    let before = pool.status().counters.opened;
    let began = Instant::now();
    drop(pool.get().await.expect("a connection"));
    assert!(began.elapsed() < Duration::from_millis(100), "it waited for another handshake");
    assert_eq!((before, pool.status().counters.opened), (1, 1), "one for all of them, in turn");
}

/// 200 callers at once, of six cold Pods.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_callers_is_no_herd_of_handshakes() {
    let (mut servers, together) = (Vec::new(), Arc::<Counts>::default());
    for _ in 0..6 {
        servers.push(Patient::start_among(together.clone(), Duration::from_millis(50), usize::MAX).await);
    }
    let counts: Vec<Arc<Counts>> = servers.iter().map(Patient::counts).collect();
    let limits = limits(|limits| {
        limits.handshakes_per_pod = 2;
        limits.handshakes = 7;
        limits.min_idle = 0;
    });
    let pool = pool(&servers.iter().collect::<Vec<_>>(), limits);
    until(Duration::from_secs(5), "every Pod is healthy", || in_state(&pool, State::Healthy) == 6).await;
    counts.iter().for_each(|counts| counts.forget());
    let overall = servers[0].overall();
    overall.forget();
    let began = Instant::now();
    let callers = (0..200).map(|_| async {
        let client = pool.get().await.expect("a connection");
        tokio::time::sleep(Duration::from_millis(1)).await; // his work
        drop(client);
    });
    join_all(callers).await;
    let status = pool.status();
    let most: Vec<_> = counts.iter().map(|counts| counts.most.load(Ordering::SeqCst)).collect();
    let together = overall.most.load(Ordering::SeqCst);
    println!(
        "200 callers served in {:.0?} by {} connections; handshakes at once: {most:?}, {together} together",
        began.elapsed(),
        status.counters.opened
    );
    // One more for a Pod's probe, which is counted among none of them.
    assert!(most.iter().all(|&most| most <= 2 + 1), "{most:?}");
    assert!(together <= 7 + 6, "{together}");
    assert!(together >= 5, "they did run side by side: {together}");
    assert!(status.endpoints.iter().all(|pod| pod.open <= 8), "{status:?}");
    // The callers' work is short: a few connections serve them all, and nobody opens one for each.
    assert!(status.counters.opened <= 48, "{:?}", status.counters);
}

/// The server has no slot for more: what is open goes on, and the Pod is not asked over and over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_is_not_pressed_and_what_is_open_serves() {
    let server = Patient::start(Duration::ZERO, 4).await; // three beside the probe's
    let counts = server.counts();
    let pool = pool(&[&server], limits(|limits| limits.acquire_timeout = Duration::from_secs(10)));
    until(Duration::from_secs(5), "the Pod is healthy", || in_state(&pool, State::Healthy) == 1).await;
    let began = Instant::now();
    let served = AtomicUsize::new(0);
    let callers = (0..16).map(|_| async {
        while began.elapsed() < Duration::from_secs(3) {
            let client = pool.get().await.expect("one of the three");
            client.check_connection().await.expect("an answer");
            served.fetch_add(1, Ordering::Relaxed);
        }
    });
    join_all(callers).await;
    let (refused, status) = (counts.refused.load(Ordering::SeqCst), pool.status());
    println!("{} served by {} connections in 3 s; {refused} refused", served.into_inner(), status.endpoints[0].open);
    assert_eq!(status.endpoints[0].open, 3);
    assert_eq!(status.endpoints[0].state, State::Healthy, "it is full, not sick");
    // A pause of 50 ms, doubled up to 1 s; two at once. Without one there would be thousands.
    assert!((1..=20).contains(&refused), "{refused}");
}

/// Connections that were opened together do not end together, none before nine tenths of its time, and none while it is
/// lent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_end_at_their_age_but_not_together_and_never_under_a_borrower() {
    let server = Patient::start(Duration::ZERO, usize::MAX).await;
    let counts = server.counts();
    let limits = limits(|limits| {
        limits.max_lifetime = Duration::from_secs(20);
        limits.pool_size = 40;
        limits.min_idle = 40;
        limits.handshakes_per_pod = 40;
    });
    let pool = pool(&[&server], limits);
    pool.wait_ready(Target::Any, Duration::from_secs(5)).await.expect("ready");
    until(Duration::from_secs(5), "all are open", || pool.status().endpoints[0].idle == 40).await;
    let lent = pool.get().await.expect("a connection");
    until(Duration::from_secs(30), "those that were opened first have gone", || lock(&counts.ages).len() >= 39).await;
    let mut ages = lock(&counts.ages).clone();
    ages.truncate(39);
    ages.sort();
    println!("39 connections ended at the age of {:.1?} to {:.1?}", ages[0], ages[38]);
    // The clock ticks ten times a second, and the reaper looks once a second: two or three looks in a tenth of 20 s.
    assert!(ages[0] > Duration::from_millis(17_800), "{ages:?}");
    assert!(ages[38] < Duration::from_millis(21_500), "{ages:?}");
    let together = ages.iter().filter(|age| **age - ages[0] < Duration::from_millis(200)).count();
    assert!(together < 39, "all at once");
    lent.check_connection().await.expect("the lent one still works");
    drop(lent);
    until(Duration::from_secs(5), "and goes when it is given back", || lock(&counts.ages).len() >= 40).await;
    until(Duration::from_secs(5), "others have taken their place", || pool.status().endpoints[0].idle == 40).await;
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no panic under the lock")
}

/// What nobody uses goes, `min_idle` stay, and callers meanwhile do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_idle_goes_down_to_min_idle_while_callers_come_and_go() {
    let server = Patient::start(Duration::ZERO, usize::MAX).await;
    let limits = limits(|limits| {
        limits.idle_timeout = Duration::from_secs(1);
        limits.min_idle = 3;
        limits.pool_size = 20;
    });
    let pool = pool(&[&server], limits);
    pool.wait_ready(Target::Any, Duration::from_secs(5)).await.expect("ready");
    until(Duration::from_secs(5), "min_idle are kept ready", || pool.status().endpoints[0].idle == 3).await;
    drop(join_all((0..20).map(|_| pool.get())).await);
    assert_eq!(pool.status().endpoints[0].open, 20);
    // The reaper takes idle connections out to look at them while these take them out to use them.
    let stop = Instant::now() + Duration::from_secs(4);
    let callers = (0..2).map(|_| async {
        let mut calls = 0;
        while Instant::now() < stop {
            let client = pool.get().await.expect("a connection");
            tokio::task::yield_now().await;
            drop(client);
            calls += 1;
            if calls % 100 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await; // others are to run too
            }
        }
        calls
    });
    let calls: usize = join_all(callers).await.into_iter().sum();
    let few = || pool.status().endpoints[0].open <= 5;
    until(Duration::from_secs(5), "the idle ones have gone", few).await;
    let status = pool.status();
    println!(
        "{calls} calls meanwhile; {} open, {} idle; {:?}",
        status.endpoints[0].open, status.endpoints[0].idle, status.counters
    );
    assert!(status.endpoints[0].idle >= 3, "{status:?}");
    assert!(status.counters.opened <= 26, "nothing is closed and opened again: {:?}", status.counters);
}

/// A connection that has rested for more than a second answers a ping first; a busy one is never asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_has_rested_for_a_second_is_pinged() {
    let server = Patient::start(Duration::ZERO, usize::MAX).await;
    let counts = server.counts();
    // No probe comes in between.
    let limits = limits(|limits| limits.probe_interval = Duration::from_secs(600));
    let pool = pool(&[&server], limits);
    pool.wait_ready(Target::Any, Duration::from_secs(5)).await.expect("ready");
    drop(pool.get().await.expect("a connection"));
    let before = counts.syncs.load(Ordering::SeqCst);
    for _ in 0..1_000 {
        drop(pool.get().await.expect("a connection"));
    }
    assert_eq!(counts.syncs.load(Ordering::SeqCst), before, "a busy one");
    let rested = Instant::now();
    until(Duration::from_secs(5), "it has rested", || rested.elapsed() > Duration::from_millis(1300)).await;
    drop(pool.get().await.expect("a connection"));
    assert_eq!(counts.syncs.load(Ordering::SeqCst), before + 1, "one that has rested");
}
