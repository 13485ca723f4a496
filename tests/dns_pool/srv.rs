//! Tests that, with SRV records, the pool treats a Pod whose name, address or port changes as a new Pod.

use std::net::SocketAddr;

use podpool::Pool;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    common::until,
    site::{EventLog, FOLLOW, Site, members, refreshed, warm},
};

const BY_SRV: &str = "&discovery=srv&port_name=postgresql-port";

/// Waits until the pool has exactly these Pods, each with an idle connection.
async fn follow(pool: &Pool, expected: &[String]) {
    until(FOLLOW, "the pool follows the SRV records", || members(pool) == expected).await;
    until(FOLLOW, "every Pod is warm", || warm(pool) == expected.len()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moved_name_and_a_reused_address_get_new_connections() {
    let site = Site::start(3).await;
    let port = site.cluster.port();
    let member = |name: &str, ordinal: usize| format!("{name} ({}:{port})", site.ip(ordinal));
    site.publish_srv(&[("pod-a", 0, port), ("pod-b", 1, port)]);
    let pool = site.pool(2, BY_SRV).await;
    assert_eq!(members(&pool), [member("pod-a", 0), member("pod-b", 1)]);
    let events = EventLog::of(&pool);
    let [a, b] = [site.sessions(0).await, site.sessions(1).await];

    // `pod-b` is rescheduled: it keeps its name and gets a new address.
    site.publish_srv(&[("pod-a", 0, port), ("pod-b", 2, port)]);
    follow(&pool, &[member("pod-a", 0), member("pod-b", 2)]).await;
    until(FOLLOW, "the old Pod is removed", || events.count("endpoint_removed") == 1).await;
    assert_eq!(events.count(&format!("endpoint_added {}", member("pod-b", 2))), 1);
    assert_eq!(events.count(&format!("endpoint_removed {}", member("pod-b", 1))), 1);
    assert_eq!(site.sessions(0).await, a, "sessions of the unchanged Pod");
    let deadline = std::time::Instant::now() + FOLLOW;
    while !site.sessions(1).await.is_disjoint(&b) {
        assert!(std::time::Instant::now() < deadline, "the old address still has sessions of the pool");
    }

    // `pod-c` takes over the address of `pod-b`, which is removed. The pool must not keep any connection to `pod-b`.
    let before = site.sessions(2).await;
    events.take();
    site.publish_srv(&[("pod-a", 0, port), ("pod-c", 2, port)]);
    follow(&pool, &[member("pod-a", 0), member("pod-c", 2)]).await;
    until(FOLLOW, "the old Pod is removed", || events.count("endpoint_removed") == 1).await;
    assert_eq!(events.count(&format!("endpoint_added {}", member("pod-c", 2))), 1);
    let deadline = std::time::Instant::now() + FOLLOW;
    while !site.sessions(2).await.is_disjoint(&before) {
        assert!(std::time::Instant::now() < deadline, "a session of the old Pod is still open");
    }
    assert!(!site.sessions(2).await.is_empty(), "the new Pod has no sessions");
    assert_eq!(site.sessions(0).await, a, "sessions of the unchanged Pod");
    site.end(pool).await;
}

/// Starts a proxy to this server on another port of the same address.
async fn forward(to: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind((to.ip(), 0)).await.expect("the socket binds");
    let address = listener.local_addr().expect("the socket has an address");
    let task = tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.expect("the server accepts the connection");
                // Both sockets are closed when this returns, so an error needs no handling.
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (address, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_change_does_not_affect_other_pods() {
    let site = Site::start(2).await;
    let port = site.cluster.port();
    let (other, task) = forward(site.cluster.pod(1).address()).await;
    site.publish_srv(&[("pod-a", 0, port), ("pod-b", 1, port)]);
    let pool = site.pool(2, BY_SRV).await;
    let (events, a) = (EventLog::of(&pool), site.sessions(0).await);
    refreshed(&pool, 2).await;
    assert_eq!(events.take(), [""; 0], "events of unchanged SRV records");

    site.publish_srv(&[("pod-a", 0, port), ("pod-b", 1, other.port())]);
    follow(&pool, &[format!("pod-a ({}:{port})", site.ip(0)), format!("pod-b ({other})")]).await;
    let mut ports = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let client = pool.get().await.expect("checkout succeeds");
        client.query_one("SELECT 1", &[]).await.expect("the query succeeds");
        ports.insert(client.endpoint().address().tcp().unwrap().port());
    }
    assert_eq!(ports, [port, other.port()].into());
    // The pool may have opened more connections, but has closed none.
    assert!(site.sessions(0).await.is_superset(&a), "the unchanged Pod lost sessions");
    site.end(pool).await;
    task.abort();
}
