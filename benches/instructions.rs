//! How many instructions a pick takes, and a checkout with the giving back, counted by valgrind: exact, so there are
//! limits, which `-- --test` checks.
//!
//! The program starts itself under callgrind twice, with more and with fewer of them; the difference is what they took.
//! Of checkouts only the loop is counted, in which nothing else runs: not what the pool does in the background. They are
//! from a warm pool to a real server, which runs outside valgrind; to one alone, because which of several is faster under
//! valgrind is chance. Without valgrind the program says so and measures nothing; under `CI=true` that is an error.

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

/// Policy, Pods, and the most instructions of a pick alone, of one counted out and in, and of one where every Pod has a
/// connection lent out.
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
const WORK: [&str; 3] = ["pick", "counted", "busy"];
/// Whose checkouts, and the most instructions of one and the giving back; without a limit what they are compared with.
const CHECKOUTS: &[(&str, Option<f64>)] = &[
    ("podpool, nobody listens", Some(570.0)),
    ("podpool, a recorder of metrics", Some(570.0)),
    ("deadpool-postgres", None),
];
const FEW: u64 = 10_000;
const MANY: u64 = 60_000;
/// Connections of a pool.
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
    // Of the least busy Pods one is picked, so each has one then; the others' turns come to about that.
    let held: Vec<_> = (0..if work == "busy" { n } else { 0 }).map(|_| picker.pick_counted()).collect();
    for _ in 0..times {
        match work {
            "counted" => drop(black_box(picker.pick_counted())),
            _ => drop(black_box(picker.pick())),
        }
    }
    drop(held);
}

fn check_out(whose: &str, url: &str, times: u64) {
    if whose == "podpool, a recorder of metrics" {
        metrics_util::debugging::DebuggingRecorder::new().install().expect("the first recorder");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    if whose == "deadpool-postgres" {
        check_out_of_deadpool(&runtime, url, times);
    } else {
        check_out_of_podpool(&runtime, url, times);
    }
}

fn check_out_of_podpool(runtime: &Runtime, url: &str, times: u64) {
    let url = format!("{url}&pool_size={SIZE}&ping_after=60");
    let pool = runtime.block_on(async {
        let pool = Pool::connect(&url).await.expect("a pool");
        pool.wait_ready(Target::Any, Duration::from_secs(60)).await.expect("ready");
        let mut all = Vec::new();
        while all.len() < SIZE {
            all.push(pool.get().await.expect("a connection"));
        }
        drop(all);
        pool
    });
    podpool_checkouts(&pool, times);
}

/// What comes without waiting, so that nothing else has its turn.
#[inline(always)]
fn at_once<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("a connection is idle"),
    }
}

#[inline(never)]
fn podpool_checkouts(pool: &Pool, times: u64) {
    for _ in 0..times {
        drop(black_box(at_once(pool.get()).expect("a connection")));
    }
}

fn check_out_of_deadpool(runtime: &Runtime, url: &str, times: u64) {
    let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(url.parse().expect("a URL"), NoTls, manager);
    let pool = deadpool_postgres::Pool::builder(manager).max_size(SIZE).build().expect("a pool");
    runtime.block_on(async {
        let mut all = Vec::new();
        while all.len() < SIZE {
            all.push(pool.get().await.expect("a connection"));
        }
    });
    deadpool_checkouts(&pool, times);
}

#[inline(never)]
fn deadpool_checkouts(pool: &deadpool_postgres::Pool, times: u64) {
    for _ in 0..times {
        drop(black_box(at_once(pool.get()).expect("a connection")));
    }
}

/// What valgrind counts of this program when it does its work so many times, all of it or within the functions of that
/// name.
fn counted(within: Option<&str>, work: &[&str], times: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(within.map(|name| format!("--toggle-collect=*{name}*")))
        .arg(env::current_exe().expect("a program has a path"))
        .arg("loop")
        .args(work)
        .arg(times.to_string())
        .output()
        .expect("valgrind starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let count = text.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim().parse());
    count.and_then(Result::ok).unwrap_or_else(|| panic!("no count in what valgrind says: {text}"))
}

fn each(within: Option<&str>, work: &[&str]) -> f64 {
    let (few, many) = (counted(within, work, FEW), counted(within, work, MANY));
    (many as f64 - few as f64) / (MANY - FEW) as f64
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments.as_slice() {
        ["loop", policy, n, work, times] => {
            return pick(policy, n.parse().expect("a number"), work, times.parse().expect("a number"));
        }
        ["loop", whose, url, times] => return check_out(whose, url, times.parse().expect("a number")),
        _ => {}
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        assert!(env::var_os("CI").is_none(), "valgrind is not installed");
        println!("SKIPPED: valgrind is not installed, so no instructions are counted");
        return;
    }
    let mut over = Vec::new();
    let mut check = |what: String, count: f64, limit: Option<f64>| {
        let most = limit.map_or(String::new(), |limit| format!(", at most {limit}"));
        println!("instructions/{what}: {count:.1}{most}");
        if limit.is_some_and(|limit| count > limit) {
            over.push(format!("{what}: {count:.1}{most}"));
        }
    };
    for &(policy, n, limits) in LIMITS {
        for (work, limit) in WORK.into_iter().zip(limits) {
            check(format!("{work}/{policy}/{n}Pods"), each(None, &[policy, &n.to_string(), work]), Some(limit));
        }
    }
    let runtime = Runtime::new().expect("a runtime");
    let cluster = runtime.block_on(Cluster::builder().pods(1).start()).expect("a Pod");
    for &(whose, limit) in CHECKOUTS {
        let url = if whose == "deadpool-postgres" { cluster.pod_url(0) } else { cluster.url() };
        check(format!("get + drop/{whose}"), each(Some("_checkouts"), &[whose, &url]), limit);
    }
    runtime.block_on(cluster.shutdown()).expect("an orderly end");
    assert!(over.is_empty(), "more instructions than allowed:\n{}", over.join("\n"));
}
