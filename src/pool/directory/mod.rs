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
//! - [`capacity`] compares the servers' connection limits with the demand of all clients.
//! - [`health`] ejects and readmits Pods after probes and evidence from connections.
//! - [`returning`] delays the return of an ejected primary until no other Pod can have been promoted.
//! - [`roles`] tracks primaries, standbys, fencing and replication lag.
//! - [`outage`] reports the periods without a healthy Pod or without a primary.
//! - [`drain`] drains Pods that are no longer used, and [`close`] closes a pool.
//! - [`members`] holds the sorted set of members and builds snapshots.
//! - [`pools`] adds and removes the pools that share the Pods; [`part`] holds the state of one Pod for one of them.
//! - [`capacity`] checks the servers' connection limits.

mod absence;
mod absent;
mod alternative;
mod capacity;
mod close;
mod drain;
mod freshness;
mod health;
mod hosts;
pub(crate) mod member;
pub(crate) mod members;
mod membership;
mod outage;
mod part;
mod pools;
mod returning;
mod roles;
mod search;
mod subset;

use std::sync::Arc;

use tokio::{select, sync::mpsc, task::yield_now, time::sleep_until};

pub(crate) use self::{
    close::CloseRequests,
    pools::{Change, Joining},
    subset::Subset,
};
use self::{
    drain::Drain, freshness::Suspensions, hosts::Hosts, member::Member, members::Members, outage::Outages,
    pools::Joined, roles::READINGS,
};
use super::{
    inner::Inner,
    pod::{
        group::Group,
        message::{Message, Session},
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

/// The state of the directory task.
pub(crate) struct Directory {
    group: Arc<Group>,
    /// The pools that share the Pods, in the order in which they were built.
    pools: Vec<Joined>,
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
    /// The pools whose callers wait for targets that no Pod can serve, each with the bit set of these targets.
    starving: Vec<(u64, u32)>,
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
    outages: Outages,
    /// True if the state has changed and a new view must be published.
    changed: bool,
}

impl Directory {
    /// Creates the directory of a group with one pool.
    pub(crate) fn new(group: Arc<Group>, first: Arc<Inner>, subset: Option<Subset>) -> Self {
        let requested_targets = first.config.target().bit();
        Self {
            members: Members::new(),
            subset,
            reconsider: false,
            unused: Arc::from([]),
            drain: Drain::default(),
            hosts: Hosts::new(group.resolvers.len(), group.limits.absent_pods),
            requested_targets,
            starving: Vec::new(),
            losses: Losses::default(),
            review_absences: true,
            next_serial: 0,
            timelines: Timelines::default(),
            newest_timeline: None,
            primary: None,
            readings: Vec::with_capacity(READINGS),
            suspensions: Suspensions::default(),
            outages: Outages::new(Instant::now()),
            changed: false,
            pools: vec![Joined::new(first)],
            group,
        }
    }

    /// Handles messages and deadlines until no pool is left.
    pub(crate) async fn run(
        mut self,
        messages: mpsc::UnboundedReceiver<Message>,
        mut changes: mpsc::UnboundedReceiver<Change>,
    ) {
        let group = self.group.clone();
        let mut inbox = messages; // dropped before `self`, so that waiters find out why they fail
        loop {
            if self.pools.is_empty() {
                let Ok(change) = changes.try_recv() else { return };
                self.step(|directory| directory.apply_change(change, Instant::now()));
                continue;
            }
            // `closed` is registered before the connections are counted, so that a connection that closes in between is
            // not missed.
            let closed = group.connection_closed.notified();
            let mut closed = std::pin::pin!(closed);
            closed.as_mut().enable();
            for endpoint in self.drain.take_finished(Instant::now()) {
                self.step(|_| group.events.emit(Event::EndpointRemoved { endpoint }));
            }
            let drained_by = self.drain.next_deadline();
            let abort_at = self.next_abort();
            let absence_ends_at = self.next_absence_end();
            let choose_at = self.subset.as_ref().and_then(Subset::choose_again_at);
            select! {
                Some(message) = inbox.recv() => {
                    self.step(|directory| directory.handle(message, Instant::now()));
                    // Messages that are already in the channel share one publication, which is delayed by at most
                    // `PUBLISH_WITHIN`.
                    let started = Instant::now();
                    while started.elapsed() < PUBLISH_WITHIN
                        && let Ok(message) = inbox.try_recv()
                    {
                        self.step(|directory| directory.handle(message, Instant::now()));
                        yield_now().await;
                    }
                    self.step(|directory| directory.publish(Instant::now()));
                }
                Some(change) = changes.recv() => {
                    self.step(|directory| directory.apply_change(change, Instant::now()));
                    self.step(|directory| directory.publish(Instant::now()));
                }
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
        }
    }

    /// Runs one step. If the step panics, reports the panic and continues with the state that the step has left behind.
    fn step(&mut self, work: impl FnOnce(&mut Self)) {
        if let Err(panic) = catch(|| work(self)) {
            self.group.events.panicked(PanicSource::Directory, &panic);
        }
    }

    fn handle(&mut self, message: Message, now: Instant) {
        match message {
            Message::Resolved { host, result, next_lookup } => {
                let at = self.on_resolved(host, result, now);
                let _ = next_lookup.send(at); // fails only if the refresher has ended
            }
            Message::Probed { pod, outcome } => self.on_probed(pod, outcome, now),
            Message::Observed { pod, pool, generation, evidence } => {
                self.on_evidence(pod, pool, generation, evidence, now);
            }
            Message::Outlier { pod, cause } => self.on_outlier(pod, cause, now),
            // A failed dial triggers a probe but does not eject the Pod. Dial failures of classes other than `NotReady`
            // do not mean that the Pod is down.
            Message::DialFailed { pod, class: Class::NotReady, .. } => {
                self.probe_now(pod);
                self.test_now(pod);
                self.group.look_up_now();
            }
            Message::DialFailed { pod, pool, class } if class.is_permanent() => {
                self.on_session(pod, pool, Session::Refused);
            }
            Message::Session { pod, pool, session } => self.on_session(pod, pool, session),
            Message::DialFailed { pod, class: Class::Full, .. } => self.on_full(pod, now),
            Message::DialFailed { .. } => {}
            Message::TestRefused { pod, attempt } => self.on_test_refused(pod, attempt, now),
            Message::TargetsRequested { targets } => self.on_targets_requested(targets),
            Message::Starving { pool, targets } => self.on_starving(pool, targets, now),
            // A client with a subset may have to search a primary.
            Message::LagDemanded => self.reconsider = true,
            Message::ForgetHistory => self.forget_history(now),
        }
    }

    // === publication ===

    fn publish(&mut self, now: Instant) {
        if self.pools.is_empty() {
            return; // the last pool has just left, and the directory ends
        }
        // Before the subset is chosen, so that an alternative address does not replace a Pod.
        self.judge_alternatives();
        self.choose_subset(now);
        self.judge_absences(now);
        self.report_outages(now);
        if !std::mem::take(&mut self.changed) {
            return;
        }
        self.publish_views();
    }
}

impl Drop for Directory {
    /// Ends the pools even if the directory ends before them, for example because its runtime shuts down. Without this,
    /// callers would wait for a task that no longer exists.
    fn drop(&mut self) {
        self.group.abort_refreshers();
        // The channel of messages is closed, which tells the waiters why they fail.
        self.pools.iter().for_each(|pool| pool.shared().waiters.close());
        self.pools.iter().for_each(Joined::end);
    }
}
