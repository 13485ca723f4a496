//! Drops all packets to and from a Pod, as when its node or network fails, and measures the effect on requests. The
//! test runs in its own network namespace.

use std::net::IpAddr;

use podpool::testkit::Cluster;

use crate::{
    namespace::{inside, is_inside, nft},
    setup::{addresses, run_alone},
    unresponsive::{PODS, measure},
};

/// Adds an nftables table that drops all packets to and from `address`. Deleting the table ends the fault.
fn drop_packets(table: &str, address: IpAddr) {
    nft(&format!(
        "add table ip {table}; add chain ip {table} drops {{ type filter hook input priority 0; }}; \
         add rule ip {table} drops ip daddr {address} drop; add rule ip {table} drops ip saddr {address} drop"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_pod_delays_only_requests_in_flight() {
    // This test runs itself again inside the network namespace. The outer process holds the lock in the meantime, so
    // acquiring it in the inner process would deadlock.
    let _alone = if is_inside() { None } else { Some(run_alone().await) };
    if !inside("dropped_packets::an_unreachable_pod_delays_only_requests_in_flight").await {
        return;
    }
    let cluster = Cluster::start(PODS).await.expect("the cluster starts");
    let pods = addresses(&cluster);
    let begin = async |pod: usize| drop_packets(&format!("pod{pod}"), pods[pod]);
    let end = async |pod| nft(&format!("delete table ip pod{pod}"));
    measure("packets dropped (node failure)", &cluster, begin, end).await;
    cluster.shutdown().await.expect("the cluster shuts down");
}
