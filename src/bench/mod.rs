//! Gives this crate's benchmarks access to internal functions, without servers: those of a checkout, and those of the
//! directory, which is the task that maintains the set of Pods. Not part of the public API.

mod simulated;

use std::sync::Arc;

pub use simulated::SimulatedClient;

pub use crate::wire::bench::StatementTap;
use crate::{
    balance::{Chooser, Policy, select, select_fast},
    config::{LagFallback, Target},
    endpoint::{Endpoint, Role, publish::Published, slot::SlotHandle, snapshot::Snapshot},
    health::{State, candidates::Eligibility},
    pool::{
        checkout::thread_cache::{CacheCell, ClearOnExit, ThreadCache},
        directory::members::{MemberInfo, Members},
    },
};

/// A set of healthy Pods, one primary and the rest standbys, managed by the directory's `Members`.
#[derive(Debug)]
pub struct Set {
    members: Members<Pod>,
    published: Published<Snapshot<Arc<Inner>>>,
}

/// A handle that selects Pods of a set in the same way as a checkout.
#[derive(Clone, Debug)]
pub struct Picker {
    published: Published<Snapshot<Arc<Inner>>>,
    chooser: Chooser,
}

#[derive(Clone, Debug)]
struct Pod(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    slot: SlotHandle,
    role: Role,
}

impl MemberInfo for Pod {
    type Pod = Arc<Inner>;

    fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    fn slot(&self, _pool: usize) -> &SlotHandle {
        &self.0.slot
    }

    fn eligibility(&self, _pool: usize) -> Eligibility {
        Eligibility::unrestricted(State::Healthy, self.0.role)
    }

    fn pod(&self, _pool: usize) -> Arc<Inner> {
        self.0.clone()
    }

    fn update(&mut self, _: &Endpoint) {}
}

/// A Pod that counts as having a connection in use until this guard is dropped.
#[derive(Debug)]
pub struct Picked(Arc<Inner>);

impl Drop for Picked {
    fn drop(&mut self) {
        self.0.slot.checkin();
    }
}

impl Set {
    /// Creates and publishes a set of these Pods.
    #[must_use]
    pub fn new(pods: &[Endpoint]) -> Self {
        let mut members = Members::new();
        Self::replace(&mut members, pods);
        let (snapshot, _) = members.snapshot(LagFallback::Fail);
        Self { members, published: Published::new(snapshot) }
    }

    fn replace(members: &mut Members<Pod>, pods: &[Endpoint]) -> bool {
        let mut role = Role::Primary;
        let changed = members.replace(pods, |endpoint, slots| {
            let role = std::mem::replace(&mut role, Role::Standby);
            let slot = slots.next().expect("one pool");
            Pod(Arc::new(Inner { endpoint: endpoint.clone(), slot, role }))
        });
        changed.is_some()
    }

    /// Compares a response from discovery with the set and publishes the changes, as the directory does. The Pods in
    /// the response may be in any order. Returns true if the set changed.
    pub fn apply(&mut self, pods: &[Endpoint]) -> bool {
        let changed = Self::replace(&mut self.members, pods);
        if changed {
            self.publish();
        }
        changed
    }

    /// Publishes a new snapshot of the set, even if nothing changed.
    pub fn publish(&mut self) {
        let (snapshot, _) = self.members.snapshot(LagFallback::Fail);
        self.published.publish(Arc::new(snapshot));
    }

    /// Returns a picker that selects Pods of this set by this policy.
    #[must_use]
    pub fn picker(&self, policy: impl Policy) -> Picker {
        Picker { published: self.published.clone(), chooser: Chooser::new(policy) }
    }
}

thread_local! {
    static LOCAL: CacheCell<Snapshot<Arc<Inner>>> = const { ThreadCache::cell() };
    static END: ClearOnExit<Snapshot<Arc<Inner>>> = const { ClearOnExit::of(&LOCAL) };
}

impl Picker {
    #[inline(always)]
    fn select<R>(&self, take: impl Fn(&Arc<Inner>) -> Option<R>) -> Option<R> {
        let fast = self.chooser.fast_path().and_then(|policy| {
            ThreadCache::with_current(
                &LOCAL,
                &self.published,
                u64::MAX, // the value of a thread that has never verified a clock
                #[inline(always)]
                |snapshot, rng| select_fast(snapshot, Target::Any.index(), policy, rng, &take),
            )
        });
        fast.or_else(|| self.select_slow(take))
    }

    #[cold]
    #[inline(never)]
    fn select_slow<R>(&self, take: impl Fn(&Arc<Inner>) -> Option<R>) -> Option<R> {
        ThreadCache::with(&LOCAL, &END, &self.published, |snapshot, rng, rest| {
            select(snapshot, Target::Any.index(), &self.chooser, rng, rest, take, |_| {})
        })
    }

    /// Picks a Pod. Returns the number of the slot that holds the Pod's counters.
    // `inline(never)` makes the compiler compile this function in this crate, like a real checkout. In the benchmark's
    // crate, not all functions that it calls would be inlined.
    #[inline(never)]
    #[must_use]
    pub fn pick(&self) -> Option<u32> {
        self.select(|pod| Some(pod.slot.number()))
    }

    /// Picks a Pod and counts one of its connections as in use until the result is dropped.
    #[inline(never)]
    #[must_use]
    pub fn pick_counted(&self) -> Option<Picked> {
        self.select(
            #[inline(always)]
            |pod| {
                pod.slot.checkout();
                Some(Picked(pod.clone()))
            },
        )
    }
}
