//! Tests promoting a standby, reattaching a former primary, and moving a Pod to a new address.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
};

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
async fn standbys_are_copied_without_pg_basebackup_and_pg_rewind() -> Outcome {
    let complete = Cluster::start(1).await?;
    let sql = "SELECT setting FROM pg_config WHERE name = 'BINDIR'";
    let installed: PathBuf = complete.client(0).await?.query_one(sql, &[]).await?.get::<_, &str>(0).into();
    // The servers' account cannot enter a temporary directory of this process, but can enter the cluster's directory.
    let programs = complete.directory().join("programs");
    fs::create_dir(&programs)?;
    fs::set_permissions(&programs, fs::Permissions::from_mode(0o755))?;
    for name in ["initdb", "postgres"] {
        symlink(installed.join(name), programs.join(name))?;
    }

    let cluster = Cluster::builder().programs(&programs).pods(2).start().await?;
    application(&cluster, 0).await?.batch_execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await?;
    cluster.scale(3).await?;
    cluster.wait_replicated().await?;
    assert_eq!(numbers(&cluster, 1).await?, [1]);
    assert_eq!(numbers(&cluster, 2).await?, [1]);

    // The former primary accepts a write that no other Pod has.
    cluster.promote(1).await?;
    application(&cluster, 0).await?.batch_execute("INSERT INTO t VALUES (2)").await?;
    application(&cluster, 1).await?.batch_execute("INSERT INTO t VALUES (3)").await?;
    cluster.reattach(0).await?;
    cluster.wait_replicated().await?;
    for ordinal in 0..3 {
        assert_eq!(numbers(&cluster, ordinal).await?, [1, 3]);
    }
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
