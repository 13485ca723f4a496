//! One server with several names, and one name with several addresses.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use podpool::{
    Config, Event, Pool,
    testkit::{
        Cluster,
        fault_dns::{Fault, FaultDns},
    },
};
use tempfile::NamedTempFile;
use tokio::{io::AsyncWriteExt as _, net::TcpListener, task::JoinHandle};

use crate::{SOON, common, local::resolver, new_user::with_names};

/// Returns a password file with one line for this host.
fn passfile(host: &str, cluster: &Cluster) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a password file");
    let password = cluster.password().replace('\\', "\\\\").replace(':', "\\:");
    fs::write(file.path(), format!("{host}:*:*:*:{password}\n")).expect("the file is written");
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).expect("the permissions are set");
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_two_hosts_has_the_password_of_either() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let dns = FaultDns::start().await.expect("the name server starts");
    let ip = cluster.pod(0).address().ip().to_string();
    dns.set("first.", &[&ip]);
    dns.set("second.", &[&ip]);
    for host in ["first", "second"] {
        let file = passfile(host, &cluster);
        let url = with_names(&cluster, &["first", "second"], &dns);
        let (before, after) = url.split_once(&format!(":{}@", encoded_password(&url))).expect("the URL has a password");
        let url = format!("{before}@{after}&refresh_max=1s&passfile={}", file.path().display());
        let pool = Pool::builder(url.parse::<Config>().expect("the URL parses")).build().expect("a pool");
        // The host without an entry may be resolved first. Logins fail until the other one is resolved too.
        drop(
            common::first_checkout(&pool, SOON).await.unwrap_or_else(|error| panic!("the entry of `{host}`: {error}")),
        );
        assert_eq!(pool.status().endpoints.len(), 1, "equal addresses are one server");
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Returns the password in a URL.
fn encoded_password(url: &str) -> &str {
    let login = url.trim_start_matches("postgres://").split('@').next().expect("a login");
    login.split_once(':').expect("a password").1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_failing_host_is_reported_and_recovers() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let dns = FaultDns::start().await.expect("the name server starts");
    let ip = cluster.pod(0).address().ip().to_string();
    dns.set("a.", &[&ip]);
    dns.set("b.", &[&ip]);
    let url = format!("{}&refresh_max=1s", with_names(&cluster, &["a", "b"], &dns));
    let pool = Pool::connect(&url).await.expect("the pool connects");
    common::until(SOON, "both hosts are resolved", || pool.status().resolve.ok).await;
    let mut events = pool.events();
    let mut sources = async |failed: bool| {
        let mut sources = Vec::new();
        while sources.len() < 2 {
            match events.next().await.expect("an event").expect("no event is lost") {
                Event::ResolveFailed { source, .. } if failed => sources.push(source.to_string()),
                Event::ResolveRecovered { source } if !failed => sources.push(source.to_string()),
                Event::ResolveFailed { .. } | Event::ResolveRecovered { .. } => panic!("in pairs: {sources:?}"),
                _ => {}
            }
        }
        sources.sort();
        sources
    };
    dns.always(Fault::Code(2));
    let failed = sources(true).await;
    dns.heal();
    let recovered = sources(false).await;
    println!("{failed:?}");
    assert_eq!(failed, recovered);
    assert!(failed[0].contains("records of a ") && failed[1].contains("records of b "), "{failed:?}");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Another program that listens on the port of the server, at another address of the machine.
async fn other_program(port: u16, sends: &'static [u8]) -> (SocketAddr, JoinHandle<()>) {
    // In a network that the testkit's servers do not use.
    let listener = TcpListener::bind(("127.77.0.1", port)).await.expect("an address of this machine");
    let address = listener.local_addr().expect("the socket has an address");
    let task = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut client, _)) = listener.accept().await {
            if sends.is_empty() {
                open.push(client); // does not respond
            } else {
                let _ = client.write_all(sends).await; // fails if the client has given up
            }
        }
    });
    (address, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dial_goes_on_with_the_next_address_after_a_failed_startup() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let (port, server) = (cluster.port(), cluster.pod(0).address().ip());
    for (sends, limit) in [(&b"SSH-2.0-OpenSSH_9.9\r\n"[..], Duration::from_secs(1)), (b"", Duration::from_secs(2))] {
        let (other, task) = other_program(port, sends).await;
        let hosts = NamedTempFile::new().expect("a hosts file");
        fs::write(hosts.path(), format!("{} db\n{server} db\n", other.ip())).expect("the file is written");
        let config: Config = format!("{}?connect_timeout=2s", cluster.pod_url(0)).parse().expect("the URL parses");
        let pool = Pool::builder(config).resolver(resolver("db", port, &hosts)).build().expect("a pool");
        let begin = Instant::now();
        let client = pool.get().await.unwrap_or_else(|error| panic!("{sends:?}: {error}"));
        println!("connected {:.0?} after the other program at the first address", begin.elapsed());
        assert_eq!(common::server_addr(&client).await, server.to_string());
        assert!(begin.elapsed() < limit * 2, "{:?}", begin.elapsed());
        assert_eq!(pool.status().counters.open_failed, 0);
        drop((client, pool));
        task.abort();
        let _ = task.await; // closes the port
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}
