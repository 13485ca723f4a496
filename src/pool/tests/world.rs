//! The simulated world: the servers that the pool probes, and the Service name that the pool looks up.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
};

use tokio::{
    sync::Notify,
    time::{Duration, Instant, sleep},
};

use super::{PODS, PROBE, TTL, action::Behavior};
use crate::{
    discovery::{Authority, Resolution, Resolve, ResolveError},
    endpoint::{Endpoint, Role},
    error::Phase,
    pool::pod::{
        Pod,
        message::{Message, Probed},
        prober::{Probe, Watched},
        test_dials::TestDial,
    },
    sync::lock,
    wire::{Class, connection_observer::Evidence, server_facts::ServerFacts},
};

/// The system identifier of the pool's cluster.
pub(super) const SYSTEM: u64 = 7;

/// A simulated server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    pub(super) behavior: Behavior,
    pub(super) facts: ServerFacts,
    /// Time at which the current behavior started.
    pub(super) since: Instant,
    /// Time at which the last failing behavior ended.
    pub(super) failed_until: Instant,
    /// Time of the last evidence against the server.
    pub(super) accused: Instant,
    /// True if the server was serving callers when it became full, and there has been no evidence against it since
    /// then.
    pub(super) served_when_full: bool,
}

/// The results that the pool has received about a Pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    /// True if the last probe passed.
    pub(super) passed: bool,
    /// Facts from the last passed probe.
    pub(super) facts: Option<ServerFacts>,
    /// Role that a connection has reported since the last passed probe.
    pub(super) reported_role: Option<Role>,
    /// Time of the last probe.
    pub(super) at: Instant,
}

/// The result of every lookup, until an action changes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lookup {
    /// The name resolves to the Pods in this bit set.
    Pods(u8),
    Fails,
    NoPods,
    /// A source that knows the exact set of Pods names the Pods in the bit set `named`. Those in `leaving` still exist.
    Exact {
        named: u8,
        leaving: u8,
    },
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) servers: [Server; PODS],
    pub(super) lookup: Lookup,
    /// Announces a change of `lookup` to the pool.
    pub(super) changed: Arc<Notify>,
    /// The reports about each Pod, by the Pod's serial number.
    pub(super) reports: HashMap<u64, Report>,
    /// Highest timeline reported by each cluster, by system identifier.
    pub(super) newest: BTreeMap<u64, u32>,
    /// Time at which another report replaced the last report of a primary.
    pub(super) primary_until: Instant,
    /// Timeline that was created by the last promotion.
    pub(super) timeline: u32,
    /// The Pod and the time of each test dial.
    pub(super) test_dials: Vec<(usize, Instant)>,
    /// Number of server starts so far.
    pub(super) starts: u64,
}

/// A handle to the world, which the pool uses as its resolver and as its probe.
#[derive(Clone, Debug)]
pub(super) struct SharedWorld(pub(super) Arc<Mutex<World>>);

pub(super) fn endpoint(pod: usize) -> Endpoint {
    Endpoint::new(([10, 0, 0, pod as u8 + 1], 5432).into())
}

pub(super) fn number(pod: &Pod) -> usize {
    (0..PODS).find(|&i| endpoint(i) == pod.endpoint).expect("a simulated Pod")
}

impl World {
    /// Creates a primary and standbys that pass all probes. The name resolves to the first three servers.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let server = Server {
            behavior: Behavior::Passes,
            facts: standby(),
            since: now,
            failed_until: now,
            accused: now,
            served_when_full: false,
        };
        let mut servers = [server; PODS];
        servers[0].facts = primary(1);
        let lookup = Lookup::Pods(0b111);
        Self {
            servers,
            lookup,
            changed: Arc::default(),
            reports: HashMap::new(),
            newest: BTreeMap::new(),
            primary_until: now,
            timeline: 1,
            starts: 0,
            test_dials: Vec::new(),
        }
    }
}

impl World {
    /// Replaces a server with a newly started one.
    pub(super) fn start(&mut self, pod: usize, facts: ServerFacts) {
        self.starts += 1;
        self.servers[pod].facts = ServerFacts { started: Some(self.starts), ..facts };
    }
}

impl Resolve for SharedWorld {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        let lookup = lock(&self.0).lookup;
        let pods = |bits: u8| (0..PODS).filter(|pod| bits & 1 << pod != 0).map(endpoint).collect();
        Box::pin(async move {
            match lookup {
                Lookup::Pods(bits) => Ok(Resolution::new(pods(bits), Instant::now() + TTL)),
                Lookup::Exact { named, leaving } => {
                    let mut resolution = Resolution::new(pods(named), Instant::now() + TTL);
                    (resolution.authority, resolution.leaving) = (Authority::Exact, pods(leaving));
                    Ok(resolution)
                }
                Lookup::Fails => Err(ResolveError::other("no name server responds")),
                Lookup::NoPods => Err(ResolveError::no_pods(None)),
            }
        })
    }

    fn changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let changed = lock(&self.0).changed.clone();
        Box::pin(async move { changed.notified().await })
    }

    fn source(&self) -> String {
        "a simulation".into()
    }
}

impl Probe for SharedWorld {
    fn watch_for_promotion<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = Watched> + Send + 'a>> {
        Box::pin(async move {
            let mut world = lock(&self.0);
            let Server { behavior, facts, .. } = world.servers[number(pod)];
            if !matches!(behavior, Behavior::Passes | Behavior::Full) {
                return Watched::NoResponse;
            }
            if let Some(report) = world.reports.get_mut(&pod.serial) {
                report.reported_role = Some(facts.role);
            }
            let evidence = Evidence::Role(facts.role);
            let (shared, generation) = (pod.shared(), pod.generation());
            shared.send(Message::Observed { pod: pod.serial, pool: shared.id, generation, evidence });
            Watched::Responded
        })
    }

    fn test_dial<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = TestDial> + Send + 'a>> {
        Box::pin(async move {
            let mut world = lock(&self.0);
            world.test_dials.push((number(pod), Instant::now()));
            let behavior = world.servers[number(pod)].behavior;
            if let (Behavior::Refuses, Some(report)) = (behavior, world.reports.get_mut(&pod.serial)) {
                report.passed = false;
            }
            match behavior {
                Behavior::Refuses => TestDial::Refused(pod.endpoint.attempt(Phase::Tcp, "refused")),
                Behavior::Hangs | Behavior::Stalls => TestDial::TimedOut,
                Behavior::Passes | Behavior::Full => TestDial::Accepted,
            }
        })
    }

    fn probe<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = Probed> + Send + 'a>> {
        Box::pin(async move {
            let sent = Instant::now();
            let Server { behavior, facts, .. } = lock(&self.0).servers[number(pod)];
            let hangs = matches!(behavior, Behavior::Hangs | Behavior::Stalls);
            sleep(if hangs { PROBE } else { Duration::from_millis(1) }).await;
            let received = Instant::now();
            let mut world = lock(&self.0);
            let before = world.reports.get(&pod.serial).copied();
            if behavior != Behavior::Passes {
                let facts = before.and_then(|report| report.facts);
                let reported_role = before.and_then(|report| report.reported_role);
                world.reports.insert(pod.serial, Report { passed: false, facts, reported_role, at: received });
                let class = if behavior == Behavior::Full { Class::Full } else { Class::NotReady };
                let attempt = pod.endpoint.attempt(Phase::Probe, format!("{behavior:?}"));
                let unresponsive_since = (behavior == Behavior::Hangs).then_some(sent);
                let conclusive = behavior != Behavior::Stalls;
                return Probed::Failed { conclusive, unresponsive_since, class, attempt, pool: None };
            }
            let report = Report { passed: true, facts: Some(facts), reported_role: None, at: received };
            if before.and_then(|before| before.facts).is_some_and(|before| before.role == Role::Primary) {
                world.primary_until = received;
            }
            world.reports.insert(pod.serial, report);
            if let (Some(system), Some(timeline)) = (facts.system, facts.timeline) {
                let newest = world.newest.entry(system).or_default();
                *newest = timeline.max(*newest);
            }
            Probed::Passed { facts, read_only: false, took: received - sent, sent, received, pool: None }
        })
    }
}

/// Returns the facts of a standby that receives the first timeline.
pub(super) fn standby() -> ServerFacts {
    ServerFacts {
        role: Role::Standby,
        system: Some(SYSTEM),
        timeline: Some(1),
        receiving_timeline: Some(1),
        receiving: Some(true),
        position: Some(1),
        ..ServerFacts::default()
    }
}

pub(super) fn primary(timeline: u32) -> ServerFacts {
    ServerFacts {
        role: Role::Primary,
        timeline: Some(timeline),
        position: Some(1),
        system: Some(SYSTEM),
        ..ServerFacts::default()
    }
}
