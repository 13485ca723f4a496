//! A pool in the simulated world. Applies actions to the pool and to the world, and lets time pass.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;
use tokio::{
    task::yield_now,
    time::{Duration, Instant, sleep},
};

use super::{
    PROBE, STEP,
    action::{Action, Behavior},
    invariants::bound,
    world::{Lookup, SYSTEM, SharedWorld, World, number, primary, standby},
};
use crate::{
    config::{Config, Limits},
    event::Events,
    health::State,
    pool::{
        Pool,
        inner::Inner,
        pod::{Pod, message::Message, prober::ProbeFactory},
    },
    sync::lock,
    wire::{Class, connection_observer::Evidence, server_facts::ServerFacts},
};

pub(super) struct Simulation {
    pub(super) world: SharedWorld,
    pub(super) inner: Arc<Inner>,
    _pool: Pool,
    /// The pool's events that have not been checked yet.
    pub(super) events: Events,
    /// Time of the last check of these events.
    pub(super) checked_at: Instant,
    /// The serial numbers of the Pods that DNS named at the last check, and the lookup result that was configured then.
    pub(super) last: (BTreeSet<u64>, Lookup),
}

impl Simulation {
    pub(super) fn new() -> Self {
        Self::with(Limits::default())
    }

    /// Creates a pool with these limits.
    pub(super) fn with(limits: Limits) -> Self {
        let world = World::new();
        let lookup = world.lookup;
        let world = SharedWorld(Arc::new(Mutex::new(world)));
        // `min_idle` is 0 so that the pool does not dial.
        let limits = Limits { min_idle: 0, ..limits };
        let config = Config::new("simulated.svc.cluster.local").expect("a name").with_limits(limits);
        let probe = world.clone();
        let probe_factory = ProbeFactory::new(move || Box::new(probe.clone()));
        let pool = Pool::builder(config).resolver(world.clone()).probe_factory(probe_factory).build().expect("a pool");
        let events = pool.events();
        let (checked_at, last) = (Instant::now(), (BTreeSet::new(), lookup));
        Self { inner: pool.0.inner.clone(), world, _pool: pool, events, checked_at, last }
    }

    /// Lets all tasks run until they are idle at the current simulated time.
    pub(super) async fn run_tasks(&self) {
        for _ in 0..12 {
            yield_now().await;
        }
    }

    /// Returns the pool's Pod for the simulated server with this index, and the Pod's state. Returns `None` if the pool
    /// does not use the Pod.
    fn known(&self, pod: usize) -> Option<(Arc<Pod>, State)> {
        let view = self.inner.published.load();
        view.pods().find(|(known, _)| number(known) == pod).map(|(known, health)| (known.clone(), health.state))
    }

    fn send(&self, message: Message) {
        self.inner.shared.send(message);
    }

    pub(super) async fn apply(&mut self, action: Action) -> Result<(), TestCaseError> {
        use Action::*;
        let now = Instant::now();
        let accuse = |pod: usize, old: bool, evidence: Evidence| {
            let (known, state) = self.known(pod)?;
            let generation = known.generation();
            let old = old && generation > 0;
            let generation = if old { generation - 1 } else { generation };
            self.send(Message::Observed { pod: known.serial, pool: self.inner.shared.id, generation, evidence });
            Some((pod, state, old))
        };
        let accused = match action {
            BreakConnection(pod, old) => accuse(pod, old, Evidence::Lost { cause: "reset".into() }),
            EndSession(pod, old) => accuse(pod, old, Evidence::Fatal(*b"57P01")),
            _ => None,
        };
        if let Some((pod, before, old)) = accused {
            self.run_tasks().await;
            if old {
                let state = self.known(pod).map(|(_, state)| state);
                prop_assert_eq!(state, Some(before), "an outdated connection changed the state");
            } else {
                let server = &mut lock(&self.world.0).servers[pod];
                (server.accused, server.served_when_full) = (now, false);
            }
            return Ok(());
        }
        match action {
            Behave(pod, behavior) => {
                let serves = matches!(self.known(pod), Some((_, State::Healthy)));
                let server = &mut lock(&self.world.0).servers[pod];
                // True if the server passes its probes, and no probe that was sent while the server failed is still in
                // flight.
                let passes = server.behavior == Behavior::Passes && now > server.failed_until + PROBE;
                let unharmed = passes || server.served_when_full;
                server.served_when_full = behavior == Behavior::Full && serves && unharmed;
                if bound(server.behavior).is_some() {
                    server.failed_until = now;
                }
                if server.behavior != behavior {
                    (server.behavior, server.since) = (behavior, now);
                }
            }
            Promote(pod) => {
                let mut world = lock(&self.world.0);
                world.timeline += 1;
                let facts = primary(world.timeline);
                world.start(pod, facts);
            }
            RevertToOldPrimary(pod) => lock(&self.world.0).start(pod, primary(1)),
            BecomeStandby(pod) => lock(&self.world.0).start(pod, standby()),
            JoinOtherCluster(pod) => {
                lock(&self.world.0).start(pod, ServerFacts { system: Some(SYSTEM + 1), ..primary(99) });
            }
            ReportRole(pod) => {
                if let Some((known, _)) = self.known(pod) {
                    let mut world = lock(&self.world.0);
                    let role = world.servers[pod].facts.role;
                    if let Some(report) = world.reports.get_mut(&known.serial) {
                        report.reported_role = Some(role);
                    }
                    let (pod, generation) = (known.serial, known.generation());
                    let (pool, evidence) = (self.inner.shared.id, Evidence::Role(role));
                    self.send(Message::Observed { pod, pool, generation, evidence });
                }
            }
            RefuseWrite(pod) => {
                if let Some((known, _)) = self.known(pod) {
                    let (pod, generation) = (known.serial, known.generation());
                    let (pool, evidence) = (self.inner.shared.id, Evidence::WriteRefused);
                    self.send(Message::Observed { pod, pool, generation, evidence });
                }
            }
            FailStatements(pod) => {
                if let Some((known, _)) = self.known(pod) {
                    let server = &mut lock(&self.world.0).servers[pod];
                    (server.accused, server.served_when_full) = (now, false);
                    self.send(Message::Outlier { pod: known.serial, cause: "58030".into() });
                }
            }
            FailDial(pod) => {
                if let Some((known, _)) = self.known(pod) {
                    self.send(Message::DialFailed {
                        pod: known.serial,
                        pool: self.inner.shared.id,
                        class: Class::NotReady,
                    });
                }
            }
            Resolve(bits) => lock(&self.world.0).lookup = Lookup::Pods(bits),
            FailLookups => lock(&self.world.0).lookup = Lookup::Fails,
            ResolveToNone => lock(&self.world.0).lookup = Lookup::NoPods,
            BreakConnection(..) | EndSession(..) | ProbeUrgently(_) => {}
        }
        Ok(())
    }

    /// Lets time pass, and checks the invariants at each step.
    pub(super) async fn pass(&mut self, time: Duration) -> Result<(), TestCaseError> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            sleep(STEP.min(until - Instant::now())).await;
            self.run_tasks().await;
            self.check()?;
        }
        Ok(())
    }
}
