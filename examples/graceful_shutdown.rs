//! An orderly end: at SIGTERM or Ctrl-C no new work begins, what runs finishes, the pool closes.
//!
//! `DATABASE_URL=postgres://… cargo run --example graceful_shutdown`, and Ctrl-C.

use std::time::Duration;

use podpool::{Config, Kind, Pool, Target};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

/// How long work may go on after the signal. With `close_timeout`, less than the Pod's `terminationGracePeriodSeconds`.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Before anything that takes time: a signal that comes meanwhile is not lost.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let config: Config = std::env::var("DATABASE_URL")?.parse()?;
    // Touches no network: with the database down, the program runs all the same.
    let pool = Pool::builder(config).build()?;

    let (stop, stopped) = watch::channel(false);
    let mut workers = JoinSet::new();
    for number in 0..4 {
        workers.spawn(work(number, pool.clone(), stopped.clone()));
    }
    println!("working");
    select! {
        _ = interrupt.recv() => println!("interrupted"),
        _ = terminate.recv() => println!("asked to end"),
    }
    stop.send_replace(true);
    let all = async { while workers.join_next().await.is_some() {} };
    if timeout(PATIENCE, all).await.is_err() {
        println!("some work did not finish in time");
        workers.abort_all();
    }
    match pool.close().await {
        0 => println!("every connection came back"),
        cut => println!("{cut} connections were cut"),
    }
    // Whoever comes too late is told so at once.
    let late = pool.get().await.expect_err("the pool is closed");
    assert_eq!(late.kind(), Kind::Shutdown);
    Ok(())
}

/// One piece of work after the other, each to its end.
async fn work(number: usize, pool: Pool, stopped: watch::Receiver<bool>) {
    let mut done = 0;
    while !*stopped.borrow() {
        let statement = |client: podpool::Client| async move { client.simple_query("SELECT pg_sleep(0.2)").await };
        match pool.retry(Target::Any, statement).await {
            Ok(_) => done += 1,
            Err(error) => println!("worker {number}: {error}"),
        }
    }
    println!("worker {number} did {done} pieces of work");
}
