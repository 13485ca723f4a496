//! Tests that a cluster starts and scales.

use std::time::Duration;

use podpool::testkit::{Cluster, Error, PodRole, PodState};
use tokio::time::Instant;

use crate::{
    Outcome,
    processes::{cluster_pids, is_running},
    queries::{addresses, application, pod_addresses, setting, srv_targets},
};

#[tokio::test]
async fn starts_three_replicating_pods_within_five_seconds() -> Outcome {
    let mut cluster = None;
    // One of three attempts must be fast enough, because other tests compete for the CPUs.
    for attempt in 1..=3 {
        drop(cluster.take());
        let begun = Instant::now();
        let started = Cluster::start(3).await?;
        let took = begun.elapsed();
        println!("three Pods started in {took:.2?} (PostgreSQL {})", started.postgres_version());
        cluster = Some(started);
        if took < Duration::from_secs(5) {
            break;
        }
        assert!(attempt < 3, "expected three Pods within 5 s in one of three attempts, got {took:?}");
    }
    let cluster = cluster.ok_or("no cluster")?;

    for (i, pod) in cluster.pods().iter().enumerate() {
        assert_eq!(pod.name(), format!("postgresql-sfs-{i}"));
        assert_eq!(pod.role(), if i == 0 { PodRole::Primary } else { PodRole::Standby });
        assert_eq!(pod.state(), PodState::Running);
        assert!(pod.is_published());
        assert_eq!(setting(&cluster, i, "cluster_name").await?, pod.name());
        assert_eq!(setting(&cluster, i, "in_hot_standby").await?, if i == 0 { "off" } else { "on" });
    }
    assert_eq!(addresses(&cluster).await?, pod_addresses(&cluster));

    // The URL's user can create tables, and its writes reach every standby.
    let app = application(&cluster, 0).await?;
    app.batch_execute("CREATE TABLE notes (note text); INSERT INTO notes VALUES ('replicated')").await?;
    cluster.wait_replicated().await?;
    for i in 0..3 {
        let note: String = application(&cluster, i).await?.query_one("SELECT note FROM notes", &[]).await?.get(0);
        assert_eq!(note, "replicated");
    }
    let superuser: bool =
        app.query_one("SELECT rolsuper FROM pg_roles WHERE rolname = current_user", &[]).await?.get(0);
    assert!(!superuser);

    let (directory, pids) = (cluster.directory().to_owned(), cluster_pids(cluster.directory()));
    cluster.shutdown().await?;
    assert!(!directory.exists());
    assert!(!pids.iter().any(|pid| is_running(*pid)));
    Ok(())
}

#[tokio::test]
async fn dns_follows_the_number_of_pods() -> Outcome {
    let cluster = Cluster::start(1).await?;
    assert_eq!(addresses(&cluster).await?.len(), 1);
    for pods in [3, 5, 2] {
        cluster.scale(pods).await?;
        assert_eq!(cluster.len(), pods);
        assert_eq!(addresses(&cluster).await?, pod_addresses(&cluster));
        assert_eq!(addresses(&cluster).await?.len(), pods);
    }
    assert_eq!(srv_targets(&cluster).await?, ["postgresql-sfs-0", "postgresql-sfs-1"]);

    // The data survives scaling to zero.
    application(&cluster, 0).await?.batch_execute("CREATE TABLE kept ()").await?;
    cluster.scale(0).await?;
    assert!(cluster.is_empty());
    assert!(addresses(&cluster).await.is_err());
    cluster.scale(3).await?;
    cluster.wait_replicated().await?;
    application(&cluster, 2).await?.batch_execute("SELECT FROM kept").await?;
    assert_eq!(addresses(&cluster).await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_failed_scale_leaves_the_cluster_unchanged() -> Outcome {
    let cluster = Cluster::start(1).await?;
    cluster.kill(0).await?;
    assert!(matches!(cluster.scale(3).await, Err(Error::NoPrimary { .. })));
    assert_eq!((cluster.len(), addresses(&cluster).await?.len()), (1, 1));
    cluster.start_pod(0).await?;
    cluster.scale(3).await?;
    let names: Vec<_> = cluster.pods().iter().map(|pod| pod.name().to_owned()).collect();
    assert_eq!(names, ["postgresql-sfs-0", "postgresql-sfs-1", "postgresql-sfs-2"]);
    assert_eq!(addresses(&cluster).await?, pod_addresses(&cluster));
    Ok(())
}

/// Fails to compile if tasks cannot inject faults while other tasks use the cluster.
#[test]
fn cluster_can_be_shared_between_tasks() {
    fn is_shareable<T: Send + Sync>(_: &T) {}
    fn is_send<T: Send>(_: T) {}
    let _ = |cluster: &Cluster| {
        is_shareable(cluster);
        is_send(cluster.kill(0));
        is_send(cluster.scale(3));
        is_send(cluster.promote(1));
        is_send(cluster.reattach(0));
        is_send(cluster.move_pod(0));
        is_send(cluster.dns().stop());
        is_send(cluster.dns().restart());
    };
}
