//! Queries to a cluster's servers and name server.

use std::{collections::BTreeSet, net::IpAddr};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
    proto::rr::{RData, RecordType},
};
use podpool::testkit::Cluster;
use tokio_postgres::NoTls;

/// Connects to one Pod as the application's user, with the Pod's URL.
pub(crate) async fn application(
    cluster: &Cluster,
    pod: usize,
) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(&cluster.pod_url(pod), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Returns the value of a PostgreSQL setting.
pub(crate) async fn setting(cluster: &Cluster, pod: usize, name: &str) -> Result<String, Box<dyn std::error::Error>> {
    Ok(cluster.client(pod).await?.query_one("SELECT current_setting($1)", &[&name]).await?.get(0))
}

/// Returns the rows of the table `t`.
pub(crate) async fn numbers(cluster: &Cluster, pod: usize) -> Result<Vec<i32>, Box<dyn std::error::Error>> {
    let rows = cluster.client(pod).await?.query("SELECT n FROM t ORDER BY n", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Returns the addresses of the cluster's Pods, which the cluster reports without DNS.
pub(crate) fn pod_addresses(cluster: &Cluster) -> BTreeSet<IpAddr> {
    cluster.pods().iter().map(|pod| pod.address().ip()).collect()
}

/// Returns the addresses that the Service's name resolves to.
pub(crate) async fn addresses(cluster: &Cluster) -> Result<BTreeSet<IpAddr>, Box<dyn std::error::Error>> {
    let lookup = resolver(cluster)?.lookup_ip(format!("{}.", cluster.service())).await?;
    Ok(lookup.iter().collect())
}

/// Returns the Pods' names from the SRV records. Panics if a record does not have the Pods' port.
pub(crate) async fn srv_targets(cluster: &Cluster) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let name = format!("_postgresql-port._tcp.{}.", cluster.service());
    let lookup = resolver(cluster)?.lookup(name, RecordType::SRV).await?;
    let mut targets = Vec::new();
    for record in lookup.answers() {
        let RData::SRV(srv) = &record.data else { return Err("not an SRV record".into()) };
        assert_eq!(srv.port, cluster.port());
        targets.push(srv.target.to_string().split('.').next().unwrap_or_default().to_owned());
    }
    targets.sort();
    Ok(targets)
}

fn resolver(cluster: &Cluster) -> Result<TokioResolver, Box<dyn std::error::Error>> {
    let server = cluster.dns().address();
    let mut udp = ConnectionConfig::udp();
    udp.port = server.port();
    let mut tcp = ConnectionConfig::tcp();
    tcp.port = server.port();
    let servers = vec![NameServerConfig::new(server.ip(), true, vec![udp, tcp])];
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    Ok(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build()?)
}
