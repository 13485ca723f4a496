//! A test site: real Pods, and a name server whose records and faults the tests control.

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
/// Maximum time until the pool follows a change. Adding a Pod takes one refresh interval of one second and a probe;
/// removing a Pod takes a second refresh, which confirms the removal.
pub(crate) const FOLLOW: Duration = Duration::from_secs(10);

/// A cluster and the name server that publishes its Pods.
pub(crate) struct Site {
    pub(crate) cluster: Cluster,
    pub(crate) dns: FaultDns,
}

impl Site {
    /// Starts this many Pods and publishes all of them.
    pub(crate) async fn start(pods: usize) -> Self {
        let cluster = Cluster::start(pods).await.expect("the cluster starts");
        let dns = FaultDns::start().await.expect("the name server starts");
        let site = Self { cluster, dns };
        site.publish(&(0..pods).collect::<Vec<_>>());
        site
    }

    pub(crate) fn ip(&self, ordinal: usize) -> String {
        self.cluster.pod(ordinal).address().ip().to_string()
    }

    /// Sets the Service's address records to these Pods, in this order.
    pub(crate) fn publish(&self, ordinals: &[usize]) {
        let ips: Vec<_> = ordinals.iter().map(|ordinal| self.ip(*ordinal)).collect();
        self.dns.set(SVC, &ips.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Sets the Service's SRV records. Each entry is a Pod's name, the ordinal of its server, and its port.
    pub(crate) fn publish_srv(&self, pods: &[(&str, usize, u16)]) {
        let target = |name: &str| format!("{name}.{SVC}");
        let services = pods.iter().map(|(name, _, port)| service(SRV, *port, &target(name)));
        let glue = pods.iter().map(|(name, ordinal, _)| address(&target(name), TTL, &self.ip(*ordinal)));
        let records: Vec<Record> = services.chain(glue).collect();
        self.dns.set_records(SVC, records);
    }

    /// Returns a URL for the cluster with these name servers and parameters.
    pub(crate) fn url(&self, servers: &[&FaultDns], parameters: &str) -> String {
        let url = self.cluster.url();
        let (before, _) = url.split_once("?nameservers=").expect("the cluster's URL names a name server");
        let servers: Vec<_> = servers.iter().map(|server| server.address().to_string()).collect();
        format!("{before}?nameservers={}&application_name=dns_pool{parameters}", servers.join(","))
    }

    /// Creates a pool that refreshes every second and drains absent Pods without delay. Waits until each of its `pods`
    /// Pods has an idle connection.
    pub(crate) async fn pool(&self, pods: usize, parameters: &str) -> Pool {
        let url = self.url(&[&self.dns], &format!("&refresh_max=1s&detach_linger=0{parameters}"));
        let pool = Pool::connect(&url).await.expect("the pool is created");
        until(FOLLOW, "every Pod is warm", || warm(&pool) == pods).await;
        pool
    }

    /// Returns the backend process ids of the pool's sessions on this Pod.
    pub(crate) async fn sessions(&self, ordinal: usize) -> BTreeSet<i32> {
        let client = self.cluster.client(ordinal).await.expect("the superuser connects");
        let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'dns_pool'";
        client.query(sql, &[]).await.expect("the query succeeds").iter().map(|row| row.get(0)).collect()
    }

    pub(crate) async fn end(self, pool: Pool) {
        drop(pool);
        self.cluster.shutdown().await.expect("the cluster shuts down");
    }
}

/// Returns the number of healthy Pods with an idle connection.
pub(crate) fn warm(pool: &Pool) -> usize {
    pool.status().endpoints.iter().filter(|pod| pod.state == State::Healthy && pod.idle > 0).count()
}

/// Returns the endpoints of the pool's Pods as text.
pub(crate) fn members(pool: &Pool) -> Vec<String> {
    pool.status().endpoints.iter().map(|pod| pod.endpoint.to_string()).collect()
}

/// Waits for `times` more successful refreshes. Returns right after the last one, well before the next.
pub(crate) async fn refreshed(pool: &Pool, times: u64) {
    let before = pool.status().counters.resolve_ok;
    let limit = Duration::from_secs(5 + 3 * times);
    until(limit, "the pool has refreshed the name", || pool.status().counters.resolve_ok >= before + times).await;
}

/// Returns the number of queries of this type.
pub(crate) fn count_of(log: &[Packet], kind: RecordType) -> usize {
    log.iter().filter(|packet| packet.kind == kind).count()
}

/// A recording of a pool's events as text.
#[derive(Clone)]
pub(crate) struct EventLog(Arc<Mutex<Vec<String>>>);

impl EventLog {
    /// Starts recording the pool's events.
    pub(crate) fn of(pool: &Pool) -> Self {
        let log = Self(Arc::default());
        let (mut events, recorded) = (pool.events(), log.clone());
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let text = event.map_or_else(|lagged| lagged.to_string(), |event| event.to_string());
                recorded.0.lock().expect("the lock is not poisoned").push(text);
            }
        });
        log
    }

    /// Removes and returns all recorded events.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("the lock is not poisoned"))
    }

    /// Returns the number of recorded events whose text begins with `prefix`.
    pub(crate) fn count(&self, prefix: &str) -> usize {
        self.0.lock().expect("the lock is not poisoned").iter().filter(|event| event.starts_with(prefix)).count()
    }
}
