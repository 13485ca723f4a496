//! The state that the directory keeps for each pool of the group and each Pod in use.

use std::sync::Arc;

use tokio::task::AbortHandle;

use super::{Directory, member::Member};
use crate::{
    endpoint::Role,
    error::Attempt,
    event::Event,
    pool::{
        pod::{Pod, connect, message::Session, session_check},
        supervise,
    },
    sync::lock,
    unwind::PanicSource,
    wire::{Class, server_facts::ServerFacts},
};

/// The part of one pool in a Pod.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) pod: Arc<Pod>,
    /// Maximum number of connections that the server allows for the pool's user and database.
    pub(super) slots: Option<u32>,
    /// The last reported explanation of the server's connection limit being too low. `None` if the limit is high
    /// enough.
    pub(super) shortfall: Option<String>,
    /// True if an event has reported that a caller listens on a pooled connection.
    listen_reported: bool,
    /// The task that opens sessions of this pool while its [`Access`](session_check::Access) is particular.
    check: Option<Check>,
}

#[derive(Debug)]
struct Check(AbortHandle);

impl Drop for Check {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Part {
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        Self { pod, slots: None, shortfall: None, listen_reported: false, check: None }
    }

    /// Reports once that a caller listens on a pooled connection, on which it receives nothing.
    pub(super) fn report_listen(&mut self) {
        if !std::mem::replace(&mut self.listen_reported, true) {
            let endpoint = self.pod.endpoint.clone();
            self.pod.shared().events.emit(Event::ListenIgnored { endpoint });
        }
    }

    /// Starts or ends the check of the pool's sessions. `is_shared` is true if several pools share the Pods.
    fn review_check(&mut self, is_shared: bool) {
        if !is_shared || !self.pod.access.is_particular() {
            self.check = None;
        } else if self.check.is_none() {
            let pod = self.pod.clone();
            let run = move || session_check::run(pod.clone());
            self.check = Some(Check(supervise::spawn(self.pod.shared(), PanicSource::Prober, run)));
        }
    }
}

impl Member {
    /// Returns the part of the pool with this number.
    pub(super) fn part_of(&mut self, pool: u64) -> Option<&mut Part> {
        self.parts.iter_mut().find(|part| part.pod.shared().id == pool)
    }

    /// Applies a probe that has passed in a session of this pool, by default of the first one. Returns whether the
    /// access of the pool has changed, and whether its number of connection slots has.
    pub(super) fn probed_as(
        &mut self,
        pool: Option<u64>,
        read_only: bool,
        facts: ServerFacts,
        is_shared: bool,
    ) -> (bool, bool) {
        let pool = pool.unwrap_or(self.pod.shared().id);
        for pod in self.pods().filter(|pod| pod.shared().id != pool) {
            lock(&pod.last_failure).server_responds();
        }
        let Some(part) = self.part_of(pool) else { return (false, false) };
        lock(&part.pod.last_failure).probe_passed();
        let access = &part.pod.access;
        let changed = access.set_refused(false) | access.set_read_only(read_only && facts.role == Role::Primary);
        part.review_check(is_shared);
        (changed, std::mem::replace(&mut part.slots, facts.slots) != facts.slots)
    }

    /// Applies a probe that has failed for this pool, by default for the first one. Returns true if the access of the
    /// pool has changed.
    pub(super) fn failed_as(&mut self, pool: Option<u64>, class: Class, attempt: &Attempt, is_shared: bool) -> bool {
        let pool = pool.unwrap_or(self.pod.shared().id);
        // All other failures may depend on the user and the database.
        for pod in self.pods().filter(|pod| pod.shared().id != pool && class == Class::NotReady) {
            lock(&pod.last_failure).probe_failed(class, attempt.clone());
        }
        let Some(part) = self.part_of(pool) else { return false };
        if lock(&part.pod.last_failure).probe_failed(class, attempt.clone()) {
            connect::emit_refusal(&part.pod, class, attempt);
        }
        let refused = is_shared && class.is_permanent() && part.pod.open() == 0 && part.pod.access.set_refused(true);
        part.review_check(is_shared);
        refused
    }
}

impl Directory {
    /// Applies a report about a session of one pool. It changes only which Pods this pool uses.
    pub(super) fn on_session(&mut self, serial: u64, pool: u64, session: Session) {
        let is_shared = self.pools.len() > 1;
        let Some(part) = self.find(serial).and_then(|member| member.part_of(pool)) else { return };
        let access = &part.pod.access;
        let changed = match session {
            // The probes of a pool that is alone show the same.
            _ if !is_shared && !access.is_particular() => return,
            Session::Refused => part.pod.open() == 0 && access.set_refused(true),
            Session::Accepted { read_only } => {
                let was_refused = access.set_refused(false);
                if was_refused {
                    lock(&part.pod.last_failure).clear();
                    // The Pod may have refused the logins of all other pools.
                    part.pod.server.probe_wanted.notify_one();
                }
                access.set_read_only(read_only) | was_refused
            }
        };
        part.review_check(is_shared);
        self.changed |= changed;
    }
}
