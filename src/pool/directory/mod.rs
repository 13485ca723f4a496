//! The directory: the task that decides which Pods exist, which of them serve callers, and in which role.
//!
//! The directory receives [`Message`]s from the refreshers (lookups), the probers and the connections. It updates its
//! members (the Pods in use) and publishes a new [`View`] of them after each change. No other task changes this state,
//! so no locks are needed.
//!
//! - [`membership`] adds and removes Pods after lookups.
//! - [`hosts`] holds the Pods of each configured host.
//! - [`absence`] decides about Pods that are absent from DNS; [`absent`] holds the absence of one of them.
//! - [`alternative`] finds the alternative addresses of dual-stack Pods.
//! - [`subset`] chooses the Pods that this client uses, and divides `max_connections` among them.
//! - [`search`] finds a Pod with a role that no Pod of the subset has.
//! - [`health`] ejects and readmits Pods after probes and evidence from connections.
//! - [`returning`] delays the return of an ejected primary until no other Pod can have been promoted.
//! - [`roles`] tracks primaries, standbys, fencing and replication lag.
//! - [`drain`] drains Pods that are no longer used, and [`close`] closes the pool.
//! - [`members`] holds the sorted set of members and builds snapshots.

mod absence;
mod absent;
mod alternative;
mod close;
mod drain;
mod freshness;
mod health;
mod hosts;
pub(crate) mod member;
pub(crate) mod members;
mod membership;
mod returning;
mod roles;
mod search;
mod subset;

use std::sync::Arc;

use tokio::{
    select,
    sync::{mpsc, oneshot},
    task::yield_now,
    time::sleep_until,
};

pub(crate) use self::subset::Subset;
use self::{drain::Drain, freshness::Suspensions, hosts::Hosts, member::Member, members::Members, roles::READINGS};
use super::{
    inner::Inner,
    pod::{
        message::Message,
        shared::Shared,
        view::{PodHealth, View},
    },
};
use crate::{
    discovery::Losses,
    endpoint::Endpoint,
    event::Event,
    health::{fencing::Timelines, lag::Reading},
    time::{Duration, Instant},
    unwind::{PanicSource, catch},
    wire::Class,
};

/// Maximum delay before a change is published while the directory handles further messages.
const PUBLISH_WITHIN: Duration = Duration::from_millis(10);

/// A request to close the pool. The response is the number of connections that were closed forcibly.
pub(crate) type CloseRequest = oneshot::Sender<usize>;

/// The directory's channel of messages. When it is dropped, because the pool is closed or its runtime shuts down, all
/// waiters fail instead of waiting until their deadlines.
struct Inbox {
    messages: mpsc::UnboundedReceiver<Message>,
    shared: Arc<Shared>,
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.messages.close(); // before the waiters are woken, because they check whether the channel is closed
        self.shared.waiters.close();
    }
}

/// The state of the directory task.
pub(crate) struct Directory {
    inner: Arc<Inner>,
    members: Members<Member>,
    /// All Pods behind the Service name. `None` if this client uses all of them.
    subset: Option<Subset>,
    /// True if the subset of Pods that this client uses must be chosen again before the next publication.
    reconsider: bool,
    unused: Arc<[Endpoint]>,
    drain: Drain,
    hosts: Hosts,
    /// Bit set of the targets that callers have requested.
    requested_targets: u32,
    /// The missing Pods and targets for which the Service name is looked up frequently.
    losses: Losses,
    /// True if the absent Pods must be judged again although nothing else has changed.
    review_absences: bool,
    next_serial: u64,
    timelines: Timelines,
    /// The highest timeline of the pool's cluster at the last evaluation of the claims.
    newest_timeline: Option<u32>,
    /// Serial number of the primary that reported the positions in `readings`.
    primary: Option<u64>,
    /// Recent write-ahead log positions of the primary, newest last.
    readings: Vec<Reading>,
    suspensions: Suspensions,
    /// Start of the current period in which no Pod is healthy and unfenced. `None` if such a Pod exists or if there are
    /// no Pods.
    none_healthy_since: Option<Instant>,
    /// True while no Pod is healthy, so that ejected Pods are used as candidates.
    no_healthy_pod: bool,
    /// True if the state has changed and a new view must be published.
    changed: bool,
}

impl Directory {
    pub(crate) fn new(inner: Arc<Inner>, subset: Option<Subset>) -> Self {
        let limits = &inner.shared.limits;
        let requested_targets = inner.config.target().bit();
        Self {
            members: Members::new(),
            subset,
            reconsider: false,
            unused: Arc::from([]),
            drain: Drain::default(),
            hosts: Hosts::new(inner.hosts(), limits.absent_pods),
            requested_targets,
            losses: Losses::default(),
            review_absences: true,
            next_serial: 0,
            timelines: Timelines::default(),
            newest_timeline: None,
            primary: None,
            readings: Vec::with_capacity(READINGS),
            suspensions: Suspensions::default(),
            none_healthy_since: None,
            no_healthy_pod: false,
            changed: false,
            inner,
        }
    }

    /// Handles messages and deadlines until a close request arrives, and then closes the pool.
    pub(crate) async fn run(
        mut self,
        inbox: mpsc::UnboundedReceiver<Message>,
        mut close: mpsc::UnboundedReceiver<CloseRequest>,
    ) {
        let shared = self.inner.shared.clone();
        let mut inbox = Inbox { messages: inbox, shared: shared.clone() };
        let request = loop {
            // `closed` is registered before the connections are counted, so that a connection that closes in between is
            // not missed.
            let closed = shared.connection_closed.notified();
            let mut closed = std::pin::pin!(closed);
            closed.as_mut().enable();
            for endpoint in self.drain.take_finished(Instant::now()) {
                self.step(|_| shared.events.emit(Event::EndpointRemoved { endpoint }));
            }
            let drained_by = self.drain.next_deadline();
            let abort_at = self.next_abort();
            let absence_ends_at = self.next_absence_end();
            let choose_at = self.subset.as_ref().and_then(Subset::choose_again_at);
            select! {
                Some(message) = inbox.messages.recv() => {
                    self.step(|directory| directory.handle(message, Instant::now()));
                    // Messages that are already in the channel share one publication, which is delayed by at most
                    // `PUBLISH_WITHIN`.
                    let started = Instant::now();
                    while started.elapsed() < PUBLISH_WITHIN
                        && let Ok(message) = inbox.messages.try_recv()
                    {
                        self.step(|directory| directory.handle(message, Instant::now()));
                        yield_now().await;
                    }
                    self.step(|directory| directory.publish(Instant::now()));
                }
                Some(request) = close.recv() => break request,
                () = closed, if drained_by.is_some() => {}
                () = sleep_until(drained_by.unwrap_or_else(Instant::now)), if drained_by.is_some() => {}
                () = sleep_until(choose_at.unwrap_or_else(Instant::now)), if choose_at.is_some() => {
                    self.reconsider = true;
                    self.step(|directory| directory.publish(Instant::now()));
                }
                () = sleep_until(absence_ends_at.unwrap_or_else(Instant::now)), if absence_ends_at.is_some() => {
                    self.review_absences = true;
                    self.step(|directory| directory.publish(Instant::now()));
                }
                () = sleep_until(abort_at.unwrap_or_else(Instant::now)), if abort_at.is_some() => {
                    self.step(|directory| directory.abort_unresponsive(Instant::now()));
                }
            }
        };
        self.close(request, close).await;
    }

    /// Runs one step. If the step panics, reports the panic and continues with the state that the step has left behind.
    fn step(&mut self, work: impl FnOnce(&mut Self)) {
        if let Err(panic) = catch(|| work(self)) {
            self.inner.shared.events.panicked(PanicSource::Directory, &panic);
        }
    }

    fn handle(&mut self, message: Message, now: Instant) {
        match message {
            Message::Resolved { host, result, next_lookup } => {
                let at = self.on_resolved(host, result, now);
                let _ = next_lookup.send(at); // fails only if the refresher has ended
            }
            Message::Probed { pod, outcome } => self.on_probed(pod, outcome, now),
            Message::Observed { pod, generation, evidence } => self.on_evidence(pod, generation, evidence, now),
            Message::Outlier { pod, cause } => self.on_outlier(pod, cause, now),
            // A failed dial triggers a probe but does not eject the Pod. Dial failures of classes other than `NotReady`
            // do not mean that the Pod is down.
            Message::DialFailed { pod, class: Class::NotReady } => {
                self.probe_now(pod);
                self.test_now(pod);
                self.inner.shared.look_up_now();
            }
            Message::DialFailed { pod, class: Class::Full } => self.on_full(pod, now),
            Message::DialFailed { .. } => {}
            Message::TestRefused { pod, attempt } => self.on_test_refused(pod, attempt, now),
            Message::TargetsRequested { targets } => self.on_targets_requested(targets),
            Message::Starving { targets } => self.on_starving(targets, now),
            Message::ForgetHistory => self.forget_history(now),
        }
    }

    // === publication ===

    fn publish(&mut self, now: Instant) {
        // Before the subset is chosen, so that an alternative address does not replace a Pod.
        self.judge_alternatives();
        self.choose_subset(now);
        self.judge_absences(now);
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let view = self.view(false);
        self.inner.publish(view);
    }

    fn view(&mut self, closed: bool) -> View {
        // Before the snapshot, which makes the Pods candidates.
        self.members.all().iter().for_each(|member| member.pod.slot.set_is_current(member.is_primary()));
        let (snapshot, no_healthy_pod) = self.members.snapshot(self.inner.shared.limits.lag_fallback);
        if no_healthy_pod != self.no_healthy_pod {
            self.no_healthy_pod = no_healthy_pod;
            self.inner.shared.events.emit(if no_healthy_pod { Event::NoHealthyPods } else { Event::HealthyPodsAgain });
        }
        self.members.all().iter().for_each(Member::update_condition);
        let health = self.members.in_order_of_slots(Member::pod_health);
        let healthy = health.iter().any(PodHealth::is_usable);
        self.none_healthy_since = match self.none_healthy_since {
            _ if healthy || health.is_empty() => None,
            since => since.or_else(|| Some(Instant::now())),
        };
        let unused = self.unused.clone();
        View { snapshot, health, unused, none_healthy_since: self.none_healthy_since, closed }
    }
}

impl Drop for Directory {
    /// Ends the pool even if the directory ends without a close request, for example because its runtime shuts down.
    /// Without this, callers would wait for a task that no longer exists.
    fn drop(&mut self) {
        self.inner.end(View { closed: true, ..View::empty() });
        self.inner.shared.events.close();
    }
}
