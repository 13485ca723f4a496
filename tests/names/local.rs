//! Names with several local addresses, which are addresses of one server.

use std::{fs, net::SocketAddr};

use podpool::{
    Config, Pool,
    discovery::{Dns, DnsOptions, Resolve as _},
    testkit::{Cluster, Shutdown},
};
use tempfile::NamedTempFile;

use crate::{SOON, common};

/// Returns a resolver for a name whose addresses are in this hosts file, and which queries no name server.
pub(crate) fn resolver(name: &str, port: u16, hosts: &NamedTempFile) -> Dns {
    let mut options = DnsOptions::new(name.parse().expect("the name parses"), port);
    // Nothing listens here, so a query would fail.
    options.nameservers = vec![SocketAddr::from(([127, 0, 0, 1], 9))];
    options.hosts = hosts.path().to_owned();
    Dns::new(options).expect("the resolver is created")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_address_raises_no_event_while_another_address_works() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let (port, server) = (cluster.port(), cluster.pod(0).address().ip());
    let hosts = NamedTempFile::new().expect("a hosts file");
    // Nothing listens on ::1.
    fs::write(hosts.path(), format!("::1 localhost\n{server} localhost\n")).expect("the file is written");
    let config: Config = format!("{}?pool_size=8", cluster.pod_url(0)).parse().expect("the URL parses");
    let pool = Pool::builder(config).resolver(resolver("localhost", port, &hosts)).build().expect("a pool");
    let mut events = pool.events();
    let mut clients = Vec::new();
    for _ in 0..8 {
        // Each checkout needs a new connection.
        let client = pool.get().await.expect("checkout succeeds");
        assert_eq!(common::server_addr(&client).await, server.to_string());
        assert_eq!(client.endpoint().address().tcp().unwrap(), SocketAddr::new("::1".parse().unwrap(), port));
        clients.push(client);
    }
    let client = clients.pop().expect("a client");
    // The request goes to the server that has accepted the connection.
    assert_eq!(common::cancelled(&client).await.as_deref(), Some("57014"));
    drop((client, clients));
    let status = pool.status();
    assert_eq!((status.endpoints.len(), status.counters.open_failed), (1, 0), "{status:?}");
    pool.close().await;
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        seen.push(event.expect("no event is lost"));
    }
    println!("events: {seen:?}");
    let expected =
        ["endpoint_added", "role_changed", "state_changed", "primary_found", "endpoint_drained", "endpoint_removed"];
    assert!(seen.iter().all(|event| expected.contains(&event.name())), "{seen:?}");
    assert!(!seen.iter().any(|event| event.to_string().contains("ejected")), "{seen:?}");
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hosts_file_is_read_again_when_it_changes() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let addresses = [0, 1].map(|pod| cluster.pod(pod).address().ip().to_string());
    let hosts = NamedTempFile::new().expect("a hosts file");
    fs::write(hosts.path(), format!("{} db\n", addresses[0])).expect("the file is written");
    let config: Config = format!("{}?refresh_max=1s", cluster.pod_url(0)).parse().expect("the URL parses");
    let pool = Pool::builder(config).resolver(resolver("db", cluster.port(), &hosts)).build().expect("a pool");
    let client = pool.get().await.expect("checkout succeeds");
    assert_eq!(common::server_addr(&client).await, addresses[0]);
    drop(client);
    // The address moves to another server, as after a restore to another machine.
    fs::write(hosts.path(), format!("# moved\n{} db\n", addresses[1])).expect("the file is written");
    cluster.stop(0, Shutdown::Fast).await.expect("the server stops");
    let uses_other = || {
        let endpoints = pool.status().endpoints;
        endpoints
            .iter()
            .any(|pod| pod.is_usable() && pod.endpoint.address().tcp().unwrap().ip().to_string() == addresses[1])
    };
    common::until(SOON, "the pool uses the new address", uses_other).await;
    let dns = resolver("unknown", cluster.port(), &hosts);
    dns.resolve().await.expect_err("a name that is not in the file is queried in DNS");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}
