//! A small, bounded load on the microservice: reads on any Pod, every tenth request a write. Prints a line a second:
//! what went well, by the Pod that answered, and what failed.
//!
//! `cargo run --example load -- --address 127.0.0.1:8080 --rate 50 --seconds 600`

mod http;
mod options;
mod tally;

use std::{
    error::Error,
    process::{self, ExitCode},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, UNIX_EPOCH},
};

use http::Connection;
use options::Options;
use podpool::{Config, Pool, Target};
use serde_json::{Value, json};
use tally::Tally;
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

/// Requests under way at the same time, at most. Where the service is slow, fewer than asked for are sent.
const WORKERS: u32 = 16;
/// The longest that one request is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let options = Arc::new(Options::from_command_line()?);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    if let Ok(url) = std::env::var("DATABASE_URL") {
        make_table(&url).await?;
    }
    let begun = Instant::now();
    let tally = Arc::new(Mutex::new(Tally::default()));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS.min(options.rate) {
        workers.spawn(work(worker, options.clone(), tally.clone()));
    }
    let mut total = Tally::default();
    let mut lines = interval(options.every);
    lines.tick().await;
    let take = |total: &mut Tally| {
        let lately = std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner));
        total.merge(&lately);
        lately
    };
    loop {
        select! {
            _ = lines.tick() => println!("{:>4} s {}", begun.elapsed().as_secs(), take(&mut total)),
            () = sleep(options.length.saturating_sub(begun.elapsed())) => break,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    workers.shutdown().await;
    take(&mut total);
    println!("in all {total}");
    Ok(())
}

/// The table that the service's writes go to.
async fn make_table(url: &str) -> Result<(), Box<dyn Error>> {
    let pool = Pool::builder(url.parse::<Config>()?).build()?;
    let table = "CREATE TABLE IF NOT EXISTS tb_writes (id text PRIMARY KEY, run text)";
    pool.retry(Target::Primary, |client| async move { client.batch_execute(table).await }).await?;
    pool.close().await;
    Ok(())
}

async fn work(worker: u32, options: Arc<Options>, tally: Arc<Mutex<Tally>>) {
    let workers = WORKERS.min(options.rate);
    sleep(Duration::from_secs_f64(f64::from(worker) / f64::from(options.rate))).await;
    let mut ticks = interval(Duration::from_secs_f64(f64::from(workers) / f64::from(options.rate)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let run = format!("{}-{}", process::id(), UNIX_EPOCH.elapsed().unwrap_or_default().as_millis());
    let mut connection = None;
    for request in u64::from(worker).. {
        ticks.tick().await;
        let asked = timeout(PATIENCE, ask(&mut connection, &options, request, &format!("{run}-{worker}"), &run)).await;
        let outcome = asked.unwrap_or_else(|_| {
            connection = None;
            Err("no answer from the service".to_owned())
        });
        tally.lock().unwrap_or_else(PoisonError::into_inner).add(outcome);
    }
}

/// One request, on the worker's connection. Gives the Pod that answered.
async fn ask(
    connection: &mut Option<Connection>,
    options: &Options,
    request: u64,
    id: &str,
    run: &str,
) -> Result<String, String> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::open(options.address).await.map_err(|_| "no connection to the service".to_owned())?,
    };
    let asked = if request.is_multiple_of(10) {
        open.ask("POST", "/write", &json!({ "id": format!("{id}-{request}"), "run": run }).to_string()).await
    } else {
        open.ask("GET", "/query?target=any", "").await
    };
    let (head, body) = asked.map_err(|_| "connection to the service lost".to_owned())?;
    if head.header("connection") != Some("close") {
        *connection = Some(open);
    }
    let body: Value = serde_json::from_str(&body).map_err(|_| "no JSON from the service".to_owned())?;
    let word = |field: &str| body[field].as_str().unwrap_or("?").to_owned();
    if head.status == 200 { Ok(word("pod")) } else { Err(format!("{} {}", head.status, word("kind"))) }
}
