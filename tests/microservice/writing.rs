//! The word that is given for a write, held against what the database has.

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
    contract::make_table,
    service::{SOON, Service, ask},
};

const WRITERS: u64 = 6;

/// Writers that go on while the primary is killed, stopped in order, and comes back, each time in the middle of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_given_is_kept_whatever_the_primary_does() {
    let cluster = Cluster::start(2).await.expect("a cluster");
    drop(make_table(&cluster).await);
    let service = Arc::new(Service::ready(&cluster).await);
    let (over, applied) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(writer, service.clone(), over.clone(), applied.clone()));
    }
    let more = async |count: u64| {
        let wanted = applied.load(Ordering::Relaxed) + count;
        until(SOON, "writes are applied", || applied.load(Ordering::Relaxed) >= wanted).await;
    };
    more(100).await;
    cluster.kill(0).await.expect("a dead primary");
    cluster.start_pod(0).await.expect("the primary again");
    more(100).await;
    cluster.stop(0, Shutdown::Fast).await.expect("a stopped primary");
    cluster.start_pod(0).await.expect("the primary again");
    more(100).await;
    cluster.stop(0, Shutdown::Immediate).await.expect("a stopped primary");
    cluster.start_pod(0).await.expect("the primary again");
    more(100).await;
    over.store(true, Ordering::Relaxed);
    let mut words = HashMap::new();
    while let Some(writer) = writers.join_next().await {
        words.extend(writer.expect("a writer"));
    }

    let primary = cluster.client(0).await.expect("a client");
    let rows = primary.query("SELECT id, count(*) FROM tb_writes GROUP BY id", &[]).await.expect("the rows");
    let rows: HashMap<String, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut counts: HashMap<(&str, i64), u32> = HashMap::new();
    for (id, word) in &words {
        let there = rows.get(id).copied().unwrap_or(0);
        match word.as_str() {
            "yes" => assert_eq!(there, 1, "{id} was confirmed"),
            "no" => assert_eq!(there, 0, "{id} was said not to be applied"),
            "unknown" => {}
            other => panic!("{id}: {other}"),
        }
        *counts.entry((word, there)).or_default() += 1;
    }
    println!("writes, by the word given and the rows there are: {counts:?}");
    assert!(rows.keys().all(|id| words.contains_key(id)), "a row that nobody wrote");
    let service = Arc::into_inner(service).expect("no writer is left");
    service.finish(&cluster).await;
    cluster.shutdown().await.expect("an orderly end");
}

/// Writes until it is over. Gives every id with the word for it: yes, no or unknown.
async fn write(
    writer: u64,
    service: Arc<Service>,
    over: Arc<AtomicBool>,
    applied: Arc<AtomicU64>,
) -> Vec<(String, String)> {
    let mut connection = service.connect().await;
    let mut words = Vec::new();
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("{writer}-{number}");
        let body = serde_json::json!({ "id": id, "run": "writing" }).to_string();
        let answer = ask(&mut connection, "POST", "/write", &body).await;
        let word = match answer.status {
            200 => {
                applied.fetch_add(1, Ordering::Relaxed);
                "yes"
            }
            _ => answer.unavailable().1,
        };
        words.push((id, word.to_owned()));
    }
    words
}
