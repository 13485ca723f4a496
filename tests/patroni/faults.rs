//! Restarts and losses in a cluster with synchronous replication.

use std::{collections::BTreeMap, time::Duration};

use podpool::{Pool, Target, testkit::PatroniCluster, tokio_postgres::Error};
use tokio::time::{sleep, timeout};

use crate::{
    RESUME,
    common::trials::{self, assert_within},
    watch::{LIMIT, Watch, first_accepted},
};

/// Restarts the server of each standby by `patronictl restart`.
pub async fn standby_restarts(cluster: &PatroniCluster, pool: &Pool) {
    for _ in 0..trials::count(1) {
        let leader = cluster.stable().await.expect("the cluster is stable");
        let watch = Watch::start(pool, Target::Standby).await;
        for standby in (0..cluster.len()).filter(|&ordinal| ordinal != leader) {
            cluster.restart(standby).await.expect("Patroni restarts the standby");
            cluster.stable().await.expect("the standby follows the leader again");
        }
        let written = watch.finish(cluster).await;
        assert_eq!(written.not_applied, BTreeMap::new(), "failed writes");
        assert_eq!(written.unknown, BTreeMap::new(), "writes with an unknown outcome");
        println!("standbys restarted: {} writes, none failed; no read failed", written.acknowledged.len());
    }
}

/// Kills all processes of the leader's Pod. Patroni elects a new leader when the lock expires. The former leader's Pod
/// starts again and follows the new one. The other standby may have received more than the new leader. Patroni then
/// stops and rewinds it, so that for some seconds no standby accepts connections.
pub async fn leader_is_killed(cluster: &PatroniCluster, pool: &Pool) {
    let mut delays = Vec::new();
    for _ in 0..trials::count(1) {
        let old = cluster.stable().await.expect("the cluster is stable");
        let watch = Watch::start(pool, Target::PreferStandby).await;
        cluster.kill(old).await.expect("the Pod is killed");
        let accepted = first_accepted(cluster, (0..cluster.len()).filter(|&ordinal| ordinal != old)).await;
        delays.push(watch.resumed(accepted).await);
        cluster.start_patroni(old).expect("Patroni starts");
        let written = watch.finish(cluster).await;
        println!(
            "leader killed: {} writes acknowledged, {} not applied, {} unknown",
            written.acknowledged.len(),
            written.not_applied.len(),
            written.unknown.len()
        );
    }
    assert_within(RESUME, "leader killed: writes resume after the new leader accepts them", delays);
}

/// Kills etcd until the leader has demoted itself. Until etcd is back, no Pod accepts writes, and no Pod is ready.
pub async fn etcd_is_lost(cluster: &PatroniCluster, pool: &Pool) {
    let mut delays = Vec::new();
    for _ in 0..trials::count(1) {
        let leader = cluster.stable().await.expect("the cluster is stable");
        let watch = Watch::start(pool, Target::PreferStandby).await;
        cluster.kill_etcd().expect("etcd is killed");
        let demoted = async {
            while !is_standby(cluster, leader).await.unwrap_or(false) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, demoted).await.expect("the leader demotes itself");
        cluster.start_etcd().await.expect("etcd starts");
        let accepted = first_accepted(cluster, 0..cluster.len()).await;
        delays.push(watch.resumed(accepted).await);
        watch.finish(cluster).await;
    }
    assert_within(RESUME, "etcd lost: writes resume after the new leader accepts them", delays);
}

async fn is_standby(cluster: &PatroniCluster, ordinal: usize) -> Result<bool, Error> {
    match cluster.client(ordinal).await {
        Ok(client) => client.query_one("SELECT pg_is_in_recovery()", &[]).await?.try_get(0),
        // The server is restarting.
        Err(_) => Ok(false),
    }
}
