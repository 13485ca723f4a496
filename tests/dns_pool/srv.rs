//! F17 and F18: with SRV records a Pod is its name, its address and its port.

use std::net::SocketAddr;

use podpool::Pool;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    common::until,
    site::{FOLLOW, Heard, Site, refreshed, set, warm},
};

const BY_SRV: &str = "&discovery=srv&port_name=postgresql-port";

async fn follow(pool: &Pool, expected: &[String]) {
    until(FOLLOW, "the set follows", || set(pool) == expected).await;
    until(FOLLOW, "every Pod is warm", || warm(pool) == expected.len()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f17_a_name_that_moves_and_an_address_that_is_taken_over_each_get_a_fresh_pool() {
    let site = Site::start(3).await;
    let port = site.cluster.port();
    let written = |name: &str, ordinal: usize| format!("{name} ({}:{port})", site.ip(ordinal));
    site.publish_srv(&[("pod-a", 0, port), ("pod-b", 1, port)]);
    let pool = site.pool(2, BY_SRV).await;
    assert_eq!(set(&pool), [written("pod-a", 0), written("pod-b", 1)]);
    let heard = Heard::of(&pool);
    let [a, b] = [site.sessions(0).await, site.sessions(1).await];

    // Restarted elsewhere: the same name, a new address.
    site.publish_srv(&[("pod-a", 0, port), ("pod-b", 2, port)]);
    follow(&pool, &[written("pod-a", 0), written("pod-b", 2)]).await;
    until(FOLLOW, "the old pool is gone", || heard.count("endpoint_removed") == 1).await;
    assert_eq!(heard.count(&format!("endpoint_added {}", written("pod-b", 2))), 1);
    assert_eq!(heard.count(&format!("endpoint_removed {}", written("pod-b", 1))), 1);
    assert_eq!(site.sessions(0).await, a, "who stays keeps its connections");
    let deadline = std::time::Instant::now() + FOLLOW;
    while !site.sessions(1).await.is_disjoint(&b) {
        assert!(std::time::Instant::now() < deadline, "the old address still has sessions");
    }

    // The address of a Pod that is gone, under another name: nothing of the old one is kept.
    let before = site.sessions(2).await;
    heard.take();
    site.publish_srv(&[("pod-a", 0, port), ("pod-c", 2, port)]);
    follow(&pool, &[written("pod-a", 0), written("pod-c", 2)]).await;
    until(FOLLOW, "the old pool is gone", || heard.count("endpoint_removed") == 1).await;
    assert_eq!(heard.count(&format!("endpoint_added {}", written("pod-c", 2))), 1);
    let deadline = std::time::Instant::now() + FOLLOW;
    while !site.sessions(2).await.is_disjoint(&before) {
        assert!(std::time::Instant::now() < deadline, "a session of the old name is left");
    }
    assert!(!site.sessions(2).await.is_empty());
    assert_eq!(site.sessions(0).await, a);
    site.end(pool).await;
}

/// Another port that leads to a server.
async fn forward(to: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind((to.ip(), 0)).await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let task = tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.expect("the server");
                // The end of one connection, however it comes, is the end of both.
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (address, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f18_a_port_that_changes_is_followed_and_weights_are_not() {
    let site = Site::start(2).await;
    let port = site.cluster.port();
    let (other, task) = forward(site.cluster.pod(1).address()).await;
    site.publish_srv(&[("pod-a", 0, port), ("pod-b", 1, port)]);
    let pool = site.pool(2, BY_SRV).await;
    let (heard, a) = (Heard::of(&pool), site.sessions(0).await);
    refreshed(&pool, 2).await;
    assert_eq!(heard.take(), [""; 0]);

    site.publish_srv(&[("pod-a", 0, port), ("pod-b", 1, other.port())]);
    follow(&pool, &[format!("pod-a ({}:{port})", site.ip(0)), format!("pod-b ({other})")]).await;
    let mut ports = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let client = pool.get().await.expect("a connection");
        client.query_one("SELECT 1", &[]).await.expect("an answer");
        ports.insert(client.endpoint().address().port());
    }
    assert_eq!(ports, [port, other.port()].into());
    // There may be more by now, but those that were open still are.
    assert!(site.sessions(0).await.is_superset(&a));
    site.end(pool).await;
    task.abort();
}
