//! Name servers and Kubernetes together: what a client resolves while Pods come and go.

use std::{collections::BTreeMap, time::Duration};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RecordType},
};
use podpool_simulation::{
    dns::{CacheSettings, CoreDns, CoreDnsSettings, NameServer, NodeLocal, Replicas, Transport},
    kubernetes::{Cluster, ClusterSettings, ContainerRuntime, PodInfo, Service, Signal, StatefulSet, Uid},
};
use tokio::time::Instant;

/// Processes that are ready after 3 s and end when they are killed.
#[derive(Default)]
struct Processes(BTreeMap<Uid, Instant>);

impl ContainerRuntime for Processes {
    fn start(&mut self, now: Instant, pod: &PodInfo) {
        self.0.insert(pod.uid, now);
    }

    fn signal(&mut self, _: Instant, pod: Uid, signal: Signal) {
        if signal == Signal::Kill {
            self.0.remove(&pod);
        }
    }

    fn is_ready(&mut self, now: Instant, pod: Uid) -> bool {
        now - self.0[&pod] >= Duration::from_secs(3)
    }

    fn remove(&mut self, _: Instant, _: Uid) {}
}

/// A cluster, its name servers, and the time.
struct World {
    now: Instant,
    cluster: Cluster<Processes>,
    names: NodeLocal<Replicas>,
}

impl World {
    fn new(settings: impl Fn(Instant) -> CoreDnsSettings, node_local: CacheSettings) -> Self {
        let now = Instant::now();
        let service = Service::headless("shop", "db", "postgres", 5432);
        let set = StatefulSet {
            pre_stop: Duration::from_secs(20),
            grace: Duration::from_secs(30),
            ..StatefulSet::new("db", 3)
        };
        let random = fastrand::Rng::with_seed;
        let cluster = Cluster::new(now, ClusterSettings::default(), service, set, Processes::default(), random(1));
        let replica = |seed| CoreDns::start(now, settings(now), [], true, random(seed));
        let replicas = Replicas::new(vec![replica(2), replica(3)], random(4));
        Self { now, cluster, names: NodeLocal::new(replicas, node_local, random(5)) }
    }

    /// Runs the cluster for some time. The name servers observe its changes.
    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(next) = self.cluster.next().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            for event in self.cluster.step(self.now) {
                if let Some(change) = event.change() {
                    self.names.upstream().observe(self.now, &change);
                }
            }
        }
        self.now = end;
    }

    /// Asks for the addresses of the Service, and returns their number if the name exists.
    fn resolve(&mut self) -> Option<usize> {
        let name = Name::from_ascii("db.shop.svc.cluster.local.").expect("a name");
        let mut question = Message::query();
        question.queries.push(Query::query(name, RecordType::A));
        let question = question.to_vec().expect("a question");
        let answers = self.names.answer(self.now, &question, Transport::Udp);
        let answer = Message::from_vec(&answers[0].1).expect("an answer");
        (answer.metadata.response_code != ResponseCode::NXDomain).then_some(answer.answers.len())
    }

    /// Resolves every 100 ms until the result is `wanted`, and returns the time that it took.
    fn until(&mut self, wanted: Option<usize>) -> Duration {
        let start = self.now;
        while self.resolve() != wanted {
            assert!(self.now - start < Duration::from_secs(120), "never {wanted:?}");
            self.run(Duration::from_millis(100));
        }
        self.now - start
    }
}

/// A cache that keeps every answer for the shortest time, which is 5 s.
const SHORT: CacheSettings = CacheSettings { success: 0, denial: 0 };

#[test]
fn a_deleted_pod_leaves_the_name_while_its_server_goes_on() {
    let mut world = World::new(CoreDnsSettings::kubeadm, SHORT);
    world.run(Duration::from_secs(30));
    assert_eq!(world.resolve(), Some(3));
    let pod = world.cluster.ordinal(2).expect("it is created").info.uid;
    world.cluster.delete(world.now, pod).expect("the API server is there");
    let gone = world.until(Some(2));
    assert!(gone <= Duration::from_millis(5200), "{gone:?}");
    assert!(world.cluster.runtime().0.contains_key(&pod), "its process runs");
    let back = world.until(Some(3));
    assert!(back > Duration::from_secs(25), "the process ends after its grace period: {back:?}");
}

#[test]
fn a_cold_start_takes_30_s_longer_behind_a_cache_that_was_asked_too_early() {
    let mut early = World::new(CoreDnsSettings::cache_30, CacheSettings::NODE_LOCAL);
    early.run(Duration::from_secs(1));
    assert_eq!(early.resolve(), None);
    let denied = early.until(Some(3));
    assert!(denied >= Duration::from_secs(29), "{denied:?}");
    let mut late = World::new(CoreDnsSettings::cache_30, CacheSettings::NODE_LOCAL);
    late.run(Duration::from_secs(10));
    assert_eq!(late.until(Some(3)), Duration::ZERO);
}
