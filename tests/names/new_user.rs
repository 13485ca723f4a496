//! Connects as a new user does: the same few lines of code work with each way to name the servers.

use std::net::Ipv4Addr;

use podpool::{
    Pool, Target,
    testkit::{Cluster, fault_dns::FaultDns},
};

use crate::common::relay::Relay;

/// The program of a new user: reads the number of rows from any server after writing one row to the primary.
async fn program(url: &str) -> Result<i64, Box<dyn std::error::Error>> {
    let pool = Pool::connect(url).await?;
    let client = pool.get_for(Target::Primary).await?;
    client.batch_execute("CREATE TABLE IF NOT EXISTS visits (at timestamptz DEFAULT now())").await?;
    client.execute("INSERT INTO visits DEFAULT VALUES", &[]).await?;
    drop(client);
    let client = pool.get().await?;
    let ready: bool = client.query_one("SELECT true", &[]).await?.get(0);
    assert!(ready);
    let client = pool.get_for(Target::Primary).await?;
    let visits = client.query_one("SELECT count(*) FROM visits", &[]).await?.get(0);
    pool.close().await;
    Ok(visits)
}

async fn run(url: &str) {
    let visits = program(url).await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
    assert_eq!(visits, 1, "{url}");
}

/// Returns the URL of a cluster with other host names, which this name server resolves.
pub(crate) fn with_names(cluster: &Cluster, hosts: &[&str], dns: &FaultDns) -> String {
    let (own, port) = (cluster.dns().address().to_string(), cluster.port());
    let hosts: Vec<_> = hosts.iter().map(|host| format!("{host}:{port}")).collect();
    let url = cluster.url().replace(&format!("{}:{port}", cluster.service()), &hosts.join(","));
    url.replace(&own, &dns.address().to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn localhost_is_the_server_of_this_machine() {
    let cluster = Cluster::builder().pods(1).user("app").database("app").hba("host all all 127.0.0.0/8 trust");
    let cluster = cluster.start().await.expect("the cluster starts");
    // The servers of a cluster do not listen on 127.0.0.1.
    let relay = Relay::start(Ipv4Addr::LOCALHOST, cluster.pod(0).address()).await;
    run(&format!("postgres://app@localhost:{}/app", relay.address.port())).await;
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// As [`localhost_is_the_server_of_this_machine`], with the default port, which may be in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn localhost_needs_no_port() {
    let cluster = Cluster::builder().pods(1).user("visitor").database("visitor").hba("host all all 127.0.0.0/8 trust");
    let cluster = cluster.start().await.expect("the cluster starts");
    match Relay::start_at((Ipv4Addr::LOCALHOST, 5432).into(), cluster.pod(0).address()).await {
        Ok(_relay) => run("postgres://visitor@localhost/visitor").await,
        Err(error) => println!("skipped: cannot listen on 127.0.0.1:5432: {error}"),
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_label_with_two_addresses_names_two_servers() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let dns = FaultDns::start().await.expect("the name server starts");
    let addresses: Vec<_> = cluster.pods().iter().map(|pod| pod.address().ip().to_string()).collect();
    dns.set("db.", &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    run(&with_names(&cluster, &["db"], &dns)).await;
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_hosts_names_a_primary_and_a_standby() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let dns = FaultDns::start().await.expect("the name server starts");
    for (pod, name) in cluster.pods().iter().zip(["a.", "b."]) {
        dns.set(name, &[&pod.address().ip().to_string()]);
    }
    run(&with_names(&cluster, &["a", "b"], &dns)).await;
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubernetes_name_names_all_pods() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    run(&cluster.url()).await;
    cluster.shutdown().await.expect("the cluster shuts down");
}
