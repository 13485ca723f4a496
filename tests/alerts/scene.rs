//! One run of a scenario: a pool under a small load, whose metrics are scraped every 15 s of real time.
//!
//! Each scenario runs in a process of its own, so that its log and its metrics contain nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use podpool::{
    Builder, Checkout, Client, Config, Event, Observer, Pool, State, Target, metrics::BUCKETS, testkit::Cluster,
};
use tokio::time::{sleep, timeout};

use crate::{
    SCRAPE,
    common::{in_state, until},
    log::Log,
    raw::{Raw, Values},
};

/// Time limit for each condition that a scenario waits for.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// Scrapes before the fault, one minute.
const BEFORE: usize = 5;
/// Scrapes after the fault, five minutes: longer than the longest `for` of a rule, and its bound for a page.
const AFTER: usize = 20;
/// The pool's name, which does not depend on the port of the servers.
const POOL: &str = "app";

/// The samples of one scrape by series.
type Sample = BTreeMap<String, f64>;

/// An observer that keeps the names of events in the order of their first occurrence. Clones share them.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<&'static str>>>);

impl Observer for Events {
    fn event(&mut self, event: &Event) {
        let mut names = self.0.lock().unwrap();
        if !names.contains(&event.name()) {
            names.push(event.name());
        }
    }
}

/// A run of a scenario.
pub(crate) struct Scene {
    prometheus: PrometheusHandle,
    pub(crate) log: Log,
    events: Events,
    samples: Arc<Mutex<Vec<Sample>>>,
    injected: Option<usize>,
    /// The port of the servers, and their major version.
    servers: Option<(u16, u32)>,
}

impl Scene {
    /// Installs the metrics recorder and the log of this process.
    pub(crate) fn new() -> Self {
        let log = Log::default();
        tracing::subscriber::set_global_default(log.clone()).expect("no subscriber is installed yet");
        let builder = PrometheusBuilder::new().set_buckets(BUCKETS).expect("there are buckets");
        let prometheus = builder.install_recorder().expect("no recorder is installed yet");
        Self { prometheus, log, events: Events::default(), samples: Arc::default(), injected: None, servers: None }
    }

    /// Builds a pool with the Pods' names and these additional URL parameters, waits until all Pods are healthy, starts
    /// the load, and records one minute before the fault.
    pub(crate) async fn healthy(&mut self, cluster: &Cluster, parameters: &str) -> Pool {
        let config = config(&format!("{}{parameters}", cluster.srv_url()));
        let pool = self.idle(cluster, Pool::builder(config)).await;
        self.load(&pool, Target::Any);
        self.before(&pool).await;
        pool
    }

    /// Builds a pool, starts the scrapes, and waits until all Pods are healthy.
    pub(crate) async fn idle(&mut self, cluster: &Cluster, builder: Builder) -> Pool {
        let pool = self.build(cluster, builder);
        until(LIMIT, "all Pods are healthy", || in_state(&pool, State::Healthy) == cluster.len()).await;
        pool
    }

    /// Builds a pool whose start is the fault, and starts the load.
    pub(crate) fn cold(&mut self, cluster: &Cluster, builder: Builder) -> Pool {
        let pool = self.build(cluster, builder);
        self.injected = Some(0);
        self.load(&pool, Target::Any);
        pool
    }

    /// Builds a pool and starts the scrapes, the first one immediately.
    fn build(&mut self, cluster: &Cluster, builder: Builder) -> Pool {
        self.servers = Some((cluster.port(), cluster.postgres_version()));
        let pool = builder.name(POOL).observer(self.events.clone()).build().expect("the pool is built");
        let (scraped, prometheus, samples) = (pool.clone(), self.prometheus.clone(), Arc::clone(&self.samples));
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(SCRAPE);
            loop {
                interval.tick().await;
                scraped.export_metrics();
                samples.lock().unwrap().push(parse(&prometheus.render()));
            }
        });
        pool
    }

    /// Starts five reads and one write per second. No call waits for the one before.
    pub(crate) fn load(&self, pool: &Pool, reads: impl Into<Checkout>) {
        repeat(pool, Duration::from_millis(200), reads.into(), "SELECT 1", Duration::MAX);
        let write = Checkout::new(Target::Primary);
        repeat(pool, Duration::from_secs(1), write, "SELECT txid_current()", Duration::MAX);
    }

    /// Executes a statement five times per second. The application drops each call after `deadline`.
    pub(crate) fn impatient(&self, pool: &Pool, sql: &'static str, deadline: Duration) {
        repeat(pool, Duration::from_millis(200), Checkout::new(Target::Any), sql, deadline);
    }

    /// Waits for the scrapes before the fault, and forgets the events and log lines so far.
    pub(crate) async fn before(&mut self, pool: &Pool) {
        self.scrapes(BEFORE).await;
        assert!(pool.status().endpoints.iter().all(|pod| pod.is_usable()), "{:?}", pool.status());
        self.injected = Some(self.samples.lock().unwrap().len() - 1);
        self.log.clear();
        self.events.0.lock().unwrap().clear();
    }

    /// Waits for an event after the fault.
    pub(crate) async fn event(&self, name: &str) {
        until(LIMIT, name, || self.log.has(name)).await;
    }

    /// Records five minutes after the fault, and returns the result.
    pub(crate) async fn finish(self) -> Raw {
        let injected = self.injected.expect("the scenario has a fault");
        self.scrapes(injected + 1 + AFTER).await;
        let (port, postgres) = self.servers.expect("the scenario has a cluster");
        // Each run has another port. Recordings have PostgreSQL's default instead, so that they can be compared.
        let port = port.to_string();
        let samples = self.samples.lock().unwrap()[..injected + 1 + AFTER].to_vec();
        let names: BTreeSet<_> = samples.iter().flat_map(|sample| sample.keys().cloned()).collect();
        let values = |name: &String| samples.iter().map(|sample| sample.get(name).copied()).collect::<Values>();
        let series = names.iter().map(|name| (name.replace(&port, "5432"), values(name))).collect();
        let mut lines = self.log.lines();
        lines.iter_mut().for_each(|line| line.message = line.message.replace(&port, "5432"));
        let events = self.events.0.lock().unwrap().iter().map(|name| (*name).to_owned()).collect();
        Raw { postgres, injected, events, lines, series }
    }

    /// Waits until there are at least this many scrapes.
    async fn scrapes(&self, count: usize) {
        let limit = SCRAPE * u32::try_from(count).expect("a small number") + LIMIT;
        until(limit, "the scrapes are complete", || self.samples.lock().unwrap().len() >= count).await;
    }
}

pub(crate) fn config(url: &str) -> Config {
    url.parse().expect("the URL parses")
}

/// Executes a statement at this interval, as long as the process runs. Each call is a task of its own, whose failure is
/// part of the scenario.
fn repeat(pool: &Pool, interval: Duration, checkout: Checkout, sql: &'static str, deadline: Duration) {
    let pool = pool.clone();
    tokio::spawn(async move {
        loop {
            let call = pool.clone();
            tokio::spawn(async move {
                let work = |client: Client| async move { client.simple_query(sql).await };
                let _ = timeout(deadline, call.retry(checkout, work)).await;
            });
            sleep(interval).await;
        }
    });
}

/// Returns the samples of a text in Prometheus' format, with the labels that Prometheus adds. Histograms are omitted.
fn parse(text: &str) -> Sample {
    let mut sample = Sample::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (series, value) = line.rsplit_once(' ').expect("a line is a series and a value");
        let (name, labels) = series.split_once('{').expect("every series has labels");
        if !name.contains("_time_seconds") {
            let value = value.parse().expect("the value is a number");
            sample.insert(format!("{name}{{instance=\"app-0:9000\",job=\"app\",{labels}"), value);
        }
    }
    sample
}
