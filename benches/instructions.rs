//! Counts the instructions for picking a Pod, and for checking out and returning a connection. Fails if a count exceeds
//! its limit. Valgrind counts instructions, so the results do not depend on the load of the machine.
//!
//! The program runs itself under callgrind twice: with a small and with a large number of iterations. The difference
//! between the two counts is the cost of the additional iterations. It does not include the startup.
//!
//! Connections are checked out from a warm pool. Only the checkout loop is counted, not the pool's background tasks.
//! The pool has a single real server, which runs outside valgrind. With several servers, the picks would depend on
//! their latencies, which vary randomly under valgrind.
//!
//! The statements are counted as a whole, with the driver and the runtime, and with the pool's few background tasks.
//! Only the difference to a bare client of the driver has a limit.
//!
//! If valgrind is not installed, the program measures nothing: it fails if the environment variable `CI` is set, and
//! otherwise prints a notice.

use std::{
    env,
    hint::black_box,
    pin::pin,
    process::Command,
    task::{Context, Poll, Waker},
    time::Duration,
};

use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod};
use podpool::{
    Endpoint, Pool, Target,
    balance::{LeastCost, LeastInFlight, PeakEwma, Random, RoundRobin},
    bench::{Picker, Set},
    testkit::Cluster,
};
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

/// Instruction limits for picks: the policy, the number of Pods, and the limit for each kind of pick in [`WORK`].
const LIMITS: &[(&str, u32, [f64; 3])] = &[
    ("LeastCost", 3, [55.0, 82.0, 295.0]),
    ("LeastCost", 20, [55.0, 82.0, 720.0]),
    ("LeastCost", 1000, [65.0, 92.0, 380.0]),
    ("LeastInFlight", 3, [240.0, 275.0, 240.0]),
    ("LeastInFlight", 1000, [260.0, 295.0, 260.0]),
    ("PeakEwma", 3, [340.0, 375.0, 340.0]),
    ("RoundRobin", 3, [160.0, 200.0, 160.0]),
    ("Random", 3, [160.0, 200.0, 160.0]),
];
/// Kinds of pick: `pick` only picks a Pod, `counted` also increments and decrements the Pod's in-flight count, and
/// `busy` picks while every Pod has a connection in use.
const WORK: [&str; 3] = ["pick", "counted", "busy"];
/// Instruction limits for one checkout and return: the name of the pool, and its limit. deadpool-postgres is measured
/// only for comparison and has no limit.
const CHECKOUTS: &[(&str, Option<f64>)] = &[
    ("podpool, no telemetry", Some(570.0)),
    ("podpool, a metrics recorder", Some(570.0)),
    ("deadpool-postgres", None),
];
/// Limit for the instructions that `Pool::shared` adds to those of a statement on a bare client. A fifth of them is the
/// tap, which every connection of the pool has, and a tenth reads clocks.
const ADDED: f64 = 10_000.0;
/// Numbers of iterations in the short and in the long run.
const ITERATIONS: [u64; 2] = [10_000, 60_000];
/// The same for statements, each of which waits for the server.
const STATEMENTS: [u64; 2] = [500, 3_000];
/// Number of connections in a pool.
const SIZE: usize = 8;

fn picker(policy: &str, n: u32) -> Picker {
    let pods: Vec<_> = (0..n).map(|i| Endpoint::new(((0x0a00_0000 + i).to_be_bytes(), 5432).into())).collect();
    let set = Set::new(&pods);
    match policy {
        "LeastCost" => set.picker(LeastCost::new()),
        "LeastInFlight" => set.picker(LeastInFlight::new()),
        "PeakEwma" => set.picker(PeakEwma::new()),
        "RoundRobin" => set.picker(RoundRobin::new()),
        "Random" => set.picker(Random::new()),
        other => panic!("no policy `{other}`"),
    }
}

fn pick(policy: &str, n: u32, work: &str, times: u64) {
    let picker = picker(policy, n);
    // For `busy`, check out as many connections as there are Pods. LeastCost picks a Pod with the fewest connections in
    // use, so it checks out one from each Pod. The other policies spread the connections almost evenly.
    let held: Vec<_> = (0..if work == "busy" { n } else { 0 }).map(|_| picker.pick_counted()).collect();
    for _ in 0..times {
        match work {
            "counted" => drop(black_box(picker.pick_counted())),
            _ => drop(black_box(picker.pick())),
        }
    }
    drop(held);
}

fn check_out(name: &str, url: &str, times: u64) {
    if name == "podpool, a metrics recorder" {
        metrics_util::debugging::DebuggingRecorder::new().install().expect("no other recorder is installed");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the runtime starts");
    if name == "deadpool-postgres" {
        check_out_of_deadpool(&runtime, url, times);
    } else {
        check_out_of_podpool(&runtime, url, times);
    }
}

fn check_out_of_podpool(runtime: &Runtime, url: &str, times: u64) {
    let url = format!("{url}&pool_size={SIZE}&ping_after=60");
    let pool = runtime.block_on(async {
        let pool = Pool::connect(&url).await.expect("the pool is created");
        pool.wait_ready(Target::Any, Duration::from_secs(60)).await.expect("a Pod becomes ready");
        let mut all = Vec::new();
        while all.len() < SIZE {
            all.push(pool.get().await.expect("checkout succeeds"));
        }
        drop(all);
        pool
    });
    podpool_checkouts(&pool, times);
}

/// Polls a future once and returns its result, so that no other task runs during a counted checkout. Panics if the
/// future is pending.
#[inline(always)]
fn ready<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("expected an idle connection"),
    }
}

#[inline(never)]
fn podpool_checkouts(pool: &Pool, times: u64) {
    for _ in 0..times {
        drop(black_box(ready(pool.get()).expect("checkout succeeds")));
    }
}

fn check_out_of_deadpool(runtime: &Runtime, url: &str, times: u64) {
    let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(url.parse().expect("the URL parses"), NoTls, manager);
    let pool = deadpool_postgres::Pool::builder(manager).max_size(SIZE).build().expect("the pool is created");
    runtime.block_on(async {
        let mut all = Vec::new();
        while all.len() < SIZE {
            all.push(pool.get().await.expect("checkout succeeds"));
        }
    });
    deadpool_checkouts(&pool, times);
}

#[inline(never)]
fn deadpool_checkouts(pool: &deadpool_postgres::Pool, times: u64) {
    for _ in 0..times {
        drop(black_box(ready(pool.get()).expect("checkout succeeds")));
    }
}

/// Executes a prepared statement again and again: on a shared connection of a pool, or with a client of the driver.
fn execute(way: &str, url: &str, times: u64) {
    const TEXT: &str = "SELECT 1";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the runtime starts");
    runtime.block_on(async {
        if way == "shared" {
            let url = format!("{url}&sslmode=disable&min_idle=0&ping_after=60");
            let pool = Pool::connect(&url).await.expect("the pool is created");
            for _ in 0..times {
                let row = pool.shared(Target::Any).query_one(TEXT, &[]).await.expect("the statement succeeds");
                black_box(row);
            }
        } else {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("the connection is opened");
            tokio::spawn(connection);
            let statement = client.prepare(TEXT).await.expect("the statement is prepared");
            for _ in 0..times {
                black_box(client.query_one(&statement, &[]).await.expect("the statement succeeds"));
            }
        }
    });
}

/// Runs this program under callgrind, with the arguments `work` and with `times` iterations. Returns the number of
/// executed instructions: in total, or only in functions whose names contain `within`.
fn count_instructions(within: Option<&str>, work: &[&str], times: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(within.map(|name| format!("--toggle-collect=*{name}*")))
        .arg(env::current_exe().expect("the path of this program is known"))
        .arg("loop")
        .args(work)
        .arg(times.to_string())
        .output()
        .expect("valgrind starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let count = text.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim().parse());
    count.and_then(Result::ok).unwrap_or_else(|| panic!("valgrind's output has no instruction count: {text}"))
}

/// Returns the number of instructions per iteration, without the startup.
fn per_iteration(within: Option<&str>, work: &[&str], iterations: [u64; 2]) -> f64 {
    let [few, many] = iterations.map(|times| count_instructions(within, work, times));
    (many as f64 - few as f64) / (iterations[1] - iterations[0]) as f64
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments.as_slice() {
        ["loop", "statement", way, url, times] => {
            return execute(way, url, times.parse().expect("the argument is a number"));
        }
        ["loop", policy, n, work, times] => {
            return pick(
                policy,
                n.parse().expect("the argument is a number"),
                work,
                times.parse().expect("the argument is a number"),
            );
        }
        ["loop", name, url, times] => return check_out(name, url, times.parse().expect("the argument is a number")),
        _ => {}
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        assert!(env::var_os("CI").is_none(), "valgrind is not installed");
        println!("SKIPPED: valgrind, which counts the instructions, is not installed");
        return;
    }
    let mut over = Vec::new();
    let mut check = |name: String, count: f64, limit: Option<f64>| {
        let bound = limit.map_or(String::new(), |limit| format!(", at most {limit}"));
        println!("instructions/{name}: {count:.1}{bound}");
        if limit.is_some_and(|limit| count > limit) {
            over.push(format!("{name}: {count:.1}{bound}"));
        }
    };
    for &(policy, n, limits) in LIMITS {
        for (work, limit) in WORK.into_iter().zip(limits) {
            check(
                format!("{work}/{policy}/{n}Pods"),
                per_iteration(None, &[policy, &n.to_string(), work], ITERATIONS),
                Some(limit),
            );
        }
    }
    let runtime = Runtime::new().expect("the runtime starts");
    let cluster = runtime.block_on(Cluster::builder().pods(1).start()).expect("the cluster starts");
    for &(name, limit) in CHECKOUTS {
        let url = if name == "deadpool-postgres" { cluster.pod_url(0) } else { cluster.url() };
        check(format!("get + drop/{name}"), per_iteration(Some("_checkouts"), &[name, &url], ITERATIONS), limit);
    }
    let bare = per_iteration(None, &["statement", "bare", &cluster.pod_url(0)], STATEMENTS);
    check("statement/tokio-postgres".to_owned(), bare, None);
    let shared = per_iteration(None, &["statement", "shared", &cluster.url()], STATEMENTS);
    check("statement/added by shared".to_owned(), shared - bare, Some(ADDED));
    runtime.block_on(cluster.shutdown()).expect("the cluster shuts down");
    assert!(over.is_empty(), "instruction counts above their limits:\n{}", over.join("\n"));
}
