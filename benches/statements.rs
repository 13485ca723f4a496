//! Measures the cost of searching the texts of statements for changes of session state (`reset=auto`). Compares it with
//! `reset=none` in the same run: the two are measured in turns, and the ratio is that of the medians.
//!
//! The first table is the time that the tap, which observes the traffic of a connection, takes for a request and its
//! response, without a server. The second is the time of a statement on a real server on this machine.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use podpool::{Client, Pool, bench::StatementTap, testkit::Cluster};

/// Number of measurements of each case.
const ROUNDS: usize = 41;
/// Number of requests to the tap in one measurement.
const REQUESTS: u32 = 2_000;
/// Number of statements to the server in one measurement.
const STATEMENTS: u32 = 60;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("the body is short").to_be_bytes();
    [&[kind], &length[..], body].concat()
}

/// Returns a `SELECT` of `length` bytes.
fn statement(length: usize) -> String {
    let mut text = String::from("SELECT product_id, now()::timestamp FROM orders WHERE id IN (1");
    while text.len() + 10 < length {
        text += ", 1234567";
    }
    format!("{text:<width$})", width = length - 1)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Prints the medians of both cases, per request, and their ratio. Returns the difference.
fn report(name: &str, [none, auto]: [Vec<Duration>; 2], requests: u32) -> Duration {
    let (none, auto) = (median(none) / requests, median(auto) / requests);
    let ratio = auto.as_secs_f64() / none.as_secs_f64();
    println!("{name:<44} none {none:>10.1?}  auto {auto:>10.1?}  ratio {ratio:.3}");
    auto.saturating_sub(none)
}

fn tap() {
    let response = [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();
    for length in [64, 1_000, 10_000] {
        let text = statement(length);
        let parse = message(b'P', format!("s1\0{text}\0\0\0").as_bytes());
        let bind = message(b'B', b"\0s1\0\0\0\0\0\0\0");
        let (execute, sync) = (message(b'E', b"\0\0\0\0\0"), message(b'S', b""));
        let cases = [
            ("Query", message(b'Q', format!("{text}\0").as_bytes())),
            ("Parse, Bind, Execute, Sync", [&parse[..], &bind, &execute, &sync].concat()),
            ("Bind, Execute, Sync", [&bind[..], &execute, &sync].concat()),
        ];
        for (name, request) in cases {
            let mut taps = [false, true].map(|tracks| StatementTap::new(tracks, &response));
            let mut times = [Vec::new(), Vec::new()];
            for round in 0..2 * ROUNDS {
                let case = round % 2;
                let began = Instant::now();
                for _ in 0..REQUESTS {
                    assert!(!taps[case].send(black_box(&request)), "expected no change of session state");
                }
                times[case].push(began.elapsed());
            }
            let added = report(&format!("tap: {name}, text of {length} B"), times, REQUESTS);
            println!("{:<44} adds {added:.1?}", "");
        }
    }
}

async fn server() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let admin = cluster.client(0).await.expect("the superuser connects");
    let table = "CREATE TABLE orders (id int, product_id int, created_at timestamptz); GRANT ALL ON orders TO PUBLIC";
    admin.batch_execute(table).await.expect("the table is created");
    let mut clients: Vec<Client> = Vec::new();
    let mut pools = Vec::new();
    for reset in ["none", "auto"] {
        let url = format!("{}?pool_size=1&reset={reset}", cluster.pod_url(0));
        let pool = Pool::connect(&url).await.expect("the pool is created");
        clients.push(pool.get().await.expect("checkout succeeds"));
        pools.push(pool);
    }
    for length in [64, 1_000, 10_000] {
        let text = statement(length);
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..2 * ROUNDS {
            let client = &clients[round % 2];
            let began = Instant::now();
            for _ in 0..STATEMENTS {
                client.batch_execute(black_box(&text)).await.expect("the statement succeeds");
            }
            times[round % 2].push(began.elapsed());
        }
        report(&format!("server: text of {length} B"), times, STATEMENTS);
    }
    drop((clients, pools));
    cluster.shutdown().await.expect("the cluster shuts down");
}

fn main() {
    tap();
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the runtime starts").block_on(server());
}
