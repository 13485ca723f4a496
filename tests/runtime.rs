//! The pool and the runtime that runs its tasks: the runtime is blocked, stopped, not driven, or shut down.

mod common;

use std::{
    thread,
    time::{Duration, Instant},
};

use podpool::{Kind, Pool, Target, testkit::Cluster};
use tokio::runtime::{Builder, Runtime};

use common::{client_process::ClientProcess, until};

/// Number of times for which a process is stopped.
const PAUSES: usize = 10;

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("the runtime starts")
}

fn multi_thread(workers: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(workers).enable_all().build().expect("the runtime starts")
}

/// Creates a pool with one warm connection to each Pod, which is pinged after one second without use.
async fn warm(url: &str) -> Pool {
    let pool = Pool::connect(&format!("{url}&ping_after=1&min_idle=1&pool_size=1")).await.expect("the pool is created");
    pool.wait_ready(Target::Any, Duration::from_secs(20)).await.expect("a Pod becomes ready");
    use_connection(&pool).await;
    pool
}

/// Runs a statement, and waits until its connection is idle again.
async fn use_connection(pool: &Pool) {
    let client = pool.get().await.expect("checkout succeeds");
    client.query_one("SELECT 1", &[]).await.expect("the statement succeeds");
    drop(client);
    let is_idle = || pool.status().endpoints[0].idle == 1;
    until(Duration::from_secs(10), "the connection is idle", is_idle).await;
}

/// Checks out a connection and returns true if the checkout pinged it first. Only such a checkout counts as a wait,
/// because the pool has an idle connection.
async fn pings(pool: &Pool) -> bool {
    let before = pool.status().counters.waits;
    use_connection(pool).await;
    pool.status().counters.waits > before
}

/// Blocks the only thread of a runtime, so that no task of the pool runs. The first checkout after that pings the idle
/// connection, although it runs before any other task.
fn a_checkout_after_a_blocked_runtime_pings(runtime: Runtime) {
    let servers = multi_thread(1);
    let cluster = servers.block_on(Cluster::start(1)).expect("the cluster starts");
    let url = cluster.url();
    let results = runtime.block_on(runtime.spawn(async move {
        let pool = warm(&url).await;
        let mut results = Vec::new();
        for _ in 0..5 {
            use_connection(&pool).await;
            let without_pause = pings(&pool).await;
            thread::sleep(Duration::from_millis(1400));
            results.push((without_pause, pings(&pool).await));
        }
        results
    }));
    assert_eq!(results.expect("the task ends"), [(false, true); 5], "pinged without a pause, pinged after a pause");
    servers.block_on(cluster.shutdown()).expect("the cluster shuts down");
}

#[test]
fn a_blocked_current_thread_runtime_pings_idle_connections() {
    a_checkout_after_a_blocked_runtime_pings(current_thread());
}

#[test]
fn a_blocked_single_worker_pings_idle_connections() {
    a_checkout_after_a_blocked_runtime_pings(multi_thread(1));
}

/// Stops a process (SIGSTOP) for longer than `ping_after`, ten times for each kind of runtime. After each pause, the
/// process checks out a connection, and prints whether it was pinged.
#[test]
fn a_stopped_process_pings_idle_connections() {
    if let Some(argument) = ClientProcess::argument() {
        return report_pauses(&argument);
    }
    let servers = multi_thread(1);
    let cluster = servers.block_on(Cluster::start(1)).expect("the cluster starts");
    for workers in ["0", "2"] {
        let argument = format!("{workers} {}", cluster.url());
        let mut client = ClientProcess::start("a_stopped_process_pings_idle_connections", &argument);
        for _ in 0..PAUSES {
            assert_eq!(client.next("pause: "), "ready");
            client.signal("STOP");
            thread::sleep(Duration::from_millis(1400));
            client.signal("CONT");
            assert_eq!(client.next("pause: "), "pinged", "with {workers} workers");
        }
    }
    servers.block_on(cluster.shutdown()).expect("the cluster shuts down");
}

/// Runs in the process that is stopped. Panics if it is not stopped within 60 s.
fn report_pauses(argument: &str) {
    let (workers, url) = argument.split_once(' ').expect("the number of workers and the URL");
    let runtime = if workers == "0" { current_thread() } else { multi_thread(2) };
    runtime
        .block_on(runtime.spawn({
            let url = url.to_owned();
            async move {
                let pool = warm(&url).await;
                for _ in 0..PAUSES {
                    use_connection(&pool).await;
                    // Before the message, because the process may be stopped as soon as it is printed.
                    let (start, mut last) = (Instant::now(), Instant::now());
                    println!("pause: ready");
                    loop {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        if last.elapsed() > Duration::from_millis(1300) {
                            break;
                        }
                        assert!(start.elapsed() < Duration::from_secs(60), "the process was not stopped");
                        last = Instant::now();
                    }
                    println!("pause: {}", if pings(&pool).await { "pinged" } else { "not pinged" });
                }
            }
        }))
        .expect("the task ends");
}

/// No thread drives the pool's runtime, so no connection can be opened. A checkout on another runtime fails at its
/// deadline.
#[test]
fn a_checkout_meets_its_deadline_if_no_thread_drives_the_pools_runtime() {
    let callers = multi_thread(1);
    let cluster = callers.block_on(Cluster::start(1)).expect("the cluster starts");
    for runtime in [current_thread(), multi_thread(1)] {
        // A multi-threaded runtime is not driven while a task blocks its only worker.
        let (unblock, wait) = std::sync::mpsc::channel::<()>();
        drop(runtime.spawn(async move { wait.recv().unwrap_or_default() }));
        for millis in [10, 50, 300] {
            let pool = {
                let _context = runtime.enter();
                let url = format!("{}&acquire_timeout={millis}ms", cluster.url());
                Pool::builder(url.parse().expect("the URL is valid")).build().expect("the pool is built")
            };
            let (started, limit) = (Instant::now(), Duration::from_millis(millis));
            let error = callers.block_on(pool.get()).map(drop).unwrap_err();
            let took = started.elapsed();
            assert_eq!(error.kind(), Kind::Dns, "{error}");
            assert!((limit..limit + Duration::from_millis(500)).contains(&took), "{took:?} instead of {limit:?}");
        }
        drop(unblock);
    }
    callers.block_on(cluster.shutdown()).expect("the cluster shuts down");
}

/// Shuts the pool's runtime down while callers on another runtime wait. They fail immediately with
/// [`Kind::Shutdown`], and so do later callers.
#[test]
fn callers_fail_immediately_when_the_pools_runtime_shuts_down() {
    let callers = multi_thread(2);
    let cluster = callers.block_on(Cluster::start(1)).expect("the cluster starts");
    for runtime in [current_thread(), multi_thread(2)] {
        let pool = runtime.block_on(warm(&cluster.url()));
        let held = runtime.block_on(pool.get()).expect("checkout succeeds");
        let waiters: Vec<_> = (0..10)
            .map(|_| {
                let pool = pool.clone();
                callers.spawn(async move { pool.get().await.map(drop).unwrap_err() })
            })
            .collect();
        while pool.status().endpoints[0].waiting < 10 {
            thread::yield_now();
        }
        drop(runtime);
        let ended = Instant::now();
        for waiter in waiters {
            let error = callers.block_on(waiter).expect("the task ends");
            assert_eq!(error.kind(), Kind::Shutdown, "{error}");
        }
        let error = callers.block_on(pool.get()).map(drop).unwrap_err();
        assert_eq!(error.kind(), Kind::Shutdown, "{error}");
        assert!(ended.elapsed() < Duration::from_secs(1), "{:?}", ended.elapsed());
        drop(held);
    }
    callers.block_on(cluster.shutdown()).expect("the cluster shuts down");
}
