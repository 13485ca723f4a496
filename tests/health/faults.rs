//! Faults that must not fail a read, each of them twenty times: ten while DNS goes on naming the Pod, ten while it
//! takes the Pod out at that moment.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use podpool::{
    Endpoint, Target,
    testkit::{Cluster, Shutdown, State},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    common::{
        paced::{Paced, Request, Spread, failures},
        until,
    },
    proxy::Proxy,
    stage::{alone, pool, row, warm},
};

/// Pods that it happens to, one after the other, under one load; a primary and another Pod are left alone.
const VICTIMS: usize = 5;
/// Loads, with DNS stale and with DNS that follows.
const ROUNDS: usize = 2;
/// Requests between a fault and the next, and after the last one.
const BETWEEN: usize = 100;
const AFTER: usize = 500;

/// A cluster, and the addresses by which its Pods are named.
struct Stage {
    cluster: Cluster,
    named: Vec<Endpoint>,
}

impl Stage {
    async fn new() -> Self {
        let cluster = Cluster::start(VICTIMS + 2).await.expect("a cluster");
        let named = cluster.pods().iter().map(|pod| pod.endpoint().clone()).collect();
        Self { cluster, named }
    }

    fn name(&self, ordinal: usize) {
        self.cluster.dns().add(self.cluster.service(), self.named[ordinal].clone()).expect("in DNS");
    }

    fn forget(&self, ordinal: usize) {
        self.cluster.dns().remove(self.cluster.service(), &self.named[ordinal]).expect("out of DNS");
    }

    /// Does something bad to one Pod after the other under load and asserts that no read fails. `restore` undoes it.
    async fn survives(self, what: &str, fault: impl AsyncFn(&Cluster, usize), restore: impl AsyncFn(&Cluster, usize)) {
        let pods: Vec<IpAddr> = self.named.iter().map(|endpoint| endpoint.address().ip()).collect();
        let (mut slowest, mut retries, mut faults) = (Vec::new(), 0, 0);
        for round in 0..ROUNDS * 2 {
            let dns_follows = round % 2 == 1;
            // Of its own each time: a Pod that traffic ejects again and again is let back later and later.
            let pool = pool(&self.cluster).await;
            let load = Paced::start(&pool, Target::Any);
            warm(&load, &pods).await;
            let mut moments = Vec::new();
            for victim in 1..=VICTIMS {
                moments.push(Instant::now());
                if dns_follows {
                    self.forget(victim);
                }
                fault(&self.cluster, victim).await;
                let count = load.count() + if victim < VICTIMS { BETWEEN } else { AFTER };
                until(Duration::from_secs(30), "the load goes on", || load.count() >= count).await;
            }
            retries += pool.status().counters.retries;
            let requests = load.stop().await;
            assert_eq!(failures(&requests), BTreeMap::new(), "{what}, DNS follows: {dns_follows}");
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
                    self.name(victim);
                }
            }
        }
        let slowest = Spread::new(slowest);
        println!("{what}, {faults} faults: no failed read, {retries} repeated; the slowest read after each: {slowest}");
        row(
            &format!("{what}, DNS stale or not"),
            &format!("no failed read in {faults} faults, {retries} reads repeated"),
            &format!("slowest read {:.1?} (p95)", slowest.at(0.95)),
        );
        self.cluster.shutdown().await.expect("an orderly end");
    }
}

async fn start(cluster: &Cluster, ordinal: usize) {
    cluster.start_pod(ordinal).await.expect("a start");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_pod_fails_no_read() {
    let _alone = alone().await;
    let kill = async |cluster: &Cluster, pod| cluster.kill(pod).await.expect("SIGKILL");
    Stage::new().await.survives("SIGKILL", kill, start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_shutdown_fails_no_read() {
    let _alone = alone().await;
    let stop = async |cluster: &Cluster, pod| cluster.stop(pod, Shutdown::Fast).await.expect("a fast shutdown");
    Stage::new().await.survives("fast shutdown", stop, start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smart_shutdown_fails_no_read() {
    let _alone = alone().await;
    // Nobody waits for its end: while the Pod is named, the sessions stay, and the server waits for them.
    let stop = async |cluster: &Cluster, pod: usize| {
        let pid = cluster.pod(pod).pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        kill_process(pid.expect("it runs"), Signal::TERM).expect("SIGTERM");
        // As a caller sees it: whoever comes now is refused.
        until(Duration::from_secs(5), "it is shutting down", || {
            let log = std::fs::read_to_string(cluster.directory().join(cluster.pod(pod).name()).join("log"));
            log.is_ok_and(|log| log.rfind("received smart shutdown request") > log.rfind("ready to accept"))
        })
        .await;
    };
    let start_again = async |cluster: &Cluster, pod: usize| {
        if cluster.pod(pod).state() != State::Down {
            cluster.stop(pod, Shutdown::Fast).await.expect("an end");
        }
        start(cluster, pod).await;
    };
    let stage = Stage::new().await;
    stage.survives("smart shutdown", stop, start_again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminated_backends_fail_no_read() {
    let _alone = alone().await;
    let terminate = async |cluster: &Cluster, pod| {
        let superuser = cluster.client(pod).await.expect("a superuser's connection");
        let all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1";
        let ended: i64 = superuser.query_one(all, &[&cluster.user()]).await.expect("an answer").get(0);
        assert!(ended > 0);
    };
    Stage::new().await.survives("`pg_terminate_backend` of every session", terminate, async |_, _| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_connections_fail_no_read() {
    let _alone = alone().await;
    let mut stage = Stage::new().await;
    // The Pods are named by the addresses of proxies that can reset what they carry.
    let mut proxies = BTreeMap::new();
    for ordinal in 1..=VICTIMS {
        let proxy = Proxy::start(stage.cluster.pod(ordinal).address()).await;
        stage.forget(ordinal);
        stage.named[ordinal] = Endpoint::new(proxy.address());
        stage.name(ordinal);
        proxies.insert(ordinal, proxy);
    }
    let reset = async |_: &Cluster, ordinal: usize| assert!(proxies[&ordinal].reset() > 0, "nothing was carried");
    stage.survives("RST of all connections", reset, async |_, _| {}).await;
}
