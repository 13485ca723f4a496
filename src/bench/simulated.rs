use std::{sync::Arc, time::Duration};

use crate::{
    balance::{Chooser, Policy, Rng, select, select_at_once},
    config::{LagFallback, Limits, Target},
    endpoint::{
        Endpoint, Role,
        slot::SlotHandle,
        snapshot::{Candidate, Snapshot},
    },
    health::{
        State,
        candidates::Eligibility,
        latency::{Latency, Work, classify},
        outlier::{Outlier, Rule},
        state::{Health, HealthEvent},
    },
    pool::directory::members::{MemberInfo, Members},
    time::Instant,
};

/// A client of a simulation: the library's own set, counts, health, speeds and choice, on a time that the simulation
/// keeps. Pods are told by number, in the order in which they were added.
#[derive(Debug)]
pub struct SimulatedClient {
    members: Members<Pod>,
    snapshot: Snapshot<Arc<Inner>>,
    chooser: Chooser,
    rng: Rng,
    rest: Vec<Candidate>,
    limits: Limits,
    start: Instant,
}

#[derive(Debug)]
struct Pod {
    inner: Arc<Inner>,
    health: Health,
    speed: Latency,
    outlier: Outlier,
    /// Since the last tick.
    answered: u64,
    failed: u64,
    took: Duration,
    /// Failures in a row.
    run: u32,
}

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    slot: SlotHandle,
}

impl MemberInfo for Pod {
    type Pod = Arc<Inner>;

    fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    fn slot(&self) -> &SlotHandle {
        &self.inner.slot
    }

    fn eligibility(&self) -> Eligibility {
        Eligibility { state: self.health.state(), role: Role::Standby, read_only: false, fenced: false, late: false }
    }

    fn pod(&self) -> Arc<Inner> {
        self.inner.clone()
    }
}

impl SimulatedClient {
    /// A client of these many Pods, none of which has been probed yet.
    #[must_use]
    pub fn new(pods: usize, policy: impl Policy, seed: u64) -> Self {
        let mut client = Self {
            members: Members::new(),
            snapshot: Snapshot::empty(),
            chooser: Chooser::new(policy),
            rng: Rng::seeded(seed),
            rest: Vec::new(),
            limits: Limits::default(),
            start: Instant::now(),
        };
        client.resize(pods);
        client
    }

    /// The name stands for so many Pods from now on. The new ones are not probed yet.
    pub fn resize(&mut self, pods: usize) {
        let named: Vec<_> =
            (0..pods as u32).map(|i| Endpoint::new(((0x0a00_0000 + i).to_be_bytes(), 5432).into())).collect();
        let before: Vec<Latency> = self.members.all().iter().map(|pod| pod.speed.clone()).collect();
        self.members.replace(&named, |endpoint, slot| Pod {
            inner: Arc::new(Inner { endpoint: endpoint.clone(), slot }),
            health: Health::new(),
            speed: Latency::new(before.iter()),
            outlier: Outlier::default(),
            answered: 0,
            failed: 0,
            took: Duration::ZERO,
            run: 0,
        });
        self.publish();
    }

    /// Picks a Pod that has a connection left, and counts it out.
    pub fn pick(&mut self) -> Option<usize> {
        let size = self.limits.pool_size as u32;
        let take = |pod: &Arc<Inner>| {
            (pod.slot.in_flight() < size).then(|| {
                pod.slot.checkout();
                pod.slot.number() as usize
            })
        };
        let Self { snapshot, chooser, rng, rest, .. } = self;
        let any = Target::Any.index();
        let at_once = chooser.quick().and_then(|policy| select_at_once(snapshot, any, policy, rng, take));
        at_once.or_else(|| select(snapshot, any, chooser, rng, rest, take, |_| {}))
    }

    /// A statement on a Pod was answered after this time; the connection comes back.
    pub fn answered(&mut self, pod: usize, took: Duration, failed: bool) {
        let pod = &mut self.members.all_mut()[pod];
        pod.inner.slot.checkin();
        pod.answered += 1;
        pod.took += took;
        pod.failed += u64::from(failed);
        pod.run = if failed { pod.run + 1 } else { 0 };
    }

    /// A connection to a Pod broke under a statement.
    pub fn broke(&mut self, pod: usize, now: Duration) {
        self.members.all()[pod].inner.slot.checkin();
        self.fact(pod, HealthEvent::Evidence, now);
    }

    /// A probe was answered after this time, or failed.
    pub fn probed(&mut self, pod: usize, took: Option<Duration>, now: Duration) {
        match took {
            Some(took) => {
                self.members.all_mut()[pod].speed.probed(took);
                let alone = (0..self.members.all().len()).all(|other| other == pod || !self.is_healthy(other));
                self.fact(pod, HealthEvent::Passed { alone }, now);
            }
            None => self.fact(pod, HealthEvent::Failed { proven: true }, now),
        }
    }

    /// What the pool's upkeep does ten times a second.
    pub fn tick(&mut self, passed: Duration, now: Duration) {
        let rule = Rule {
            consecutive: self.limits.outlier_consecutive,
            success_rate: self.limits.outlier_success_rate,
            window: self.limits.outlier_window,
        };
        let at = self.start + now;
        let mut outliers = Vec::new();
        for (i, pod) in self.members.all_mut().iter_mut().enumerate() {
            let work = Work { statements: pod.answered, time: pod.took };
            pod.speed.answered(work, work, passed);
            if pod.answered > 0 && pod.outlier.count(&rule, pod.answered, pod.failed, pod.run, at) {
                pod.outlier.clear();
                outliers.push(i);
            }
            (pod.answered, pod.failed, pod.took) = (0, 0, Duration::ZERO);
        }
        outliers.into_iter().for_each(|pod| self.fact(pod, HealthEvent::Evidence, now));
        let mut speeds: Vec<_> = self.members.all_mut().iter_mut().map(|pod| (Role::Standby, &mut pod.speed)).collect();
        classify(&mut speeds);
        for pod in self.members.all() {
            pod.inner.slot.set_class(pod.speed.class());
            if let Some((latency, peak)) = pod.speed.latency() {
                pod.inner.slot.set_latency(latency, peak);
            }
        }
    }

    /// Whether a Pod is healthy.
    #[must_use]
    pub fn is_healthy(&self, pod: usize) -> bool {
        self.members.all()[pod].health.state() == State::Healthy
    }

    /// How many times slower than the fastest a Pod counts as.
    #[must_use]
    pub fn slowness(&self, pod: usize) -> u32 {
        self.members.all()[pod].speed.class()
    }

    /// Connections of a Pod that are lent out.
    #[must_use]
    pub fn in_flight(&self, pod: usize) -> u32 {
        self.members.all()[pod].inner.slot.in_flight()
    }

    fn fact(&mut self, pod: usize, fact: HealthEvent, now: Duration) {
        let now = self.start + now;
        let Pod { health, speed, .. } = &mut self.members.all_mut()[pod];
        let before = health.state();
        if health.apply(fact, now).is_some() {
            if before == State::Healthy && health.state() != State::Healthy {
                speed.forget();
            }
            self.publish();
        }
    }

    fn publish(&mut self) {
        (self.snapshot, _) = self.members.snapshot(LagFallback::Fail);
    }
}
