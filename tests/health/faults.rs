//! Tests that no read fails when a Pod terminates or its connections break. Each fault is injected twenty times: ten
//! times while the Pod stays in DNS, and ten times while the Pod is being removed from DNS.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use podpool::{
    Endpoint, Target,
    testkit::{Cluster, PodState, Shutdown},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    common::{
        paced::{Paced, Request, Spread, failures},
        until,
    },
    proxy::Proxy,
    setup::{pool, row, run_alone, warm},
};

/// Number of Pods that become faulty in each round, one after another. The primary and one standby stay intact.
const VICTIMS: usize = 5;
/// Number of rounds in which the faulty Pods stay in DNS, and also the number of rounds in which they are removed from
/// DNS.
const ROUNDS: usize = 2;
/// Number of requests between two faults.
const BETWEEN: usize = 100;
/// Number of requests after the last fault.
const AFTER: usize = 500;

/// A cluster, and the endpoints that DNS publishes for its Pods.
struct Experiment {
    cluster: Cluster,
    published: Vec<Endpoint>,
}

impl Experiment {
    async fn new() -> Self {
        let cluster = Cluster::start(VICTIMS + 2).await.expect("the cluster starts");
        let published = cluster.pods().iter().map(|pod| pod.endpoint().clone()).collect();
        Self { cluster, published }
    }

    /// Adds a Pod to DNS.
    fn publish(&self, ordinal: usize) {
        let endpoint = self.published[ordinal].clone();
        self.cluster.dns().add(self.cluster.service(), endpoint).expect("the Pod is added to DNS");
    }

    /// Removes a Pod from DNS.
    fn unpublish(&self, ordinal: usize) {
        let endpoint = &self.published[ordinal];
        self.cluster.dns().remove(self.cluster.service(), endpoint).expect("the Pod is removed from DNS");
    }

    /// Injects the fault into one Pod after another under load, and asserts that no read fails. `restore` undoes the
    /// fault.
    async fn run(self, name: &str, fault: impl AsyncFn(&Cluster, usize), restore: impl AsyncFn(&Cluster, usize)) {
        let pods: Vec<IpAddr> = self.published.iter().map(|endpoint| endpoint.address().tcp().unwrap().ip()).collect();
        let (mut slowest, mut retries, mut faults) = (Vec::new(), 0, 0);
        for round in 0..ROUNDS * 2 {
            let dns_follows = round % 2 == 1;
            // Each round uses a new pool, because the ejection time of a Pod grows with each ejection.
            let pool = pool(&self.cluster).await;
            let load = Paced::start(&pool, Target::Any);
            warm(&load, &pods).await;
            let mut moments = Vec::new();
            for victim in 1..=VICTIMS {
                moments.push(Instant::now());
                if dns_follows {
                    self.unpublish(victim);
                }
                fault(&self.cluster, victim).await;
                let count = load.count() + if victim < VICTIMS { BETWEEN } else { AFTER };
                until(Duration::from_secs(30), "the requests after the fault complete", || load.count() >= count).await;
            }
            retries += pool.status().counters.retries;
            let requests = load.stop().await;
            assert_eq!(failures(&requests), BTreeMap::new(), "failed reads after {name}, DNS follows: {dns_follows}");
            for (i, from) in moments.iter().enumerate() {
                let belongs = |request: &&Request| {
                    request.done >= *from && moments.get(i + 1).is_none_or(|next| request.done < *next)
                };
                slowest.extend(requests.iter().filter(belongs).map(Request::took).max());
            }
            faults += moments.len();
            drop(pool);
            for victim in 1..=VICTIMS {
                restore(&self.cluster, victim).await;
                if dns_follows {
                    self.publish(victim);
                }
            }
        }
        let slowest = Spread::new(slowest);
        println!(
            "{name}, {faults} faults: no failed read, {retries} retried; slowest read after each fault: {slowest}"
        );
        row(
            &format!("{name}, with and without stale DNS"),
            &format!("no failed read in {faults} faults, {retries} reads retried"),
            &format!("slowest read {:.1?} (p95)", slowest.at(0.95)),
        );
        self.cluster.shutdown().await.expect("the cluster shuts down");
    }
}

async fn start(cluster: &Cluster, ordinal: usize) {
    cluster.start_pod(ordinal).await.expect("the Pod starts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_succeed_when_a_pod_is_killed() {
    let _alone = run_alone().await;
    let kill = async |cluster: &Cluster, pod| cluster.kill(pod).await.expect("SIGKILL is sent");
    Experiment::new().await.run("SIGKILL", kill, start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_succeed_during_a_fast_shutdown() {
    let _alone = run_alone().await;
    let stop = async |cluster: &Cluster, pod| cluster.stop(pod, Shutdown::Fast).await.expect("the Pod stops");
    Experiment::new().await.run("fast shutdown", stop, start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_succeed_during_a_smart_shutdown() {
    let _alone = run_alone().await;
    // Does not wait until the server exits: the server waits for the pool's sessions, which stay open while the Pod is
    // in DNS.
    let stop = async |cluster: &Cluster, pod: usize| {
        let pid = cluster.pod(pod).pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        kill_process(pid.expect("the Pod runs"), Signal::TERM).expect("SIGTERM is sent");
        // The server refuses new connections once it has logged the shutdown request.
        until(Duration::from_secs(5), "the server is shutting down", || {
            let log = std::fs::read_to_string(cluster.directory().join(cluster.pod(pod).name()).join("log"));
            log.is_ok_and(|log| log.rfind("received smart shutdown request") > log.rfind("ready to accept"))
        })
        .await;
    };
    let restart = async |cluster: &Cluster, pod: usize| {
        if cluster.pod(pod).state() != PodState::Down {
            cluster.stop(pod, Shutdown::Fast).await.expect("the Pod stops");
        }
        start(cluster, pod).await;
    };
    Experiment::new().await.run("smart shutdown", stop, restart).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_succeed_when_backends_are_terminated() {
    let _alone = run_alone().await;
    let terminate = async |cluster: &Cluster, pod| {
        let superuser = cluster.client(pod).await.expect("the superuser connects");
        let all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1";
        let ended: i64 = superuser.query_one(all, &[&cluster.user()]).await.expect("the query succeeds").get(0);
        assert!(ended > 0, "no backend was terminated");
    };
    Experiment::new().await.run("`pg_terminate_backend` on every session", terminate, async |_, _| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_succeed_when_connections_are_reset() {
    let _alone = run_alone().await;
    let mut experiment = Experiment::new().await;
    // Publishes proxies in place of the Pods, because a proxy can reset its connections.
    let mut proxies = BTreeMap::new();
    for ordinal in 1..=VICTIMS {
        let proxy = Proxy::start(experiment.cluster.pod(ordinal).address()).await;
        experiment.unpublish(ordinal);
        experiment.published[ordinal] = Endpoint::new(proxy.address());
        experiment.publish(ordinal);
        proxies.insert(ordinal, proxy);
    }
    let reset = async |_: &Cluster, ordinal: usize| {
        assert!(proxies[&ordinal].reset() > 0, "the proxy had no open connections to reset");
    };
    experiment.run("RST of all connections", reset, async |_, _| {}).await;
}
