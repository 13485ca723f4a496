//! Tests the service with `shared=on`: many requests use few connections to each Pod.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use podpool::testkit::Cluster;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    common::until,
    service::{LIMIT, Service, fields, request},
};

/// Number of requests at the same time.
const CALLERS: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_share_few_connections_to_each_pod_and_survive_the_loss_of_a_pod() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    cluster.wait_replicated().await.expect("the standbys follow");
    let separator = if cluster.url().contains('?') { '&' } else { '?' };
    let service =
        Arc::new(Service::start(&format!("{}{separator}shared=on&min_idle=0&shared_slow=60s", cluster.url())).await);
    service.get_until("/readyz", |response| response.status == 200).await;
    let (stop, total, attempts) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut readers = JoinSet::new();
    for _ in 0..CALLERS {
        let (service, stop, total, attempts) = (service.clone(), stop.clone(), total.clone(), attempts.clone());
        readers.spawn(async move {
            let mut connection = service.connect().await;
            while !stop.load(Ordering::Relaxed) {
                let response = request(&mut connection, "GET", "/query?target=standby", "").await;
                assert_eq!(response.status, 200, "{response:?}");
                assert_eq!(fields(&response.body), ["attempts", "in_recovery", "pod", "server_addr", "us"]);
                assert_eq!(response.body["in_recovery"], true);
                attempts.fetch_add(response.body["attempts"].as_u64().expect("a number"), Ordering::Relaxed);
                total.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(5)).await;
            }
        });
    }
    let of_service = "SELECT concat_ws(': ', application_name, state, query) FROM pg_stat_activity \
                      WHERE usename = $1 AND application_name NOT LIKE '%/probe'";
    until(LIMIT, "requests are served", || total.load(Ordering::Relaxed) >= 1_000).await;
    for pod in [1, 2] {
        let client = cluster.client(pod).await.expect("the superuser connects");
        let rows = client.query(of_service, &[&cluster.user()]).await.expect("the query succeeds");
        let sessions: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert!((1..=2).contains(&sessions.len()), "sessions on Pod {pod}: {sessions:?}");
    }
    cluster.kill(1).await.expect("SIGKILL is sent");
    let now = attempts.load(Ordering::Relaxed);
    until(LIMIT, "requests are served without the Pod", || attempts.load(Ordering::Relaxed) >= now + 2_000).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(done) = readers.join_next().await {
        done.expect("no request has failed");
    }
    let attempts = attempts.load(Ordering::Relaxed);
    println!("{attempts} attempts for {} requests of {CALLERS} callers", total.load(Ordering::Relaxed));
    Arc::into_inner(service).expect("no reader is left").stop(&cluster).await;
}
