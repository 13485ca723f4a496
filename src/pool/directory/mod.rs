//! The directory: the one task that decides which Pods exist, which of them serve, and in which role.
//!
//! The directory receives [`Message`]s from the refresher, the probers and the connections, updates its members, and
//! publishes a new [`View`] when something has changed. No other task changes this state, so decisions need no locks.
//!
//! - [`membership`]: the Pods that exist, from lookup results.
//! - [`subset`]: the Pods that this client uses, and their shares of `max_connections`.
//! - [`health`]: the Pods that serve, from probes and evidence.
//! - [`roles`]: primaries, standbys, fencing and replication lag.
//! - [`drain`] and [`close`]: Pods that have left, and the end of the pool.
//! - [`members`]: the sorted set of members and the snapshot made from it.

mod close;
mod drain;
mod health;
pub(crate) mod member;
pub(crate) mod members;
mod membership;
mod roles;
mod subset;

use std::sync::Arc;

use tokio::{
    select,
    sync::{mpsc, oneshot},
    time::sleep_until,
};

pub(crate) use self::subset::Subset;
use self::{drain::Drain, member::Member, members::Members, roles::READINGS};
use super::{
    inner::Inner,
    pod::{Pod, connect, message::Message, view::View},
};
use crate::{
    discovery::Confirm,
    endpoint::Endpoint,
    event::Event,
    health::{State, fencing::Timelines, lag::Reading},
    time::Instant,
    wire::Class,
};

/// A request to close the pool. The reply is the number of connections that were closed forcibly.
pub(crate) type CloseRequest = oneshot::Sender<usize>;

/// The state of the directory task.
pub(crate) struct Directory {
    inner: Arc<Inner>,
    members: Members<Member>,
    /// All Pods behind the name, if the members can be a subset of them.
    subset: Option<Subset>,
    /// True if the subset must be chosen again.
    reconsider: bool,
    unused: Arc<[Endpoint]>,
    /// Pods that have become healthy. They are warmed at the next publication, if they are still in use then.
    healed: Vec<Arc<Pod>>,
    drain: Drain,
    confirm: Confirm,
    next_serial: u64,
    timelines: Timelines,
    /// Serial number of the primary that `readings` belong to.
    primary: Option<u64>,
    /// Write-ahead log positions of the primary, newest last.
    readings: Vec<Reading>,
    /// Start of the time without a healthy Pod, while there are Pods and none is healthy.
    none_healthy_since: Option<Instant>,
    /// True while the candidates are ejected Pods, because no Pod is healthy.
    no_healthy_pod: bool,
    /// True if a new view must be published.
    changed: bool,
}

impl Directory {
    pub(crate) fn new(inner: Arc<Inner>, subset: Option<Subset>) -> Self {
        Self {
            inner,
            members: Members::new(),
            subset,
            reconsider: false,
            unused: Arc::from([]),
            healed: Vec::new(),
            drain: Drain::default(),
            confirm: Confirm::new(),
            next_serial: 0,
            timelines: Timelines::default(),
            primary: None,
            readings: Vec::with_capacity(READINGS),
            none_healthy_since: None,
            no_healthy_pod: false,
            changed: false,
        }
    }

    /// Handles messages and deadlines until a request to close arrives, and then closes the pool.
    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Message>,
        mut close: mpsc::UnboundedReceiver<CloseRequest>,
    ) {
        let shared = self.inner.shared.clone();
        let request = loop {
            // Enabled before the counts are read, so that no connection's end is missed.
            let closed = shared.connection_closed.notified();
            let mut closed = std::pin::pin!(closed);
            closed.as_mut().enable();
            for endpoint in self.drain.take_finished(Instant::now()) {
                shared.events.emit(Event::EndpointRemoved { endpoint });
            }
            let drained_by = self.drain.next_deadline();
            let abort_at = self.next_abort();
            let choose_at = self.subset.as_ref().and_then(Subset::choose_again_at);
            select! {
                Some(message) = inbox.recv() => {
                    self.handle(message, Instant::now());
                    // One publication for all messages that are already in the inbox.
                    while let Ok(message) = inbox.try_recv() {
                        self.handle(message, Instant::now());
                    }
                    self.publish(Instant::now());
                }
                Some(request) = close.recv() => break request,
                () = closed, if drained_by.is_some() => {}
                () = sleep_until(drained_by.unwrap_or_else(Instant::now)), if drained_by.is_some() => {}
                () = sleep_until(choose_at.unwrap_or_else(Instant::now)), if choose_at.is_some() => {
                    self.reconsider = true;
                    self.publish(Instant::now());
                }
                () = sleep_until(abort_at.unwrap_or_else(Instant::now)), if abort_at.is_some() => {
                    self.abort_unresponsive(Instant::now());
                }
            }
        };
        self.close(request, close).await;
    }

    fn handle(&mut self, message: Message, now: Instant) {
        match message {
            Message::Resolved { result, next_lookup } => {
                let at = self.on_resolved(result, now);
                let _ = next_lookup.send(at); // fails only if the refresher has ended
            }
            Message::Probed { pod, outcome } => self.on_probed(pod, outcome, now),
            Message::Observed { pod, generation, evidence } => self.on_evidence(pod, generation, evidence, now),
            Message::Outlier { pod, cause } => self.on_outlier(pod, cause, now),
            // A failed dial ejects no Pod: the probe decides. With any other class, the Pod is up.
            Message::DialFailed { pod, class: Class::NotReady } => self.probe_now(pod),
            Message::DialFailed { pod, class: Class::Full } => self.on_full(pod, now),
            Message::DialFailed { .. } => {}
            Message::RolesRequested { roles } => self.on_roles_requested(roles),
        }
    }

    // === publication ===

    fn publish(&mut self, now: Instant) {
        self.choose_subset(now);
        for pod in self.healed.drain(..).filter(|pod| !pod.slot.is_closed()) {
            connect::warm(&pod);
        }
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let view = self.view(false);
        self.inner.publish(view);
    }

    fn view(&mut self, closed: bool) -> View {
        let (snapshot, no_healthy_pod) = self.members.snapshot(self.inner.shared.limits.lag_fallback);
        if no_healthy_pod != self.no_healthy_pod {
            self.no_healthy_pod = no_healthy_pod;
            self.inner.shared.events.emit(if no_healthy_pod { Event::NoHealthyPods } else { Event::HealthyPodsAgain });
        }
        let health = self.members.in_order_of_slots(Member::pod_health);
        let healthy = health.iter().any(|pod| pod.state == State::Healthy && pod.fence.is_none());
        self.none_healthy_since = match self.none_healthy_since {
            _ if healthy || health.is_empty() => None,
            since => since.or_else(|| Some(Instant::now())),
        };
        let unused = self.unused.clone();
        View { snapshot, health, unused, none_healthy_since: self.none_healthy_since, closed }
    }
}

impl Drop for Directory {
    /// Ends the pool if the directory ends for any other reason, such as the shutdown of its runtime: no caller waits
    /// for a task that no longer exists.
    fn drop(&mut self) {
        self.inner.end(View { closed: true, ..View::empty() });
        self.inner.shared.events.close();
    }
}
