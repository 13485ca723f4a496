//! Tests that the outcomes that the service reports for writes match the rows in the database.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use podpool::testkit::{Cluster, Shutdown};
use tokio::task::JoinSet;

use crate::{
    common::until,
    contract::create_table,
    service::{LIMIT, Service, request},
};

const WRITERS: u64 = 6;

/// Kills, stops and restarts the primary several times while writers run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reported_write_outcomes_are_true_while_the_primary_restarts() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    drop(create_table(&cluster).await);
    let service = Arc::new(Service::ready(&cluster).await);
    let (stop, applied) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(writer, service.clone(), stop.clone(), applied.clone()));
    }
    let wait_for_writes = async |count: u64| {
        let total = applied.load(Ordering::Relaxed) + count;
        until(LIMIT, "further writes are applied", || applied.load(Ordering::Relaxed) >= total).await;
    };
    wait_for_writes(100).await;
    cluster.kill(0).await.expect("the primary is killed");
    cluster.start_pod(0).await.expect("the primary starts");
    wait_for_writes(100).await;
    for mode in [Shutdown::Fast, Shutdown::Immediate] {
        cluster.stop(0, mode).await.expect("the primary stops");
        cluster.start_pod(0).await.expect("the primary starts");
        wait_for_writes(100).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut outcomes = HashMap::new();
    while let Some(writer) = writers.join_next().await {
        outcomes.extend(writer.expect("the writer does not panic"));
    }

    let primary = cluster.client(0).await.expect("the client connects");
    let rows = primary.query("SELECT id, count(*) FROM tb_writes GROUP BY id", &[]).await.expect("the query succeeds");
    let rows: HashMap<String, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut counts: HashMap<(&str, i64), u32> = HashMap::new();
    for (id, outcome) in &outcomes {
        let found = rows.get(id).copied().unwrap_or(0);
        match outcome.as_str() {
            "yes" => assert_eq!(found, 1, "rows of {id}, which was reported as applied"),
            "no" => assert_eq!(found, 0, "rows of {id}, which was reported as not applied"),
            "unknown" => {}
            other => panic!("unexpected outcome of {id}: {other}"),
        }
        *counts.entry((outcome, found)).or_default() += 1;
    }
    println!("writes by reported outcome and number of rows: {counts:?}");
    assert!(rows.keys().all(|id| outcomes.contains_key(id)), "a row has an id that no writer used");
    let service = Arc::into_inner(service).expect("every writer has ended");
    service.stop(&cluster).await;
    cluster.shutdown().await.expect("the cluster stops");
}

/// Writes until `stop` is set. Returns every id with its reported outcome: yes, no or unknown.
async fn write(
    writer: u64,
    service: Arc<Service>,
    stop: Arc<AtomicBool>,
    applied: Arc<AtomicU64>,
) -> Vec<(String, String)> {
    let mut connection = service.connect().await;
    let mut outcomes = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("{writer}-{number}");
        let body = serde_json::json!({ "id": id, "run": "writes" }).to_string();
        let response = request(&mut connection, "POST", "/write", &body).await;
        let outcome = match response.status {
            200 => {
                applied.fetch_add(1, Ordering::Relaxed);
                "yes"
            }
            _ => response.failure().1,
        };
        outcomes.push((id, outcome.to_owned()));
    }
    outcomes
}
