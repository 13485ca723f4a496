//! Lists of hosts: each host has its own lookups, and a host that does not resolve harms no other.

use std::{
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use podpool::{
    Config, Pool, Role, State, Target,
    testkit::{
        Cluster, Shutdown,
        fault_dns::{Fault, FaultDns},
    },
};
use tempfile::NamedTempFile;

use crate::{SOON, common, common::relay::Relay, new_user::with_names};

/// Starts a name server with one name for each Pod: `a`, `b`, and so on.
async fn names(cluster: &Cluster) -> FaultDns {
    let dns = FaultDns::start().await.expect("the name server starts");
    for (pod, name) in cluster.pods().iter().zip(["a.", "b.", "c."]) {
        dns.set(name, &[&pod.address().ip().to_string()]);
    }
    dns
}

fn usable(pool: &Pool) -> usize {
    pool.status().endpoints.iter().filter(|pod| pod.is_usable()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_does_not_resolve_harms_no_other() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let dns = names(&cluster).await;
    let pool = Pool::connect(&with_names(&cluster, &["a", "unknown", "b"], &dns)).await.expect("the pool connects");
    common::until(SOON, "both servers are usable", || usable(&pool) == 2).await;
    for target in [Target::Primary, Target::Standby] {
        drop(pool.get_for(target).await.expect("checkout succeeds"));
    }
    let failed = || pool.status().resolve.error.is_some_and(|error| error.contains("unknown"));
    common::until(SOON, "the failed lookups are reported", failed).await;
    assert!(!pool.status().resolve.ok);
    // A host that stops resolving keeps its server, and a host that starts to resolve adds one.
    dns.set("a.", &[]);
    dns.set("unknown.", &[&cluster.pod(0).address().ip().to_string()]);
    let resolved = || pool.status().resolve.error.is_none_or(|error| !error.contains("unknown"));
    common::until(SOON, "the unknown host resolves", resolved).await;
    assert_eq!((pool.status().endpoints.len(), usable(&pool)), (2, 2), "equal addresses are one server");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_host_leaves_and_the_other_serves_alone() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let dns = names(&cluster).await;
    let url = format!("{}&refresh_max=1s", with_names(&cluster, &["a", "b"], &dns));
    let pool = Pool::connect(&url).await.expect("the pool connects");
    common::until(SOON, "both servers are usable", || usable(&pool) == 2).await;
    // The server of `b` stops and leaves DNS, while the lookups of `a` continue.
    cluster.stop(1, Shutdown::Fast).await.expect("the server stops");
    dns.set("b.", &[]);
    common::until(SOON, "the server of `b` is removed", || pool.status().endpoints.len() == 1).await;
    let begin = Instant::now();
    drop(pool.get().await.expect("checkout succeeds"));
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    // All lookups fail, and the remaining server is kept.
    dns.always(Fault::Code(2));
    common::until(SOON, "lookups fail", || pool.status().resolve.failures >= 2).await;
    assert_eq!((pool.status().endpoints.len(), pool.status().endpoints[0].role), (1, Role::Primary));
    assert_eq!(pool.status().endpoints[0].state, State::Healthy);
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_host_has_its_own_port_and_password() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let mut relays = Vec::new();
    for pod in cluster.pods() {
        relays.push(Relay::start(Ipv4Addr::LOCALHOST, pod.address()).await);
    }
    let (one, two) = (relays[0].address.port(), relays[1].address.port());
    let password = cluster.password().replace('\\', "\\\\").replace(':', "\\:");
    let passfile = NamedTempFile::new().expect("a password file");
    // The first line that matches a host applies, so the password is found only by the host's own name and port.
    let lines = format!(
        "first:{two}:*:*:wrong\nsecond:{one}:*:*:wrong\nfirst:{one}:*:*:{password}\nsecond:{two}:*:*:{password}\n"
    );
    fs::write(passfile.path(), lines).expect("the file is written");
    let (user, database, file) = (cluster.user(), cluster.database(), passfile.path().display());
    let text = format!(
        "host=first,second hostaddr=127.0.0.1,127.0.0.1 port={one},{two} user={user} dbname={database} passfile={file}"
    );
    let config: Config = text.parse().expect("the connection string parses");
    let pool = Pool::builder(config).build().expect("the pool is created");
    for (target, port) in [(Target::Primary, one), (Target::Standby, two)] {
        let client = pool.get_for(target).await.expect("checkout succeeds");
        assert_eq!(client.endpoint().address().tcp().unwrap().port(), port);
    }
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}
