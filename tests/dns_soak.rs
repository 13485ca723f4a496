//! Soak test: DNS lookups do not leak file descriptors or memory if one response in ten is faulty.
//!
//! This test has its own binary, because it measures the whole process. It takes one minute. `make soak` sets
//! `PODPOOL_SOAK_SECONDS` to run it for hours.
#![cfg(target_os = "linux")]

use std::{
    fs,
    time::{Duration, Instant},
};

use podpool::discovery::{Dns, DnsOptions, Resolve as _, ResolveError};
use tokio::time::sleep;

#[path = "../src/testkit/fault_dns/mod.rs"]
#[expect(dead_code, unreachable_pub, unused_imports, reason = "public in the testkit")]
mod fault_dns;

use fault_dns::{Fault, FaultDns, Tcp};

const SVC: &str = "postgresql-svc.k8s-training.svc.cluster.local.";
/// Number of concurrent resolvers.
const CLIENTS: usize = 10;
/// Pause between two lookups of one resolver. In one minute, a resolver makes at least as many lookups as a pool makes
/// in one hour.
const PAUSE: Duration = Duration::from_millis(20);

/// Returns the number of open file descriptors and the resident memory in KiB.
fn measure() -> (usize, u64) {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")).unwrap();
    (descriptors, memory.parse().unwrap())
}

/// Resolves the name repeatedly until `until`. Returns the number of lookups, and how many returned no addresses.
async fn client(server: std::net::SocketAddr, until: Instant) -> (u64, u64) {
    let mut options = DnsOptions::new(SVC.parse().expect("the Service name parses"), 5432);
    options.nameservers = vec![server];
    options.timeout = Duration::from_millis(500);
    let dns = Dns::new(options).unwrap();
    let mut last: Option<ResolveError> = None;
    while Instant::now() < until {
        match dns.resolve().await {
            Ok(resolution) => assert_eq!(resolution.endpoints.len(), 100),
            Err(error) => last = Some(error),
        }
        sleep(PAUSE).await;
    }
    let stats = dns.stats();
    assert!(
        stats.without_answer < 20,
        "{} consecutive lookups without a response, last error: {last:?}",
        stats.without_answer
    );
    (stats.lookups, stats.failed + stats.negative)
}

#[tokio::test]
async fn faulty_lookups_do_not_leak_descriptors_or_memory() {
    let seconds = std::env::var("PODPOOL_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let server = FaultDns::start().await.unwrap();
    let ips: Vec<_> =
        (0..100).map(|n| format!("10.0.0.{n}")).filter(|ip| ip != "10.0.0.0").chain(["10.0.1.1".into()]).collect();
    server.set(SVC, &ips.iter().map(String::as_str).collect::<Vec<_>>());
    let faults = [
        Fault::Drop,
        Fault::Code(2),
        Fault::Code(3),
        Fault::Garbage,
        Fault::WrongId,
        Fault::WrongQuestion,
        Fault::Truncate(3, Tcp::Close),
        Fault::Truncate(3, Tcp::Hang),
        Fault::Delay(Duration::from_millis(700)),
    ];
    let until = Instant::now() + Duration::from_secs(seconds);
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(client(server.address(), until))).collect();
    let mut warm = None;
    let mut peak = (0, 0);
    while Instant::now() < until {
        if server.prune() == 0 {
            // Each fault hits two consecutive queries out of every twenty: the A and AAAA queries of one lookup, or one
            // query of each of two lookups.
            for (n, fault) in faults.iter().enumerate() {
                server.nth(None, n * 20 + 18, 2, fault.clone());
            }
        }
        sleep(Duration::from_millis(100)).await;
        let now = measure();
        // Takes the baseline after a third of the time, when allocators and caches have filled up.
        if warm.is_none() && until.saturating_duration_since(Instant::now()).as_secs() < seconds * 2 / 3 {
            warm = Some(now);
            peak = now;
        }
        peak = (peak.0.max(now.0), peak.1.max(now.1));
    }
    let mut lookups = (0, 0);
    for client in clients {
        let (all, failed) = client.await.unwrap();
        lookups = (lookups.0 + all, lookups.1 + failed);
    }
    let warm = warm.unwrap();
    println!(
        "{} lookups, {} without addresses, in {seconds} s; descriptors: {} after warm-up, {} at peak; \
         KiB: {} after warm-up, {} at peak",
        lookups.0, lookups.1, warm.0, peak.0, warm.1, peak.1
    );
    assert!(lookups.0 > seconds * 20, "too few lookups: {} in {seconds} s", lookups.0);
    assert!(lookups.1 > lookups.0 / 50, "too few faults took effect: {} of {} lookups failed", lookups.1, lookups.0);
    assert!(peak.0 <= warm.0 + 60, "descriptors leaked: {} after warm-up, {} at peak", warm.0, peak.0);
    assert!(peak.1 <= warm.1 + 2048, "memory leaked: {} KiB after warm-up, {} KiB at peak", warm.1, peak.1);
}
