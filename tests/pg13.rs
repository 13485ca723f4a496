//! Tests that the pool queries the role of servers that do not report `in_hot_standby`: PostgreSQL 13 and older, and
//! servers behind some poolers.

use std::{net::SocketAddr, time::Duration};

use podpool::{Config, Pool, Role, Target, testkit::Cluster};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};

mod common;
use common::until;

/// Starts a proxy that removes `in_hot_standby` from the server's `ParameterStatus` messages. Returns its address.
async fn proxy_without_role(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the port is bound");
    let address = listener.local_addr().expect("the socket has an address");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(server).await else { continue };
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            // The session ends when either side closes its connection.
            tokio::spawn(async move {
                let _ = copy(&mut from_client, &mut to_server).await;
            });
            tokio::spawn(async move {
                loop {
                    let mut header = [0; 5];
                    if from_server.read_exact(&mut header).await.is_err() {
                        break;
                    }
                    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
                    let mut body = vec![0; length - 4];
                    if from_server.read_exact(&mut body).await.is_err() {
                        break;
                    }
                    if header[0] == b'S' && body.starts_with(b"in_hot_standby\0") {
                        continue;
                    }
                    if to_client.write_all(&[&header[..], &body].concat()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_the_role_of_a_server_that_does_not_report_it() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    for (ordinal, role, target) in [(0, Role::Primary, Target::Primary), (1, Role::Standby, Target::Standby)] {
        let proxy = proxy_without_role(cluster.pod(ordinal).address()).await;
        let url = cluster.pod_url(ordinal).replace(&cluster.pod(ordinal).address().to_string(), &proxy.to_string());
        // The proxy does not support TLS.
        let config: Config = format!("{url}?sslmode=disable").parse().expect("the URL parses");
        let pool = Pool::builder(config).build().expect("the pool is created");
        let client = pool.get_for(target).await.expect("checkout succeeds");
        assert_eq!(client.role(), role);
        let other = if role == Role::Primary { Target::Standby } else { Target::Primary };
        pool.wait_ready(other, Duration::from_millis(300)).await.expect_err("the server has the other role");
        let known = || pool.status().endpoints[0].role == role;
        until(Duration::from_secs(5), "the role is known", known).await;
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}
