//! A Pod that no packet reaches and none comes from, as when its node or its network goes. In a network namespace of the
//! test's own.

use std::net::IpAddr;

use podpool::testkit::Cluster;

use crate::{
    namespace::{inside, is_inside, nft},
    silence::{PODS, silent},
    stage::{addresses, alone},
};

/// Drops every packet to and from an address, in a table of this name.
fn drop_packets(table: &str, address: IpAddr) {
    nft(&format!(
        "add table ip {table}; add chain ip {table} drops {{ type filter hook input priority 0; }}; \
         add rule ip {table} drops ip daddr {address} drop; add rule ip {table} drops ip saddr {address} drop"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_in_a_black_hole_costs_only_what_was_in_flight_there() {
    // Taken outside as well, this would be waited for inside for ever.
    let _alone = if is_inside() { None } else { Some(alone().await) };
    if !inside("blackhole::a_pod_in_a_black_hole_costs_only_what_was_in_flight_there").await {
        return;
    }
    let cluster = Cluster::start(PODS).await.expect("a cluster");
    let pods = addresses(&cluster);
    let begin = async |pod: usize| drop_packets(&format!("pod{pod}"), pods[pod]);
    let end = async |pod| nft(&format!("delete table ip pod{pod}"));
    silent("packets dropped (the node is gone)", &cluster, begin, end).await;
    cluster.shutdown().await.expect("an orderly end");
}
