//! Tests callers that wait while one of the Pods is drained.

use std::time::{Duration, Instant};

use podpool::{Config, Event, Pool, config::Limits, testkit::Cluster};
use tokio::time::{sleep, timeout};

use crate::common::{in_state, server_addr, until};

const SOON: Duration = Duration::from_secs(30);

/// Each of the two Pods has only one connection, both connections are in use, and three callers wait. One Pod is then
/// removed from DNS. Its connection must be closed when it is returned, and the other Pod must serve all three waiters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_never_receive_a_connection_to_a_drained_pod() {
    for leaving in [0, 1] {
        let cluster = Cluster::start(2).await.expect("the cluster starts");
        let config: Config = format!("{}&pool_size=1", cluster.url()).parse().expect("the URL parses");
        let mut limits: Limits = *config.limits();
        limits.acquire_timeout = Duration::from_secs(60);
        (limits.refresh_min, limits.refresh_max) = (Duration::from_millis(100), Duration::from_millis(200));
        limits.detach_linger = Duration::ZERO;
        let pool = Pool::builder(config.with_limits(limits)).build().expect("the pool is created");
        until(SOON, "both Pods are healthy", || in_state(&pool, podpool::State::Healthy) == 2).await;
        let mut events = pool.events();
        let (first, second) =
            (pool.get().await.expect("checkout succeeds"), pool.get().await.expect("checkout succeeds"));
        let left = cluster.pod(leaving).address();
        let (of_left, of_other) =
            if first.endpoint().address().tcp().unwrap() == left { (first, second) } else { (second, first) };
        assert_eq!(of_left.endpoint().address().tcp().unwrap(), left);
        assert_ne!(of_other.endpoint().address().tcp().unwrap(), left);
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    let client = pool.get().await.expect("checkout succeeds");
                    server_addr(&client).await
                })
            })
            .collect();
        until(SOON, "three callers wait", || pool.status().endpoints.iter().any(|pod| pod.waiting == 3)).await;
        cluster.unpublish(leaving).expect("the DNS server is updated");
        timeout(SOON, async { while !matches!(events.next().await, Some(Ok(Event::EndpointDrained { .. }))) {} })
            .await
            .expect("the Pod is drained");
        let returned = Instant::now();
        drop(of_left);
        timeout(SOON, async {
            loop {
                match events.next().await {
                    Some(Ok(Event::EndpointRemoved { endpoint })) => {
                        break assert_eq!(endpoint.address().tcp().unwrap(), left);
                    }
                    Some(Ok(_)) => {}
                    other => panic!("expected an event, got {other:?}"),
                }
            }
        })
        .await
        .expect("the Pod is removed");
        println!("Pod {leaving}: removed {:.1?} after its connection was returned", returned.elapsed());
        assert!(returned.elapsed() < Duration::from_secs(1), "{:?}", returned.elapsed());
        // Waits for a moment: if the pool handed the returned connection to a waiter, the waiter would finish in this
        // time.
        sleep(Duration::from_millis(100)).await;
        let finished = waiters.iter().filter(|waiter| waiter.is_finished()).count();
        assert_eq!(finished, 0, "waiters were served while no connection was free: {:?}", pool.status());
        drop(of_other);
        let expected = cluster.pod(1 - leaving).address().ip().to_string();
        for waiter in waiters {
            let address = timeout(SOON, waiter).await.expect("the waiter is served").expect("the task does not panic");
            assert_eq!(address, expected);
        }
        pool.close().await;
        cluster.shutdown().await.expect("the cluster shuts down");
    }
}
