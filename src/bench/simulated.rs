use std::{sync::Arc, time::Duration};

use crate::{
    balance::{Chooser, Policy, Rng, select, select_fast},
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

/// A simulated client. It uses the library's own set of Pods, counters, health states, latencies and policies, with a
/// clock that the simulation controls. Pods are identified by number, in the order in which they were added.
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
    latency: Latency,
    outlier: Outlier,
    /// Number of statements since the last tick, the number of them that failed, and their total duration.
    answered: u64,
    failed: u64,
    took: Duration,
    /// Number of consecutive statements that failed.
    consecutive: u32,
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

    fn slot(&self, _pool: usize) -> &SlotHandle {
        &self.inner.slot
    }

    fn eligibility(&self, _pool: usize) -> Eligibility {
        Eligibility::unrestricted(self.health.state(), Role::Standby)
    }

    fn pod(&self, _pool: usize) -> Arc<Inner> {
        self.inner.clone()
    }

    fn update(&mut self, _: &Endpoint) {}
}

impl SimulatedClient {
    /// Creates a client with this many Pods, which have not been probed yet.
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

    /// Changes the number of Pods. New Pods have not been probed yet.
    pub fn resize(&mut self, pods: usize) {
        let named: Vec<_> =
            (0..pods as u32).map(|i| Endpoint::new(((0x0a00_0000 + i).to_be_bytes(), 5432).into())).collect();
        let Self { members, rng, .. } = self;
        members.replace(&named, |endpoint, slots| Pod {
            inner: Arc::new(Inner { endpoint: endpoint.clone(), slot: slots.next().expect("one pool") }),
            health: Health::new(),
            latency: Latency::new(rng.unit()),
            outlier: Outlier::default(),
            answered: 0,
            failed: 0,
            took: Duration::ZERO,
            consecutive: 0,
        });
        self.publish();
    }

    /// Picks a Pod that has fewer than `pool_size` connections in use, and counts one more of its connections as in
    /// use.
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
        let fast = chooser.fast_path().and_then(|policy| select_fast(snapshot, any, policy, rng, take));
        fast.or_else(|| select(snapshot, any, chooser, rng, rest, take, |_| {}))
    }

    /// Records a completed statement of this duration on a Pod, and checks in the connection that executed it.
    pub fn answered(&mut self, pod: usize, took: Duration, failed: bool) {
        let pod = &mut self.members.all_mut()[pod];
        pod.inner.slot.checkin();
        pod.answered += 1;
        pod.took += took;
        pod.failed += u64::from(failed);
        pod.consecutive = if failed { pod.consecutive + 1 } else { 0 };
    }

    /// Records that a connection to the Pod broke during a statement.
    pub fn broke(&mut self, pod: usize, now: Duration) {
        self.members.all()[pod].inner.slot.checkin();
        self.apply(pod, HealthEvent::Evidence, now);
    }

    /// Records a passed probe of this duration, or a failed probe.
    pub fn probed(&mut self, pod: usize, took: Option<Duration>, now: Duration) {
        match took {
            Some(took) => {
                self.members.all_mut()[pod].latency.probed(took);
                let alone = (0..self.members.all().len()).all(|other| other == pod || !self.is_healthy(other));
                self.apply(pod, HealthEvent::Passed { alone }, now);
            }
            None => self.apply(pod, HealthEvent::Failed { conclusive: true }, now),
        }
    }

    /// Does the periodic work that a real pool does ten times a second: detects outliers, and updates the Pods'
    /// latencies. `passed` is the time since the last call.
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
            pod.latency.answered(work, work, passed);
            if pod.answered > 0 && pod.outlier.record(&rule, pod.answered, pod.failed, pod.consecutive, at) {
                pod.outlier.clear();
                outliers.push(i);
            }
            (pod.answered, pod.failed, pod.took) = (0, 0, Duration::ZERO);
        }
        outliers.into_iter().for_each(|pod| self.apply(pod, HealthEvent::Evidence, now));
        let members = self.members.all_mut().iter_mut();
        let mut latencies: Vec<_> = members.map(|pod| (Role::Standby, &mut pod.latency)).collect();
        classify(&mut latencies);
        let is_slow = |pod: &Pod| pod.health.state() == State::Healthy && pod.latency.class() > 1;
        let uneven = self.members.all().iter().any(is_slow);
        for pod in self.members.all() {
            pod.inner.slot.set_class(pod.latency.class());
            pod.inner.slot.set_uneven(uneven);
            pod.inner.slot.set_latency(pod.latency.latency());
        }
    }

    /// Returns true if the Pod is healthy.
    #[must_use]
    pub fn is_healthy(&self, pod: usize) -> bool {
        self.members.all()[pod].health.state() == State::Healthy
    }

    /// Returns the Pod's latency class: its latency as a multiple of the fastest Pods' latency.
    #[must_use]
    pub fn slowness(&self, pod: usize) -> u32 {
        self.members.all()[pod].latency.class()
    }

    /// Returns the number of the Pod's connections in use.
    #[must_use]
    pub fn in_flight(&self, pod: usize) -> u32 {
        self.members.all()[pod].inner.slot.in_flight()
    }

    fn apply(&mut self, pod: usize, event: HealthEvent, now: Duration) {
        let now = self.start + now;
        let Pod { health, latency, .. } = &mut self.members.all_mut()[pod];
        let before = health.state();
        if health.apply(event, now).is_some() {
            if (before == State::Healthy) != (health.state() == State::Healthy) {
                *latency = Latency::new(self.rng.unit());
            }
            self.publish();
        }
    }

    fn publish(&mut self) {
        (self.snapshot, _) = self.members.snapshot(LagFallback::Fail);
    }
}
