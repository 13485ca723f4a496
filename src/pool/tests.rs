//! The whole pool but for its sockets: the directory, the refresher, the probers and the upkeep as `Builder::build`
//! starts them, on simulated time, against Pods and a name server that are made up. Whatever happens to these, at every
//! moment:
//!
//! - there is a candidate while a Pod that may be believed passes its probes; one of another cluster than ours was before
//!   may be once it passes a probe after all that was said against it;
//! - a Pod that fails its probes is no candidate after a known time, while another passes;
//! - no primary below the highest timeline, no second primary and no Pod of another cluster is a candidate;
//! - a Pod that is full stays, what an old connection saw changes nothing, and neither does a name that does not resolve;
//!
//! and once nothing happens any more, everybody who passes serves.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;
use tokio::{
    task::yield_now,
    time::{Duration, Instant, sleep},
};

use super::{
    Pool,
    inner::Inner,
    pod::{
        Pod,
        message::{Message, Probed},
        prober::{Probe, ProbeFactory},
        urgent_probing::UrgentProbingGuard,
        view::PodHealth,
    },
};
use crate::{
    config::{Config, Limits, Target},
    discovery::{Resolution, Resolve, ResolveError},
    endpoint::{Endpoint, Role},
    error::Phase,
    health::{State, fencing::Fence},
    sync::lock,
    wire::{Class, connection_observer::Evidence, facts::ServerFacts},
};

/// Pods that there can be.
const PODS: usize = 5;
/// How often everything is checked.
const STEP: Duration = Duration::from_millis(100);
/// A TTL, so that the name is asked for often.
const TTL: Duration = Duration::from_secs(3);
/// The longest that a healthy Pod goes without a probe, and how long a probe may take.
const INTERVAL: Duration = Duration::from_millis(6000);
const PROBE: Duration = Duration::from_millis(1000);
/// After this a Pod that passes has been probed for certain, also one that hung before, or is new.
const KNOWN: Duration = Duration::from_secs(4);
/// After this nothing that happened delays anything: the longest back-off, and a few probes.
const QUIET: Duration = Duration::from_secs(45);

/// What a server does with a probe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    Passes,
    /// Nobody listens.
    Refuses,
    /// Nothing is reads.
    Hangs,
    /// Nothing is reads on the probe's connection, and something on another.
    Stalls,
    /// No session is left for the probe (53300).
    Full,
}

/// How long a Pod that answers so may stay a candidate.
fn bound(answer: Answer) -> Option<Duration> {
    match answer {
        Answer::Passes | Answer::Full => None,
        Answer::Refuses => Some(INTERVAL),
        Answer::Hangs => Some(INTERVAL + PROBE),
        // The second look comes a second after the first.
        Answer::Stalls => Some(INTERVAL + PROBE * 3),
    }
}

#[derive(Clone, Copy, Debug)]
enum Happens {
    Answers(usize, Answer),
    /// It becomes the primary of a new timeline.
    Promotes(usize),
    /// It comes back as the primary of the first timeline.
    Returns(usize),
    /// It becomes a standby.
    Follows(usize),
    /// It is another cluster's, on a timeline far above.
    Strays(usize),
    /// A connection broke, was ended with 57P01, or said what the server is; one of before the last clearing, or not.
    Breaks(usize, bool),
    Ends(usize, bool),
    Says(usize),
    RefusesWrite(usize),
    Outlier(usize),
    DialFails(usize),
    /// The name stands for these.
    Named(u8),
    Unresolved,
    NobodyNamed,
    /// Somebody waits for what nobody can offer, or does no longer.
    UrgentProbingGuard(bool),
}

fn happens() -> impl Strategy<Value = Happens> {
    use Happens::*;
    let pod = || 0..PODS;
    let answer = prop_oneof![
        4 => Just(Answer::Passes),
        2 => Just(Answer::Refuses),
        2 => Just(Answer::Hangs),
        1 => Just(Answer::Stalls),
        1 => Just(Answer::Full),
    ];
    prop_oneof![
        8 => (pod(), answer).prop_map(|(pod, answer)| Answers(pod, answer)),
        2 => pod().prop_map(Promotes),
        1 => pod().prop_map(Returns),
        2 => pod().prop_map(Follows),
        1 => pod().prop_map(Strays),
        2 => (pod(), any::<bool>()).prop_map(|(pod, old)| Breaks(pod, old)),
        2 => (pod(), any::<bool>()).prop_map(|(pod, old)| Ends(pod, old)),
        2 => pod().prop_map(Says),
        1 => pod().prop_map(RefusesWrite),
        1 => pod().prop_map(Outlier),
        1 => pod().prop_map(DialFails),
        3 => any::<u8>().prop_map(Named),
        1 => Just(Unresolved),
        1 => Just(NobodyNamed),
        1 => any::<bool>().prop_map(UrgentProbingGuard),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Server {
    answer: Answer,
    facts: ServerFacts,
    /// Since when it answers so.
    since: Instant,
    /// Until when it failed its probes.
    failed: Instant,
    /// When a connection gave evidence against it last.
    accused: Instant,
    /// It served when it became full, and nothing was said against it since.
    full_and_well: bool,
}

/// What a probe, or a connection, has told of a Pod.
#[derive(Clone, Copy, Debug)]
struct Told {
    passed: bool,
    facts: Option<ServerFacts>,
    /// What a connection said it is, after that.
    said: Option<Role>,
    at: Instant,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Names {
    These(u8),
    Unresolved,
    Nobody,
}

#[derive(Debug)]
struct World {
    servers: [Server; PODS],
    names: Names,
    /// By the Pod's serial number.
    told: HashMap<u64, Told>,
    /// The highest timeline told of each cluster.
    newest: BTreeMap<u64, u32>,
    timeline: u32,
}

#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<World>>);

fn endpoint(pod: usize) -> Endpoint {
    Endpoint::new(([10, 0, 0, pod as u8 + 1], 5432).into())
}

fn number(pod: &Pod) -> usize {
    (0..PODS).find(|&i| endpoint(i) == pod.endpoint).expect("one of ours")
}

impl Resolve for Shared {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        let names = lock(&self.0).names;
        Box::pin(async move {
            match names {
                Names::These(bits) => {
                    let these = (0..PODS).filter(|pod| bits & 1 << pod != 0).map(endpoint);
                    Ok(Resolution::new(these.collect(), Instant::now() + TTL))
                }
                Names::Unresolved => Err(ResolveError::other("no name server answers")),
                Names::Nobody => Err(ResolveError::no_pods(None)),
            }
        })
    }

    fn source(&self) -> String {
        "a simulation".into()
    }
}

impl Probe for Shared {
    fn ask<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = Probed> + Send + 'a>> {
        Box::pin(async move {
            let asked = Instant::now();
            let Server { answer, facts, .. } = lock(&self.0).servers[number(pod)];
            let hangs = matches!(answer, Answer::Hangs | Answer::Stalls);
            sleep(if hangs { PROBE } else { Duration::from_millis(1) }).await;
            let at = Instant::now();
            let mut world = lock(&self.0);
            let before = world.told.get(&pod.serial).copied();
            if answer != Answer::Passes {
                let facts = before.and_then(|told| told.facts);
                let said = before.and_then(|told| told.said);
                world.told.insert(pod.serial, Told { passed: false, facts, said, at });
                let class = if answer == Answer::Full { Class::Full } else { Class::NotReady };
                let attempt = pod.endpoint.attempt(Phase::Probe, format!("{answer:?}"));
                let silent = (answer == Answer::Hangs).then_some(asked);
                return Probed::Failed { proven: answer != Answer::Stalls, silent, class, attempt };
            }
            world.told.insert(pod.serial, Told { passed: true, facts: Some(facts), said: None, at });
            if let (Some(system), Some(timeline)) = (facts.system, facts.timeline) {
                let newest = world.newest.entry(system).or_default();
                *newest = timeline.max(*newest);
            }
            Probed::Passed { facts, read_only: false, took: at - asked, asked, at }
        })
    }
}

const SYSTEM: u64 = 7;

fn standby() -> ServerFacts {
    ServerFacts {
        role: Role::Standby,
        system: Some(SYSTEM),
        receiving: Some(true),
        position: Some(1),
        ..ServerFacts::default()
    }
}

fn primary(timeline: u32) -> ServerFacts {
    ServerFacts {
        role: Role::Primary,
        timeline: Some(timeline),
        position: Some(1),
        system: Some(SYSTEM),
        ..ServerFacts::default()
    }
}

struct Simulation {
    world: Shared,
    inner: Arc<Inner>,
    _pool: Pool,
    /// The Pods of the last look, and how the name resolved then.
    last: (BTreeSet<u64>, Names),
}

impl Simulation {
    fn new() -> Self {
        let now = Instant::now();
        let server = Server {
            answer: Answer::Passes,
            facts: standby(),
            since: now,
            failed: now,
            accused: now,
            full_and_well: false,
        };
        let mut servers = [server; PODS];
        servers[0].facts = primary(1);
        let names = Names::These(0b111);
        let world = World { servers, names, told: HashMap::new(), newest: BTreeMap::new(), timeline: 1 };
        let world = Shared(Arc::new(Mutex::new(world)));
        // Nothing is dialled.
        let limits = Limits { min_idle: 0, ..Limits::default() };
        let config = Config::new("simulated.svc.cluster.local").expect("a name").with_limits(limits);
        let ask = world.clone();
        let probe_factory = ProbeFactory::new(move || Box::new(ask.clone()));
        let pool = Pool::builder(config).resolver(world.clone()).probe_factory(probe_factory).build().expect("a pool");
        Self { inner: pool.0.inner.clone(), world, _pool: pool, last: (BTreeSet::new(), names) }
    }

    /// Lets every task do what it can do now.
    async fn recycle(&self) {
        for _ in 0..12 {
            yield_now().await;
        }
    }

    /// The state of a Pod, and what identifies it, if it is known.
    fn known(&self, pod: usize) -> Option<(Arc<Pod>, State)> {
        let view = self.inner.published.load();
        view.pods().find(|(known, _)| number(known) == pod).map(|(known, health)| (known.clone(), health.state))
    }

    async fn happen(&mut self, what: Happens) -> Result<(), TestCaseError> {
        use Happens::*;
        let now = Instant::now();
        let seen = |pod: usize, old: bool, evidence: Evidence| {
            let (known, state) = self.known(pod)?;
            let generation = known.generation();
            let old = old && generation > 0;
            let generation = if old { generation - 1 } else { generation };
            self.inner.shared.tell(Message::Seen { pod: known.serial, generation, evidence });
            Some((pod, state, old))
        };
        let accused = match what {
            Breaks(pod, old) => seen(pod, old, Evidence::Lost { cause: "reset".into(), told: false }),
            Ends(pod, old) => seen(pod, old, Evidence::Fatal(*b"57P01")),
            _ => None,
        };
        if let Some((pod, before, old)) = accused {
            self.recycle().await;
            if old {
                prop_assert_eq!(self.known(pod).map(|(_, state)| state), Some(before), "by an old connection");
            } else {
                let server = &mut lock(&self.world.0).servers[pod];
                (server.accused, server.full_and_well) = (now, false);
            }
            return Ok(());
        }
        match what {
            Answers(pod, answer) => {
                let serves = matches!(self.known(pod), Some((_, State::Healthy)));
                let server = &mut lock(&self.world.0).servers[pod];
                // No probe is under way that it was sent while it failed.
                let passes = server.answer == Answer::Passes && now > server.failed + PROBE;
                let well = passes || server.full_and_well;
                server.full_and_well = answer == Answer::Full && serves && well;
                if bound(server.answer).is_some() {
                    server.failed = now;
                }
                if server.answer != answer {
                    (server.answer, server.since) = (answer, now);
                }
            }
            Promotes(pod) => {
                let mut world = lock(&self.world.0);
                world.timeline += 1;
                let facts = primary(world.timeline);
                world.servers[pod].facts = facts;
            }
            Returns(pod) => lock(&self.world.0).servers[pod].facts = primary(1),
            Follows(pod) => lock(&self.world.0).servers[pod].facts = standby(),
            Strays(pod) => {
                lock(&self.world.0).servers[pod].facts = ServerFacts { system: Some(SYSTEM + 1), ..primary(99) };
            }
            Says(pod) => {
                if let Some((known, _)) = self.known(pod) {
                    let mut world = lock(&self.world.0);
                    let role = world.servers[pod].facts.role;
                    if let Some(told) = world.told.get_mut(&known.serial) {
                        told.said = Some(role);
                    }
                    let (pod, generation) = (known.serial, known.generation());
                    self.inner.shared.tell(Message::Seen { pod, generation, evidence: Evidence::Role(role) });
                }
            }
            RefusesWrite(pod) => {
                if let Some((known, _)) = self.known(pod) {
                    let (pod, generation) = (known.serial, known.generation());
                    self.inner.shared.tell(Message::Seen { pod, generation, evidence: Evidence::WriteRefused });
                }
            }
            Outlier(pod) => {
                if let Some((known, _)) = self.known(pod) {
                    let server = &mut lock(&self.world.0).servers[pod];
                    (server.accused, server.full_and_well) = (now, false);
                    self.inner.shared.tell(Message::Outlier { pod: known.serial, cause: "58030".into() });
                }
            }
            DialFails(pod) => {
                if let Some((known, _)) = self.known(pod) {
                    self.inner.shared.tell(Message::DialFailed { pod: known.serial, class: Class::NotReady });
                }
            }
            Named(bits) => lock(&self.world.0).names = Names::These(bits),
            Unresolved => lock(&self.world.0).names = Names::Unresolved,
            NobodyNamed => lock(&self.world.0).names = Names::Nobody,
            Breaks(..) | Ends(..) | UrgentProbingGuard(_) => {}
        }
        Ok(())
    }

    /// Time passes, and everything is checked all the time.
    async fn pass(&mut self, time: Duration) -> Result<(), TestCaseError> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            sleep(STEP.min(until - Instant::now())).await;
            self.recycle().await;
            self.check()?;
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let now = Instant::now();
        let view = self.inner.published.load();
        let mut world = lock(&self.world.0);
        // Who is fenced does not serve, and is ejected by a probe that is not let in.
        for (pod, _) in view.pods().filter(|(_, health)| health.fence.is_some()) {
            world.servers[number(pod)].full_and_well = false;
        }
        let told = |pod: &Pod| world.told.get(&pod.serial);
        let facts = |pod: &Pod| told(pod).and_then(|told| told.facts);
        let server = |pod: &Pod| &world.servers[number(pod)];
        let candidates = |target: Target| {
            view.snapshot.candidates(target.index()).iter().map(|candidate| view.snapshot.pod(*candidate))
        };
        let serves =
            |pod: &Pod| Target::ALL.into_iter().any(|target| candidates(target).any(|c| c.serial == pod.serial));
        let pods = || view.pods().map(|(pod, _)| pod);

        // What may be told from all that was told. With two clusters about, whom to believe is not ours to say.
        let systems: BTreeSet<_> = pods().filter_map(|pod| facts(pod)?.system).collect();
        let below = |pod: &Pod| {
            let Some(ServerFacts { role: Role::Primary, system: Some(system), timeline, .. }) = facts(pod) else {
                return false;
            };
            timeline < world.newest.get(&system).copied()
        };
        let second = |pod: &Pod| {
            let same = |other: &ServerFacts| {
                other.role == Role::Primary && Some(other.timeline) == facts(pod).map(|f| f.timeline)
            };
            pods().filter(|other| other.serial != pod.serial).filter_map(|other| facts(other)).any(|other| same(&other))
        };
        let believed = |pod: &Pod| {
            let primary = facts(pod).is_some_and(|facts| facts.role == Role::Primary);
            systems.len() == 1 && !below(pod) && !(primary && second(pod))
        };
        let passes = |pod: &Pod| told(pod).is_some_and(|told| told.passed);

        // Of another cluster than ours was, and not to be taken for ours before it passes a probe.
        let strange = |pod: &Pod, health: &PodHealth| {
            let fenced = matches!(health.fence, Some(Fence::OtherSystem { .. }));
            fenced && told(pod).is_some_and(|told| told.at <= server(pod).accused)
        };

        // Somebody serves while anybody could.
        let could = |pod: &Pod, health: &PodHealth| passes(pod) && believed(pod) && !strange(pod, health);
        if let Some((pod, _)) = view.pods().find(|(pod, health)| could(pod, health)) {
            prop_assert!(candidates(Target::Any).next().is_some(), "{} passes: {view:?}", pod.endpoint);
        }
        // Nobody who fails is sent anything, after the bound and while another has passed for long enough.
        let sound = |pod: &Pod| {
            let server = server(pod);
            let first = told(pod).is_some_and(|told| told.facts.is_some());
            let since = server.since.max(server.accused);
            server.answer == Answer::Passes && first && now > since + KNOWN && passes(pod) && believed(pod)
        };
        for pod in pods() {
            let Server { answer, since, full_and_well, .. } = *server(pod);
            if bound(answer).is_some_and(|bound| now > since + bound + STEP)
                && pods().any(|other| other.serial != pod.serial && sound(other))
            {
                prop_assert!(!serves(pod), "{} {answer:?} since {:?}: {view:?}", pod.endpoint, now - since);
            }
            // Who is new has to pass a probe first.
            let well = full_and_well && facts(pod).is_some();
            if answer == Answer::Full && well && believed(pod) {
                prop_assert!(candidates(Target::Any).any(|c| c.serial == pod.serial), "{} is only full", pod.endpoint);
            }
        }
        // Nobody is sent to who is not what it says it is.
        let mut mixed = BTreeSet::new();
        for target in Target::ALL {
            for pod in candidates(target) {
                prop_assert!(facts(pod).is_some(), "{} has never passed a probe", pod.endpoint);
                prop_assert!(!below(pod), "{} is below {:?}: {view:?}", pod.endpoint, world.newest);
                mixed.extend(facts(pod).and_then(|facts| facts.system));
                let role = told(pod).and_then(|told| told.said.or(Some(told.facts?.role)));
                match target {
                    Target::Primary | Target::ReadWrite => prop_assert_eq!(role, Some(Role::Primary)),
                    Target::Standby => prop_assert_eq!(role, Some(Role::Standby)),
                    _ => {}
                }
            }
        }
        prop_assert!(mixed.len() <= 1, "two clusters: {view:?}");
        prop_assert!(candidates(Target::Primary).count() <= 1, "two primaries: {view:?}");
        // Nobody who passes goes because the name does not resolve, or stands for nobody.
        let here: BTreeSet<u64> = pods().map(|pod| pod.serial).collect();
        let (before, names) = std::mem::replace(&mut self.last, (here, world.names));
        if !matches!(world.names, Names::These(1..)) && names == world.names {
            for serial in before.difference(&self.last.0) {
                let told = world.told[serial];
                let recently = |server: &Server| now < server.accused + KNOWN;
                let accused = world.servers.iter().any(recently);
                prop_assert!(!told.passed || accused, "Pod {serial} passed {:?} ago", now - told.at);
            }
        }
        Ok(())
    }

    /// Nothing has happened for long: who passes serves.
    fn check_quiet(&self) -> Result<(), TestCaseError> {
        let view = self.inner.published.load();
        let world = lock(&self.world.0);
        let systems: BTreeSet<_> =
            view.pods().filter_map(|(pod, _)| world.told.get(&pod.serial)?.facts?.system).collect();
        for (pod, health) in view.pods() {
            let server = &world.servers[number(pod)];
            let standby = server.facts.role == Role::Standby;
            if server.answer == Answer::Passes && standby && systems.len() == 1 {
                prop_assert_eq!(health.state, State::Healthy, "{} passes", &pod.endpoint);
                let standbys = view.snapshot.candidates(Target::Standby.index());
                prop_assert!(standbys.iter().any(|c| view.snapshot.pod(*c).serial == pod.serial), "{view:?}");
            }
        }
        Ok(())
    }
}

async fn simulate(history: Vec<(Happens, u64)>) -> Result<(), TestCaseError> {
    let mut simulation = Simulation::new();
    let inner = simulation.inner.clone();
    let mut urgent: Option<UrgentProbingGuard<'_>> = None;
    simulation.pass(Duration::from_secs(2)).await?;
    prop_assert_eq!(inner.published.load().snapshot.candidates(Target::Any.index()).len(), 3, "the beginning");
    for (what, millis) in history {
        if let Happens::UrgentProbingGuard(begins) = what {
            urgent = begins.then(|| urgent.take().unwrap_or_else(|| inner.shared.urgent_probing.begin(Instant::now())));
        }
        simulation.happen(what).await?;
        simulation.recycle().await;
        simulation.check()?;
        simulation.pass(Duration::from_millis(millis)).await?;
    }
    simulation.pass(QUIET).await?;
    simulation.check_quiet()
}

proptest! {
    // Each of them is minutes of simulated time.
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_who_passes_serves_and_who_fails_does_not(
        history in prop::collection::vec((happens(), prop_oneof![Just(0), 0..300u64, 0..9000u64]), 0..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(simulate(history))?;
    }
}
