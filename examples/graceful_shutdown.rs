//! Graceful shutdown: after SIGTERM or Ctrl-C, no new work starts, running work finishes, and the pool closes.
//!
//! `DATABASE_URL=postgres://… cargo run --example graceful_shutdown`, then press Ctrl-C.

use std::time::Duration;

use podpool::{Config, Kind, Pool, Target};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

/// Maximum time for which work may continue after the signal. The sum of this time and `close_timeout` must be shorter
/// than the `terminationGracePeriodSeconds` of the application's Pod.
const GRACE_PERIOD: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Install the signal handlers first, so that a signal during startup also causes a graceful shutdown.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let config: Config = std::env::var("DATABASE_URL")?.parse()?;
    // Building a pool does not use the network, so the program starts even if the database is down.
    let pool = Pool::builder(config).build()?;

    let (stop, stopped) = watch::channel(false);
    let mut workers = JoinSet::new();
    for number in 0..4 {
        workers.spawn(work(number, pool.clone(), stopped.clone()));
    }
    println!("working");
    select! {
        _ = interrupt.recv() => println!("interrupted"),
        _ = terminate.recv() => println!("terminated"),
    }
    stop.send_replace(true);
    let all = async { while workers.join_next().await.is_some() {} };
    if timeout(GRACE_PERIOD, all).await.is_err() {
        println!("some work did not finish within the grace period");
        workers.abort_all();
    }
    match pool.close().await {
        0 => println!("every connection was returned"),
        closed => println!("{closed} connections in use were forcibly closed"),
    }
    // A closed pool fails every checkout immediately.
    let error = pool.get().await.expect_err("the pool is closed");
    assert_eq!(error.kind(), Kind::Shutdown);
    Ok(())
}

/// Executes statements until `stopped` is true. Returns only after the in-flight statement has completed.
async fn work(number: usize, pool: Pool, stopped: watch::Receiver<bool>) {
    let mut done = 0;
    while !*stopped.borrow() {
        let statement = |client: podpool::Client| async move { client.simple_query("SELECT pg_sleep(0.2)").await };
        match pool.retry(Target::Any, statement).await {
            Ok(_) => done += 1,
            Err(error) => println!("worker {number}: {error}"),
        }
    }
    println!("worker {number} executed {done} statements");
}
