//! Tests fault injection: killing, stopping, pausing and throttling Pods.

use std::time::Duration;

use podpool::testkit::{Cluster, Error, PodState, Shutdown};
use tokio::time::{Instant, timeout};

use crate::{
    Outcome,
    processes::{is_running, server_pids},
    queries::{addresses, application},
};

#[tokio::test]
async fn shutdown_does_not_wait_for_a_paused_pod() -> Outcome {
    let cluster = Cluster::start(2).await?;
    cluster.pause(1).await?;
    let begun = Instant::now();
    cluster.shutdown().await?;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    Ok(())
}

#[tokio::test]
async fn killing_a_pod_ends_all_its_processes() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let client = cluster.client(1).await?;
    let pids = server_pids(&cluster.directory().join("postgresql-sfs-1"));
    cluster.kill(1).await?;
    assert!(client.query_one("SELECT 1", &[]).await.is_err());
    assert!(!pids.iter().any(|pid| is_running(*pid)));
    assert_eq!((cluster.pod(1).state(), cluster.pod(1).pid()), (PodState::Down, None));
    assert_eq!(addresses(&cluster).await?.len(), 2, "expected the DNS record to remain");
    cluster.unpublish(1)?;
    assert_eq!(addresses(&cluster).await?.len(), 1);
    cluster.start_pod(1).await?;
    cluster.publish(1)?;
    cluster.wait_replicated().await?;

    assert!(matches!(cluster.start_pod(1).await, Err(Error::WrongState { .. })));
    assert!(matches!(cluster.kill(7).await, Err(Error::NoSuchPod { ordinal: 7, pods: 2 })));
    for shutdown in [Shutdown::Smart, Shutdown::Fast, Shutdown::Immediate] {
        cluster.stop(1, shutdown).await?;
        assert_eq!(cluster.pod(1).state(), PodState::Down);
        cluster.start_pod(1).await?;
    }
    // Kills and restarts the primary while its standby runs.
    cluster.kill(0).await?;
    cluster.start_pod(0).await?;
    cluster.restart(0).await?;
    application(&cluster, 0).await?.batch_execute("CREATE TABLE later ()").await?;
    cluster.wait_replicated().await?;
    Ok(())
}

#[tokio::test]
async fn dns_follows_readiness_if_configured() -> Outcome {
    let cluster = Cluster::builder().pods(2).follow_readiness(true).start().await?;
    cluster.kill(1).await?;
    assert_eq!(addresses(&cluster).await?.len(), 1);
    cluster.start_pod(1).await?;
    assert_eq!(addresses(&cluster).await?.len(), 2);
    cluster.pause(1).await?;
    assert_eq!(addresses(&cluster).await?.len(), 1);
    cluster.resume(1).await?;
    assert_eq!(addresses(&cluster).await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_paused_pod_hangs_until_it_is_resumed() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let client = cluster.client(1).await?;
    client.query_one("SELECT 1", &[]).await?;
    cluster.pause(1).await?;
    assert_eq!(cluster.pod(1).state(), PodState::Paused);
    let query = client.query_one("SELECT 2", &[]);
    tokio::pin!(query);
    assert!(timeout(Duration::from_millis(300), &mut query).await.is_err(), "a paused server responded");
    assert!(
        timeout(Duration::from_millis(300), application(&cluster, 1)).await.is_err(),
        "a paused server accepted a connection"
    );
    cluster.resume(1).await?;
    let number: i32 = query.await?.get(0);
    assert_eq!(number, 2);
    // A paused Pod can be killed and stopped.
    cluster.pause(1).await?;
    cluster.kill(1).await?;
    cluster.start_pod(1).await?;
    cluster.pause(1).await?;
    cluster.stop(1, Shutdown::Fast).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_limits_a_pod_to_a_share_of_its_cpu_time() -> Outcome {
    let cluster = Cluster::start(1).await?;
    let rejected = cluster.throttle(0, 0.0).await.map(drop).unwrap_err();
    assert_eq!(rejected.to_string(), "invalid setting `share`: expected a number above 0 and up to 1");
    let client = application(&cluster, 0).await?;
    let work = async || {
        let began = std::time::Instant::now();
        client.execute("SELECT count(*) FROM generate_series(1, 200000)", &[]).await.map(|_| began.elapsed())
    };
    let before = work().await?.min(work().await?);
    // The share is relative to the CPU time that the Pod uses right after the call of `throttle`, so the Pod must be
    // busy at that time.
    let busy = async {
        loop {
            if let Err(error) = work().await {
                break error;
            }
        }
    };
    let throttle = tokio::select! {
        throttle = cluster.throttle(0, 0.1) => throttle?,
        error = busy => return Err(error.into()),
    };
    println!("{throttle:?}");
    work().await?; // waits for the statement that `select!` dropped
    let throttled = work().await?;
    drop(throttle);
    let after = work().await?.min(work().await?);
    println!("{before:?}, throttled {throttled:?}, then {after:?}");
    assert!(throttled > 4 * before, "{before:?}, throttled {throttled:?}");
    assert!(throttled > 3 * after, "throttled {throttled:?}, then {after:?}");
    cluster.shutdown().await?;
    Ok(())
}
