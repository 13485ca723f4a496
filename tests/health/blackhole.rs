//! A Pod that no packet reaches and none comes from, as when its node or its network goes. In a network namespace of the
//! test's own.

use std::net::IpAddr;

use podpool::testkit::Cluster;

use crate::{
    namespace::{inside, is_inside, nft},
    silence::silent,
    stage::{addresses, alone, pool},
};

/// Drops every packet to and from an address.
fn drop_packets(address: IpAddr) {
    nft(&format!(
        "add table ip podpool; add chain ip podpool drops {{ type filter hook input priority 0; }}; \
         add rule ip podpool drops ip daddr {address} drop; add rule ip podpool drops ip saddr {address} drop"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_in_a_black_hole_costs_only_what_was_in_flight_there() {
    // Taken outside as well, this would be waited for inside for ever.
    let _alone = if is_inside() { None } else { Some(alone().await) };
    if !inside("blackhole::a_pod_in_a_black_hole_costs_only_what_was_in_flight_there").await {
        return;
    }
    let cluster = Cluster::start(3).await.expect("a cluster");
    let (pool, pods) = (pool(&cluster).await, addresses(&cluster));
    let begin = async || drop_packets(pods[1]);
    let end = async || nft("delete table ip podpool");
    silent("packets dropped (the node is gone)", &pool, &pods, pods[1], begin, end).await;
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}
