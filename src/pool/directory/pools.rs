//! The pools of a group: adds and removes them, and publishes a view of the Pods to each.

use std::sync::Arc;

use super::{Directory, drain::Drain, member::Member};
use crate::{
    endpoint::{Role, snapshot::Snapshot},
    event::Event,
    health::State,
    pool::{
        inner::Inner,
        pod::{
            Pod,
            shared::Shared,
            view::{PodHealth, View},
        },
    },
    time::Instant,
};

/// A change to the pools of a group.
#[derive(Debug)]
pub(crate) enum Change {
    /// A pool has joined.
    Joined(Joining),
    /// The pool with this number must be closed.
    Close(u64),
    /// The last handle of the pool with this number was dropped.
    Dropped(u64),
}

/// A pool that joins the group. Dropping it ends the pool, because the directory has ended before it has joined.
#[derive(Debug)]
pub(crate) struct Joining(Option<Arc<Inner>>);

impl Joining {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self(Some(inner))
    }
}

impl Drop for Joining {
    fn drop(&mut self) {
        if let Some(inner) = self.0.take() {
            end(&inner);
        }
    }
}

/// Ends a pool, because the directory has ended.
fn end(inner: &Inner) {
    inner.end(View { closed: true, ..View::empty() });
    inner.close_requests.cancel();
    inner.shared.events.close();
}

/// A pool of the group.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) inner: Arc<Inner>,
    /// Start of the current period in which the pool can use no Pod. `None` if it can use one, or if there are no Pods.
    none_healthy_since: Option<Instant>,
}

impl Joined {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, none_healthy_since: None }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// Ends the pool, because the directory has ended.
    pub(super) fn end(&self) {
        end(&self.inner);
    }
}

impl Directory {
    pub(super) fn apply_change(&mut self, change: Change, now: Instant) {
        match change {
            Change::Joined(mut joining) => joining.0.take().into_iter().for_each(|inner| self.join(inner)),
            Change::Close(pool) => self.begin_close(pool, now),
            Change::Dropped(pool) => {
                if let Some((_, pods)) = self.leave(pool, now) {
                    pods.clear();
                }
            }
        }
        self.reconsider = true;
    }

    /// Adds a pool. Its subscribers are informed of the present state of the Pods.
    fn join(&mut self, inner: Arc<Inner>) {
        let shared = inner.shared.clone();
        self.members.add_pool(|member, slot| {
            // Of the other parts, which are always invalidated together.
            let generation = member.pod.generation();
            member.join(Pod::new(&member.pod.server, slot, generation, shared.clone()));
        });
        self.members.all().iter().flat_map(Member::present).for_each(|event| shared.events.forward(event));
        self.on_targets_requested(inner.config.target().bit());
        self.pools.push(Joined::new(inner));
        self.divide();
        self.changed = true;
    }

    /// Removes a pool. Returns it with the Pods that it was using or draining.
    pub(super) fn leave(&mut self, pool: u64, now: Instant) -> Option<(Arc<Inner>, Drain)> {
        let index = self.pools.iter().position(|joined| joined.shared().id == pool)?;
        let inner = self.pools.remove(index).inner;
        self.group.events.remove(&inner.shared.events);
        let mut pods = self.drain.split_off(pool);
        for endpoint in self.drain.finished_by(&pods) {
            self.group.events.emit(Event::EndpointRemoved { endpoint });
        }
        if self.pools.is_empty() {
            // The members are dropped with the directory, which ends their probers.
            let deadline = now + inner.shared.limits.close_timeout;
            let left: Vec<_> = self.members.all().iter().flat_map(Member::pods).cloned().collect();
            self.members = super::Members::new();
            left.into_iter().for_each(|pod| pods.begin(pod, deadline));
            return Some((inner, pods));
        }
        self.group.urgent_probing.set(pool, false, now);
        self.on_starving(pool, 0, now);
        let mut left = Vec::new();
        self.members.remove_pool(index, |member| left.push(member.leave(index)));
        let deadline = now + inner.shared.limits.close_timeout;
        left.into_iter().for_each(|pod| pods.begin(pod, deadline));
        self.changed = true;
        Some((inner, pods))
    }

    /// Publishes a view of the Pods to each pool.
    pub(super) fn publish_views(&mut self) {
        for member in self.members.all() {
            // Before the snapshots, which make the Pods candidates.
            member.pods().for_each(|pod| pod.slot.set_is_current(member.is_primary()));
        }
        let snapshots = self.members.snapshots(self.group.limits.lag_fallback);
        self.members.all().iter().for_each(Member::update_condition);
        for (pool, snapshot) in snapshots.into_iter().enumerate() {
            let view = self.view(pool, snapshot);
            self.pools[pool].inner.publish(view);
        }
    }

    fn view(&mut self, pool: usize, snapshot: Snapshot<Arc<Pod>>) -> View {
        let health = self.members.in_order_of_slots(pool, |member| member.pod_health(pool));
        let healthy = health.iter().any(PodHealth::is_usable);
        let joined = &mut self.pools[pool];
        joined.none_healthy_since = match joined.none_healthy_since {
            _ if healthy || health.is_empty() => None,
            since => since.or_else(|| Some(Instant::now())),
        };
        let (unused, none_healthy_since) = (self.unused.clone(), joined.none_healthy_since);
        View { snapshot, health, unused, none_healthy_since, closed: false }
    }
}

impl Member {
    /// Returns the events that describe the present state of the Pod to a new subscriber.
    fn present(&self) -> impl Iterator<Item = Event> {
        let endpoint = &self.pod.endpoint;
        let (from, state) = (State::Probing, self.health.state());
        let added = Event::EndpointAdded { endpoint: endpoint.clone() };
        let role = (self.role != Role::Unknown).then(|| {
            let timeline = self.last_probe.filter(|probe| probe.facts.role == self.role);
            let timeline = timeline.and_then(|probe| probe.facts.timeline);
            Event::RoleChanged { endpoint: endpoint.clone(), from: Role::Unknown, to: self.role, timeline }
        });
        let health = (state != from).then(|| Event::StateChanged {
            endpoint: endpoint.clone(),
            from: from.as_str(),
            to: state.as_str(),
            cause: None,
        });
        let primary = self.is_primary();
        let primary = primary.then(|| Event::PrimaryFound { endpoint: endpoint.clone(), after: None });
        std::iter::once(added).chain(role).chain(health).chain(primary)
    }
}
