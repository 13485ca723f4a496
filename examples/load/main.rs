//! A load generator for the example microservice. Every tenth request is a write; the other requests are reads from any
//! Pod. Prints one line per second with the number of successful requests per Pod and of failed requests per cause.
//!
//! `cargo run --example load -- --address 127.0.0.1:8080 --rate 50 --seconds 600`

mod counts;
mod http;
mod options;

use std::{
    error::Error,
    process::{self, ExitCode},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, UNIX_EPOCH},
};

use counts::Counts;
use http::Connection;
use options::Options;
use podpool::{Config, Pool, Target};
use serde_json::{Value, json};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

/// Maximum number of concurrent requests. If the service is slow, the actual rate stays below the requested one.
const WORKERS: u32 = 16;
/// Maximum time to wait for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);

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
        create_table(&url).await?;
    }
    let begun = Instant::now();
    let current = Arc::new(Mutex::new(Counts::default()));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS.min(options.rate) {
        workers.spawn(work(worker, options.clone(), current.clone()));
    }
    let mut total = Counts::default();
    let mut lines = interval(options.every);
    lines.tick().await;
    let take = |total: &mut Counts| {
        let counts = std::mem::take(&mut *current.lock().unwrap_or_else(PoisonError::into_inner));
        total.merge(&counts);
        counts
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
    println!("total  {total}");
    Ok(())
}

/// Creates the table that the service writes to.
async fn create_table(url: &str) -> Result<(), Box<dyn Error>> {
    let pool = Pool::builder(url.parse::<Config>()?).build()?;
    let table = "CREATE TABLE IF NOT EXISTS tb_writes (id text PRIMARY KEY, run text)";
    pool.retry(Target::Primary, |client| async move { client.batch_execute(table).await }).await?;
    pool.close().await;
    Ok(())
}

/// Sends this worker's share of the requests and counts their outcomes.
async fn work(worker: u32, options: Arc<Options>, counts: Arc<Mutex<Counts>>) {
    let workers = WORKERS.min(options.rate);
    sleep(Duration::from_secs_f64(f64::from(worker) / f64::from(options.rate))).await;
    let mut ticks = interval(Duration::from_secs_f64(f64::from(workers) / f64::from(options.rate)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let run = format!("{}-{}", process::id(), UNIX_EPOCH.elapsed().unwrap_or_default().as_millis());
    let mut connection = None;
    for request in u64::from(worker).. {
        ticks.tick().await;
        let id = format!("{run}-{worker}-{request}");
        let outcome = timeout(RESPONSE_TIMEOUT, send(&mut connection, &options, request, &id, &run)).await;
        let outcome = outcome.unwrap_or_else(|_| {
            connection = None;
            Err("no response from the service".to_owned())
        });
        counts.lock().unwrap_or_else(PoisonError::into_inner).add(outcome);
    }
}

/// Sends one request on the worker's connection. Returns the Pod that executed the statement.
async fn send(
    connection: &mut Option<Connection>,
    options: &Options,
    request: u64,
    id: &str,
    run: &str,
) -> Result<String, String> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::open(options.address).await.map_err(|_| "cannot connect to the service".to_owned())?,
    };
    let response = if request.is_multiple_of(10) {
        open.request("POST", "/write", &json!({ "id": id, "run": run }).to_string()).await
    } else {
        open.request("GET", "/query?target=any", "").await
    };
    let (head, body) = response.map_err(|_| "connection to the service lost".to_owned())?;
    if head.header("connection") != Some("close") {
        *connection = Some(open);
    }
    let body: Value = serde_json::from_str(&body).map_err(|_| "the response is not JSON".to_owned())?;
    let text = |field: &str| body[field].as_str().unwrap_or("?").to_owned();
    if head.status == 200 { Ok(text("pod")) } else { Err(format!("{} {}", head.status, text("kind"))) }
}
