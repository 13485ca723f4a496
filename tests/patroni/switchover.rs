//! Planned changes of the leader.

use std::{collections::BTreeMap, time::Instant};

use podpool::{Pool, Target, testkit::PatroniCluster};

use crate::{
    RESUME,
    common::{
        paced::Spread,
        trials::{self, assert_within},
    },
    watch::{Watch, first_accepted},
    writes::longest_gap,
};

/// Changes the leader by `patronictl switchover`, and by `patronictl failover`.
pub async fn by_patronictl(cluster: &PatroniCluster, pool: &Pool) {
    for (command, default) in [("switchover", 2), ("failover", 1)] {
        let (mut delays, mut gaps) = (Vec::new(), Vec::new());
        for _ in 0..trials::count(default) {
            let old = cluster.stable().await.expect("the cluster is stable");
            let new = cluster.synchronous_standby().await.expect("a standby is synchronous");
            let watch = Watch::start(pool, Target::Standby).await;
            let began = Instant::now();
            let request = async {
                match command {
                    "switchover" => cluster.switchover(new).await,
                    _ => cluster.failover(new).await,
                }
            };
            let others = (0..cluster.len()).filter(|&ordinal| ordinal != old);
            let (requested, accepted) = tokio::join!(request, first_accepted(cluster, others));
            requested.expect("Patroni changes the leader");
            assert_eq!(accepted.ordinal, new, "the Pod that accepts writes");
            delays.push(watch.resumed(accepted).await);
            let written = watch.finish(cluster).await;
            assert_eq!(written.not_applied, BTreeMap::new(), "failed writes");
            gaps.push(longest_gap(began, written.acknowledged.values().copied(), Instant::now()));
        }
        println!("{command}: longest time without a write: {}", Spread::new(gaps));
        assert_within(RESUME, &format!("{command}: writes resume after the new leader accepts them"), delays);
    }
}
