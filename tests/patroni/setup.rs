//! Starts the cluster, or skips the test on machines without Patroni and etcd.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use podpool::{Pool, State, testkit::PatroniCluster};

use crate::{
    common::{in_state, programs::programs, until},
    ledger::TABLE,
};

/// Directory where `.ci/run` installs Patroni.
const PATRONI: &str = "/opt/podpool-patroni/bin/patroni";

/// Starts a cluster with the tables that the tests write to. Returns `None` on machines without Patroni or etcd, and
/// panics instead if `CI=true`.
pub async fn cluster() -> Option<PatroniCluster> {
    let patroni = match PathBuf::from(PATRONI) {
        installed if installed.is_file() => installed,
        _ => programs(["patroni", "patronictl"])?[0].clone(),
    };
    let [etcd] = programs(["etcd"])?;
    let cluster = PatroniCluster::start(&etcd, &patroni).await.expect("the cluster starts");
    let leader = cluster.leader().await.expect("the cluster has a leader");
    let superuser = cluster.client(leader).await.expect("the superuser connects");
    let tables = format!("{TABLE}; CREATE TABLE accepted (n int); GRANT ALL ON ledger TO PUBLIC");
    superuser.batch_execute(&tables).await.expect("the tables are created");
    Some(cluster)
}

/// Creates a pool and waits until all Pods are healthy.
pub async fn pool(cluster: &PatroniCluster) -> Pool {
    let pool = Pool::connect(&cluster.url()).await.expect("the pool is created");
    until(Duration::from_secs(20), "every Pod serves", || in_state(&pool, State::Healthy) == cluster.len()).await;
    pool
}

/// Panics in a task that owns the cluster, and asserts that no process, directory or used port of the cluster is left.
pub async fn assert_removed_after_a_panic(cluster: PatroniCluster) {
    let directory = cluster.directory().to_owned();
    let addresses: Vec<_> = (0..cluster.len()).map(|ordinal| cluster.address(ordinal)).collect();
    assert!(processes(&directory) > cluster.len(), "processes are found by their working directory");
    let task = tokio::spawn(async move {
        let _cluster = cluster;
        panic!("this panic is part of the test");
    });
    task.await.expect_err("the task panics");
    assert_eq!(processes(&directory), 0, "processes of the cluster");
    assert!(!directory.exists(), "{} exists", directory.display());
    for address in addresses {
        TcpListener::bind(address).expect("the port is free");
    }
}

/// Returns the number of processes that work in a directory.
fn processes(directory: &Path) -> usize {
    let works_here = |entry: &fs::DirEntry| {
        fs::read_link(entry.path().join("cwd")).is_ok_and(|working| working.starts_with(directory))
    };
    fs::read_dir("/proc").expect("/proc is readable").flatten().filter(works_here).count()
}
