//! F22: lookups for a long time, one in ten with a fault, leave descriptors and memory as they were.
//!
//! A test of its own because it measures its whole process. A minute long; for hours `make soak`, which sets `PODPOOL_SOAK_SECONDS`.
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
/// How many pools' worth of lookups run side by side.
const CLIENTS: usize = 10;
/// Between a client's lookups; an hour's worth of a pool's lookups in about a minute.
const PAUSE: Duration = Duration::from_millis(20);

/// The descriptors that are open, and the resident memory in kB.
fn measure() -> (usize, u64) {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")).unwrap();
    (descriptors, memory.parse().unwrap())
}

async fn client(server: std::net::SocketAddr, until: Instant) -> (u64, u64) {
    let mut options = DnsOptions::new(SVC, 5432);
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
    assert!(stats.without_answer < 20, "{last:?}");
    (stats.lookups, stats.failed + stats.negative)
}

#[tokio::test]
async fn f22_an_hour_of_lookups_with_faults_leaks_nothing() {
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
        Fault::Truncate(3, Tcp::Silent),
        Fault::Delay(Duration::from_millis(700)),
    ];
    let until = Instant::now() + Duration::from_secs(seconds);
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(client(server.address(), until))).collect();
    let mut settled = None;
    let mut most = (0, 0);
    while Instant::now() < until {
        if server.forget() == 0 {
            // Of each twenty questions two, which are the two of one lookup or those of two.
            for (n, fault) in faults.iter().enumerate() {
                server.nth(None, n * 20 + 18, 2, fault.clone());
            }
        }
        sleep(Duration::from_millis(100)).await;
        let now = measure();
        if settled.is_none() && until.saturating_duration_since(Instant::now()).as_secs() < seconds * 2 / 3 {
            settled = Some(now);
            most = now;
        }
        most = (most.0.max(now.0), most.1.max(now.1));
    }
    let mut lookups = (0, 0);
    for client in clients {
        let (all, failed) = client.await.unwrap();
        lookups = (lookups.0 + all, lookups.1 + failed);
    }
    let settled = settled.unwrap();
    println!(
        "{} lookups, {} without an answer, in {seconds} s; descriptors: {} at first, {} at most; kB: {} at first, {} at most",
        lookups.0, lookups.1, settled.0, most.0, settled.1, most.1
    );
    assert!(lookups.0 > seconds * 20, "{lookups:?}");
    assert!(lookups.1 > lookups.0 / 50, "{lookups:?}");
    assert!(most.0 <= settled.0 + 60, "descriptors: {} at first, {} at most", settled.0, most.0);
    assert!(most.1 <= settled.1 + 2048, "kB: {} at first, {} at most", settled.1, most.1);
}
