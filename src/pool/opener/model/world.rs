//! The state of the simulated pool, its transitions, and the checks of its invariants.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use proptest::prelude::*;

use super::{
    super::plan::{Limits, PodState, plan},
    PER_POD, POD_SIZE, POOLED, TARGETS, TOTAL,
    pod::{Conn, Core, Pod},
};
use crate::{
    config::Target,
    endpoint::{Endpoint, slot::Slab},
    error::Phase,
    pool::pod::{
        connection_limit::{ConnectionLimit, Division},
        fleet::Fleet,
        wait_queue::{WaitQueue, Waiting, Wake},
    },
    time::{Duration, Instant},
    wire::Class,
};

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) core: Rc<Core>,
    pub(super) slab: Slab,
    pub(super) pods: Vec<Rc<Pod>>,
    /// Drained Pods. Callers may still use connections to them.
    pub(super) drained: Vec<Rc<Pod>>,
    pub(super) next_caller: usize,
    pub(super) pooled: usize,
    /// Checked-out connections, by the number of the caller that holds them.
    pub(super) in_use: BTreeMap<usize, Conn>,
    /// For each target, the ticket of the caller that was served last.
    pub(super) last_served: BTreeMap<Target, u64>,
}

/// The waiting callers in order of arrival. Each element holds the caller's number, its target, and its place in the
/// queue.
pub(super) type Callers<'a> = Vec<(usize, Target, Waiting<'a, Conn>)>;

pub(super) fn role_targets(primary: bool) -> u32 {
    Target::Any.bit() | if primary { Target::Primary.bit() } else { Target::Standby.bit() }
}

impl World {
    pub(super) fn new() -> Self {
        let limit = ConnectionLimit::new(Some(100));
        Self {
            now: Instant::now(),
            core: Rc::new(Core { queue: WaitQueue::default(), limit }),
            slab: Slab::default(),
            pods: Vec::new(),
            drained: Vec::new(),
            next_caller: 0,
            pooled: POOLED,
            in_use: BTreeMap::new(),
            last_served: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, primary: bool) {
        let slot = self.slab.take();
        slot.set_targets(role_targets(primary));
        self.pods.push(Rc::new(Pod {
            slot,
            idle: Cell::new(0),
            open: Cell::new(0),
            size: Cell::new(0),
            closed: Cell::new(false),
            failure: RefCell::default(),
            dials: RefCell::default(),
            dial: Cell::new((5, true)),
            violated: Cell::new(false),
        }));
    }

    /// Divides the pool's connection limit among the Pods, like `Directory::divide`, and closes surplus idle
    /// connections.
    pub(super) fn divide(&self) {
        let pods = self.pods.len().max(1);
        let pooled = self.pooled.max(pods);
        self.core.limit.set(Division { pooled, per_pod: pooled / pods, remainder: pooled % pods });
        for (i, pod) in self.pods.iter().enumerate() {
            pod.size.set((pooled / pods + usize::from(i < pooled % pods)).min(POD_SIZE));
        }
        self.close_surplus();
    }

    /// Closes surplus idle connections, like the upkeep task, which calls `Pod::reap` periodically. A dial that began
    /// before the last division can end after it, so a Pod can exceed its size at any time.
    pub(super) fn close_surplus(&self) {
        for pod in &self.pods {
            while pod.idle.get() > 0 && pod.open.get() > pod.size.get() {
                pod.idle.set(pod.idle.get() - 1);
                pod.open.set(pod.open.get() - 1);
                self.core.limit.release();
            }
        }
    }

    /// Hands idle connections to waiters, like `Inner::serve_waiters` after the set of Pods has changed.
    pub(super) fn publish(&self) {
        self.divide();
        for pod in &self.pods {
            if self.core.queue.waiting_for(pod.slot.targets()) != 0 {
                pod.slot.set_has_waiters();
                self.core.queue.serve(&pod.slot, || Conn::check_out(&self.core, pod));
            }
        }
    }

    /// Hands idle connections to a caller that has just entered the queue, like `Inner::announce`.
    pub(super) fn announce(&self, target: Target) {
        let candidates = self.pods.iter().filter(|pod| pod.slot.serves(target.bit()));
        for pod in candidates.clone() {
            pod.slot.set_has_waiters();
        }
        for pod in candidates.filter(|pod| pod.idle.get() > 0) {
            self.core.queue.serve(&pod.slot, || Conn::check_out(&self.core, pod));
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits { per_pod: PER_POD, total: TOTAL, permits: self.core.limit.available() }
    }

    pub(super) fn pod_states(&self) -> Vec<PodState> {
        let state = |pod: &Rc<Pod>| PodState {
            targets: pod.slot.targets(),
            permits: pod.size.get().saturating_sub(pod.open.get()),
            openings: pod.dials.borrow().iter().map(|(start, _)| *start).collect(),
            borrowed: None,
            lacking: 0,
            missed: false,
            not_before: pod.failure.borrow().not_before(self.now),
            unresponsive: false,
        };
        self.pods.iter().map(state).collect()
    }

    /// Makes a plan and starts the dials of the plan, like the opener task. Returns the time of the next plan.
    pub(super) fn run_opener(&self) -> Option<Instant> {
        let waiters = self.core.queue.begin_plan();
        let plan = plan(self.now, &self.pod_states(), &waiters, self.limits(), &mut |_| 0);
        self.core.queue.end_plan(plan.openable, plan.starving);
        for index in plan.open {
            let pod = &self.pods[index];
            assert!(self.core.limit.try_acquire() && pod.open.get() < pod.size.get(), "the plan exceeds a limit");
            pod.open.set(pod.open.get() + 1);
            let (millis, _) = pod.dial.get();
            pod.dials.borrow_mut().push((self.now, self.now + Duration::from_millis(millis)));
        }
        plan.again_at
    }

    /// Advances time by `duration`. Runs the dials that end and the plans that are due in this period in chronological
    /// order.
    pub(super) fn pass(&mut self, duration: Duration, callers: &mut Callers<'_>) -> Result<(), TestCaseError> {
        let end = self.now + duration;
        loop {
            let again_at = self.run_opener();
            self.check(callers)?;
            let all = self.pods.iter().chain(&self.drained);
            let dial_ends = all.flat_map(|pod| pod.dials.borrow().iter().map(|(_, at)| *at).collect::<Vec<_>>());
            let next = dial_ends.chain(again_at).min().filter(|at| *at <= end);
            let Some(next) = next else { break };
            self.now = next.max(self.now);
            self.end_dials();
        }
        self.now = end;
        self.run_opener();
        self.check(callers)
    }

    pub(super) fn end_dials(&mut self) {
        for pod in self.pods.iter().chain(&self.drained) {
            let ended: Vec<_> = pod.dials.borrow_mut().extract_if(.., |(_, at)| *at <= self.now).collect();
            for (start, _) in ended {
                let (_, succeeds) = pod.dial.get();
                if succeeds {
                    pod.failure.borrow_mut().clear();
                    pod.idle.set(pod.idle.get() + 1);
                    let flags = pod.slot.flags();
                    self.core.on_check_in(pod, flags.closed(), flags.has_waiters());
                } else {
                    let attempt = Endpoint::new(([127, 0, 0, 1], 5432).into()).attempt(Phase::Tcp, "refused");
                    pod.failure.borrow_mut().dial_failed(
                        Class::NotReady,
                        attempt,
                        start,
                        self.now,
                        Fleet::new(None),
                        0.5,
                    );
                    pod.open.set(pod.open.get() - 1);
                    self.core.limit.release();
                }
            }
        }
    }

    /// Delivers the connections that were handed to waiters, and checks the invariants.
    pub(super) fn check(&mut self, callers: &mut Callers<'_>) -> Result<(), TestCaseError> {
        let mut waiting = Vec::new();
        for (caller, target, mut place) in callers.drain(..) {
            match place.try_woken() {
                Some(Wake::Connection(conn)) => {
                    prop_assert!(!conn.pod.violated.get(), "a connection to a drained Pod was handed over");
                    let before = self.last_served.insert(target, place.ticket());
                    prop_assert!(
                        before.is_none_or(|before| before < place.ticket()),
                        "{target}: a newer waiter was served before an older one"
                    );
                    self.in_use.insert(caller, conn);
                }
                Some(Wake::Reevaluate) => {
                    prop_assert!(false, "a waiter was woken to reevaluate, but the pool was not closed")
                }
                None => waiting.push((caller, target, place)),
            }
        }
        *callers = waiting;
        for pod in &self.pods {
            prop_assert!(pod.open.get() <= POD_SIZE);
            let is_unused = pod.idle.get() > 0 && callers.iter().any(|(_, target, _)| pod.slot.serves(target.bit()));
            prop_assert!(!is_unused, "a caller waits while a Pod that can serve it has an idle connection");
        }
        for pod in &self.drained {
            prop_assert_eq!(pod.idle.get(), 0, "a drained Pod keeps an idle connection");
        }
        prop_assert_eq!(self.core.queue.count(Target::ALL_BITS), callers.len());
        self.check_coverage(callers)
    }

    /// Checks that no Pod has free capacity for a waiter while no connection is being opened for the waiter. Called
    /// after the opener has run.
    pub(super) fn check_coverage(&self, callers: &Callers<'_>) -> Result<(), TestCaseError> {
        let pods = self.pod_states();
        let under_way: usize = pods.iter().map(|pod| pod.openings.len()).sum();
        if under_way >= TOTAL.min(2 * callers.len()) || self.core.limit.available() == 0 {
            return Ok(());
        }
        for target in TARGETS {
            let waiters = callers.iter().filter(|(_, other, _)| *other == target).count();
            let serving = || pods.iter().filter(|pod| pod.targets & target.bit() != 0);
            let openings: usize = serving().map(|pod| pod.openings.len()).sum();
            let free = serving().any(|pod| {
                pod.permits > 0 && pod.openings.len() < PER_POD && pod.not_before.is_none_or(|at| at <= self.now)
            });
            // An opening of this class may be counted for a waiter of another class, so only classes without openings
            // are checked.
            prop_assert!(waiters == 0 || openings > 0 || !free, "{target}: {waiters} waiters, no opening: {pods:?}");
        }
        Ok(())
    }
}
