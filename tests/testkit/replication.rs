//! Tests promoting a standby, reattaching a former primary, and moving a Pod to a new address.

use std::{collections::BTreeSet, net::IpAddr};

use podpool::testkit::{Cluster, Error};

use crate::{
    Outcome,
    queries::{addresses, application, numbers, pod_addresses, setting},
};

#[tokio::test]
async fn a_former_primary_is_reattached_after_a_promotion() -> Outcome {
    let cluster = Cluster::start(3).await?;
    application(&cluster, 0).await?.batch_execute("CREATE TABLE t (n int)").await?;
    cluster.wait_replicated().await?;

    // The former primary still runs and accepts a write that is replicated to no other Pod.
    cluster.promote(2).await?;
    assert_eq!(cluster.primary(), Some(2));
    assert_eq!(setting(&cluster, 2, "in_hot_standby").await?, "off");
    assert_eq!(setting(&cluster, 0, "in_hot_standby").await?, "off", "expected two primaries");
    application(&cluster, 0).await?.batch_execute("INSERT INTO t VALUES (0)").await?;
    application(&cluster, 2).await?.batch_execute("INSERT INTO t VALUES (2)").await?;
    cluster.wait_replicated().await?;
    assert_eq!(numbers(&cluster, 1).await?, [2]);

    cluster.reattach(0).await?;
    cluster.wait_replicated().await?;
    assert_eq!(numbers(&cluster, 0).await?, [2], "expected the former primary's own write to be undone");
    assert_eq!(setting(&cluster, 0, "in_hot_standby").await?, "on");

    // Promotes and reattaches again. This time, the primary is killed before the promotion.
    cluster.kill(2).await?;
    cluster.promote(0).await?;
    application(&cluster, 0).await?.batch_execute("INSERT INTO t VALUES (3)").await?;
    cluster.reattach(2).await?;
    cluster.scale(4).await?;
    cluster.wait_replicated().await?;
    for i in 0..4 {
        assert_eq!(numbers(&cluster, i).await?, [2, 3]);
    }
    assert!(matches!(cluster.reattach(0).await, Err(Error::WrongState { .. })));
    assert!(matches!(cluster.promote(0).await, Err(Error::WrongState { .. })));
    Ok(())
}

#[tokio::test]
async fn a_pod_moves_to_an_unused_address() -> Outcome {
    let cluster = Cluster::start(3).await?;
    let mut used: BTreeSet<IpAddr> = pod_addresses(&cluster);
    for ordinal in [1, 0] {
        let before = cluster.pod(ordinal);
        cluster.move_pod(ordinal).await?;
        let after = cluster.pod(ordinal);
        assert_eq!(after.name(), before.name());
        assert!(used.insert(after.address().ip()), "{} was used before", after.address());
        assert_eq!(addresses(&cluster).await?, pod_addresses(&cluster));
    }
    // The standbys follow the primary at its new address.
    application(&cluster, 0).await?.batch_execute("CREATE TABLE moved ()").await?;
    cluster.wait_replicated().await?;
    application(&cluster, 1).await?.batch_execute("SELECT FROM moved").await?;
    Ok(())
}
