//! How many instructions a pick takes, counted by valgrind: exact, so there are limits, which `-- --test` checks.
//!
//! The program starts itself under callgrind twice, with more and with fewer picks; the difference is what the picks
//! took. Without valgrind it says so and measures nothing; under `CI=true` that is an error.

use std::{env, hint::black_box, process::Command};

use podpool::{
    Endpoint,
    balance::{LeastCost, LeastInFlight, PeakEwma, Random, RoundRobin},
    bench::{Picker, Set},
};

/// Policy, Pods, and the most instructions of a pick alone and of one counted out and in.
const LIMITS: &[(&str, u32, f64, f64)] = &[
    ("LeastCost", 3, 180.0, 190.0),
    ("LeastCost", 20, 425.0, 435.0),
    ("LeastCost", 1000, 355.0, 365.0),
    ("LeastInFlight", 3, 240.0, 250.0),
    ("LeastInFlight", 1000, 260.0, 270.0),
    ("PeakEwma", 3, 335.0, 345.0),
    ("RoundRobin", 3, 140.0, 150.0),
    ("Random", 3, 155.0, 165.0),
];
const FEW: u64 = 10_000;
const MANY: u64 = 60_000;

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

/// What valgrind counts of this program when it picks so many times.
fn counted(policy: &str, n: u32, work: &str, times: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().expect("a program has a path"))
        .args(["loop", policy, &n.to_string(), work, &times.to_string()])
        .output()
        .expect("valgrind starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let count = text.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim().parse());
    count.and_then(Result::ok).unwrap_or_else(|| panic!("no count in what valgrind says: {text}"))
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [word, policy, n, work, times] = arguments.as_slice()
        && word == "loop"
    {
        let (picker, times) = (picker(policy, n.parse().expect("a number")), times.parse::<u64>().expect("a number"));
        for _ in 0..times {
            match work.as_str() {
                "pick" => drop(black_box(picker.pick())),
                _ => drop(black_box(picker.pick_counted())),
            }
        }
        return;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        assert!(env::var_os("CI").is_none(), "valgrind is not installed");
        println!("SKIPPED: valgrind is not installed, so no instructions are counted");
        return;
    }
    let mut over = Vec::new();
    for &(policy, n, alone, counted_out) in LIMITS {
        for (work, limit) in [("pick", alone), ("counted", counted_out)] {
            let (few, many) = (counted(policy, n, work, FEW), counted(policy, n, work, MANY));
            let each = (many as f64 - few as f64) / (MANY - FEW) as f64;
            println!("instructions/{work}/{policy}/{n}Pods: {each:.1}, at most {limit}");
            if each > limit {
                over.push(format!("{work}/{policy}/{n}Pods: {each:.1}, more than {limit}"));
            }
        }
    }
    assert!(over.is_empty(), "more instructions than allowed:\n{}", over.join("\n"));
}
