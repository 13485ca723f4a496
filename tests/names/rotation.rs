//! A name whose answers contain only some of the servers, different ones each time, such as those of Consul and of
//! Aurora's reader endpoints.
//!
//! The environment variable `ROTATION_SECONDS` sets how long the servers are read. The default is 14 s.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{
    Pool, State,
    testkit::{
        Cluster,
        fault_dns::{FaultDns, RecordType, address},
    },
};
use tokio::time::sleep;

use crate::{common, new_user::with_names};

const PODS: usize = 5;
/// Time after which few further connections are opened.
const SETTLED: Duration = Duration::from_secs(10);

fn duration() -> Duration {
    let seconds = std::env::var("ROTATION_SECONDS").map(|text| text.parse().expect("ROTATION_SECONDS is a number"));
    Duration::from_secs(seconds.unwrap_or(14))
}

/// The result of reading from the servers.
struct Reads {
    succeeded: usize,
    failed: Vec<String>,
    /// Connections opened after [`SETTLED`].
    opened: u64,
}

async fn read_once(pool: &Pool) -> Result<(), Box<dyn std::error::Error>> {
    pool.get().await?.simple_query("SELECT 1").await?;
    Ok(())
}

/// Reads from a pool with these parameters, while each answer names two of five servers.
async fn read(parameters: &str) -> Reads {
    common::init_logging();
    let cluster = Cluster::start(PODS).await.expect("the cluster starts");
    let dns = Arc::new(FaultDns::start().await.expect("the name server starts"));
    let addresses: Vec<_> = cluster.pods().iter().map(|pod| pod.address().ip().to_string()).collect();
    let publish = {
        let dns = dns.clone();
        move |first: usize| {
            let named = [first, first + 2].map(|pod| address("db.", 1, &addresses[pod % PODS]));
            dns.set_records("db.", named.into());
        }
    };
    publish(0);
    // After each answer, the next one names other servers.
    let answers = Arc::new(AtomicUsize::new(0));
    let rotating = tokio::spawn({
        let (dns, answers) = (dns.clone(), answers.clone());
        async move {
            loop {
                let queries = dns.take_log().iter().filter(|packet| packet.kind == RecordType::A).count();
                if queries > 0 {
                    publish(answers.fetch_add(queries, Ordering::Relaxed) + queries);
                }
                sleep(Duration::from_millis(2)).await;
            }
        }
    });
    let pool = Pool::connect(&format!("{}{parameters}", with_names(&cluster, &["db"], &dns))).await;
    let pool = pool.expect("the pool connects");
    let (begin, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (pool, stop) = (pool.clone(), stop.clone());
            tokio::spawn(async move {
                let (mut succeeded, mut failed) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    match read_once(&pool).await {
                        Ok(()) => succeeded += 1,
                        Err(error) => failed.push(format!("after {:.1?}: {error:?}", begin.elapsed())),
                    }
                    sleep(Duration::from_millis(5)).await;
                }
                (succeeded, failed)
            })
        })
        .collect();
    sleep(SETTLED).await;
    let before = pool.status().counters.opened;
    sleep(duration().saturating_sub(SETTLED)).await;
    let opened = pool.status().counters.opened - before;
    stop.store(true, Ordering::Relaxed);
    let mut reads = Reads { succeeded: 0, failed: Vec::new(), opened };
    for reader in readers {
        let (succeeded, failed) = reader.await.expect("the task does not panic");
        reads.succeeded += succeeded;
        reads.failed.extend(failed);
    }
    rotating.abort();
    let healthy = common::in_state(&pool, State::Healthy);
    println!(
        "{parameters}: {} reads in {:?}, {} failed, {} answers, {healthy} healthy servers, {opened} connections opened \
         after {SETTLED:?}",
        reads.succeeded,
        duration(),
        reads.failed.len(),
        answers.load(Ordering::Relaxed)
    );
    assert!(answers.load(Ordering::Relaxed) >= 5 && reads.succeeded > 1_000);
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
    reads
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotating_answers_cost_no_read_and_few_connections_if_absent_servers_are_kept() {
    let reads = read("&absent_pods=keep").await;
    assert!(reads.failed.is_empty(), "{:#?}", reads.failed);
    assert!(reads.opened <= 5, "{} connections opened after {SETTLED:?}", reads.opened);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotating_answers_cost_no_read_under_the_default_settings() {
    let reads = read("").await;
    assert!(reads.failed.is_empty(), "{:#?}", reads.failed);
}
