//! A server that does not say by itself whether it is a standby: before PostgreSQL 14, and behind some poolers. It is
//! asked, once a connection.

use std::{net::SocketAddr, time::Duration};

use podpool::{Config, Pool, Role, Target, testkit::Cluster};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};

mod common;
use common::until;

/// Passes everything on but the server's word about `in_hot_standby`.
async fn forgetful(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(server).await else { continue };
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            // The end of either side ends the session.
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
async fn a_server_that_does_not_tell_its_role_is_asked() {
    let cluster = Cluster::start(2).await.expect("a cluster");
    for (ordinal, role, target) in [(0, Role::Primary, Target::Primary), (1, Role::Standby, Target::Standby)] {
        let proxy = forgetful(cluster.pod(ordinal).address()).await;
        let url = cluster.pod_url(ordinal).replace(&cluster.pod(ordinal).address().to_string(), &proxy.to_string());
        // What is in the middle knows no TLS.
        let config: Config = format!("{url}?sslmode=disable").parse().expect("a URL");
        let pool = Pool::builder(config).build().expect("a pool");
        let client = pool.get_for(target).await.expect("a connection");
        assert_eq!(client.role(), role);
        let other = if role == Role::Primary { Target::Standby } else { Target::Primary };
        pool.wait_ready(other, Duration::from_millis(300)).await.expect_err("it is not that");
        let known = || pool.status().endpoints[0].role == role;
        until(Duration::from_secs(5), "the role is known", known).await;
    }
    cluster.shutdown().await.expect("an orderly end");
}
