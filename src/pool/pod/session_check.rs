//! The access of one pool to a Pod, as far as it depends on the pool's user and database, and the check of it.
//!
//! The pools of a group share the health of a Pod, but a server can refuse the login of one user or database, and
//! `default_transaction_read_only` can be set for one of them. While that is the case, a task opens a session of this
//! pool at intervals, and reports the result to the directory, the task that maintains the set of Pods. If a pool
//! shares its Pods with no other, its probes show the same, and no such task runs.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::time::sleep;

use super::{
    Pod,
    connect::to_attempt,
    jitter::random,
    message::{Message, Session},
    prober::SUSPECT_INTERVAL,
};
use crate::{
    endpoint::Role,
    sync::lock,
    time::Instant,
    wire::{connection_observer::ConnectionObserver, record::Record},
};

/// The access of one pool to a Pod. The directory sets it. Relaxed: a stale value only delays or repeats a check.
#[derive(Debug, Default)]
pub(crate) struct Access {
    refused: AtomicBool,
    read_only: AtomicBool,
}

impl Access {
    /// Returns true if the server refuses the pool's logins, and the pool has no connection to it.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Returns true if the pool's sessions are read-only by default (`default_transaction_read_only`).
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    /// Returns true if the pool's sessions differ from those that a server usually offers.
    pub(crate) fn is_particular(&self) -> bool {
        self.is_refused() || self.is_read_only()
    }

    /// Sets whether logins are refused. Returns true if this is a change.
    pub(crate) fn set_refused(&self, refused: bool) -> bool {
        self.refused.swap(refused, Ordering::Relaxed) != refused
    }

    /// Sets whether sessions are read-only by default. Returns true if this is a change.
    pub(crate) fn set_read_only(&self, read_only: bool) -> bool {
        self.read_only.swap(read_only, Ordering::Relaxed) != read_only
    }
}

impl Pod {
    /// Reports a session of this pool to the directory, if it changes what is known about the pool's access.
    pub(crate) fn report_session(&self, record: &Record) {
        let read_only = record.read_only() && record.role() == Role::Primary;
        if self.access.is_refused() || self.access.is_read_only() != read_only {
            self.send_session(Session::Accepted { read_only });
        }
    }

    /// Reports a session, or the refusal of one, to the directory.
    pub(crate) fn send_session(&self, session: Session) {
        self.shared().send(Message::Session { pod: self.serial, pool: self.shared().id, session });
    }
}

/// Opens a session at intervals until the task is aborted.
pub(crate) async fn run(pod: Arc<Pod>) {
    let (shared, group) = (pod.shared().clone(), pod.shared().group.clone());
    loop {
        let interval = if pod.access.is_refused() { SUSPECT_INTERVAL } else { group.limits.probe_interval };
        sleep(group.fleet.until_next_dial(interval, random())).await;
        // The semaphore is never closed, so `acquire` cannot fail.
        let _handshake = group.probe_handshakes.acquire().await;
        let Some(dialer) = shared.dialer.get() else { return };
        let began = Instant::now();
        // The connection reports no evidence, because its end proves nothing.
        let observer = ConnectionObserver::new(|_| {});
        match dialer.dial_for_probe(&pod.current_endpoint(), observer, shared.limits.connect_timeout).await {
            Ok(dialled) => {
                pod.record_login(dialled.security, began);
                let read_only = dialled.record.read_only() && dialled.record.role() == Role::Primary;
                pod.send_session(Session::Accepted { read_only });
            }
            Err(error) => {
                let (class, attempt) = to_attempt(&pod, error);
                // Other failures do not depend on the user or database.
                if class.is_permanent() {
                    lock(&pod.last_failure).probe_failed(class, attempt);
                    pod.send_session(Session::Refused);
                }
            }
        }
    }
}
