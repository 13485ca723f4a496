//! Real Pods, and a name server that tells of them what it is told to.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use podpool::{
    Pool, State,
    testkit::{
        Cluster,
        fault_dns::{FaultDns, Packet, Record, RecordType, TTL, address, service},
    },
};

use crate::common::until;

pub(crate) const SVC: &str = "postgresql-svc.k8s-training.svc.cluster.local.";
const SRV: &str = "_postgresql-port._tcp.postgresql-svc.k8s-training.svc.cluster.local.";
/// How long the pool may take to follow a change: a refresh of a second, one more that confirms it, and a probe.
pub(crate) const FOLLOW: Duration = Duration::from_secs(10);

pub(crate) struct Site {
    pub(crate) cluster: Cluster,
    pub(crate) dns: FaultDns,
}

impl Site {
    /// So many Pods, all published.
    pub(crate) async fn start(pods: usize) -> Self {
        let cluster = Cluster::start(pods).await.expect("a cluster");
        let dns = FaultDns::start().await.expect("a name server");
        let site = Self { cluster, dns };
        site.publish(&(0..pods).collect::<Vec<_>>());
        site
    }

    pub(crate) fn ip(&self, ordinal: usize) -> String {
        self.cluster.pod(ordinal).address().ip().to_string()
    }

    /// Makes these Pods the Service's addresses, in this order.
    pub(crate) fn publish(&self, ordinals: &[usize]) {
        let ips: Vec<_> = ordinals.iter().map(|ordinal| self.ip(*ordinal)).collect();
        self.dns.set(SVC, &ips.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Makes these the Service's SRV records: a Pod's name, whose server it is, and its port.
    pub(crate) fn publish_srv(&self, pods: &[(&str, usize, u16)]) {
        let target = |name: &str| format!("{name}.{SVC}");
        let services = pods.iter().map(|(name, _, port)| service(SRV, *port, &target(name)));
        let glue = pods.iter().map(|(name, ordinal, _)| address(&target(name), TTL, &self.ip(*ordinal)));
        let records: Vec<Record> = services.chain(glue).collect();
        self.dns.set_records(SVC, records);
    }

    /// The pool's URL with these name servers and parameters.
    pub(crate) fn url(&self, servers: &[&FaultDns], parameters: &str) -> String {
        let own = self.cluster.url();
        let (before, _) = own.split_once("?nameservers=").expect("the cluster's own name server");
        let servers: Vec<_> = servers.iter().map(|server| server.address().to_string()).collect();
        format!("{before}?nameservers={}&application_name=dns_pool{parameters}", servers.join(","))
    }

    /// A pool that asks every second, with every Pod that is published warm.
    pub(crate) async fn pool(&self, pods: usize, parameters: &str) -> Pool {
        let url = self.url(&[&self.dns], &format!("&refresh_max=1s{parameters}"));
        let pool = Pool::connect(&url).await.expect("a pool");
        until(FOLLOW, "every Pod is warm", || warm(&pool) == pods).await;
        pool
    }

    /// The pool's sessions on a Pod's server, by the server's own word.
    pub(crate) async fn sessions(&self, ordinal: usize) -> BTreeSet<i32> {
        let client = self.cluster.client(ordinal).await.expect("a session");
        let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'dns_pool'";
        client.query(sql, &[]).await.expect("an answer").iter().map(|row| row.get(0)).collect()
    }

    pub(crate) async fn end(self, pool: Pool) {
        drop(pool);
        self.cluster.shutdown().await.expect("an orderly end");
    }
}

/// How many Pods are healthy and have an idle connection.
pub(crate) fn warm(pool: &Pool) -> usize {
    pool.status().endpoints.iter().filter(|pod| pod.state == State::Healthy && pod.idle > 0).count()
}

/// Who exists, as the pool has it.
pub(crate) fn set(pool: &Pool) -> Vec<String> {
    pool.status().endpoints.iter().map(|pod| pod.endpoint.to_string()).collect()
}

/// Waits until so many more answers have come, and ends right after one, with the next a good while off.
pub(crate) async fn refreshed(pool: &Pool, times: u64) {
    let before = pool.status().counters.resolve_ok;
    let limit = Duration::from_secs(5 + 3 * times);
    until(limit, "the name is asked again", || pool.status().counters.resolve_ok >= before + times).await;
}

pub(crate) fn of(log: &[Packet], kind: RecordType) -> usize {
    log.iter().filter(|packet| packet.kind == kind).count()
}

/// The pool's events, from now on.
#[derive(Clone)]
pub(crate) struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    pub(crate) fn of(pool: &Pool) -> Self {
        let heard = Self(Arc::default());
        let (mut events, told) = (pool.events(), heard.clone());
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let text = event.map_or_else(|lagged| lagged.to_string(), |event| event.to_string());
                told.0.lock().expect("whole").push(text);
            }
        });
        heard
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("whole"))
    }

    pub(crate) fn count(&self, of: &str) -> usize {
        self.0.lock().expect("whole").iter().filter(|event| event.starts_with(of)).count()
    }
}
