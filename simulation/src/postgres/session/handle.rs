//! The entry of a session in the server's list, through which other sessions and the operator interrupt it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::super::{error::Report, server::Server};

/// A request to interrupt a session.
#[derive(Clone, Debug)]
pub(in crate::postgres) enum Interrupt {
    /// Cancels the running statement. Ignored by an idle session.
    Cancel,
    /// Ends the session with this report.
    Terminate(Report),
}

/// A session, as other tasks see it.
#[derive(Debug)]
pub(in crate::postgres) struct Handle {
    pub(in crate::postgres) pid: i32,
    /// The secret key for cancel requests.
    pub(super) key: i32,
    pub(super) user: String,
    interrupt: Mutex<Option<Interrupt>>,
    notify: Notify,
}

impl Handle {
    /// Returns true if the session belongs to a user.
    pub(in crate::postgres) fn is_of(&self, user: &str) -> bool {
        self.user == user
    }

    /// Interrupts the session. A cancellation does not replace a termination.
    pub(in crate::postgres) fn interrupt(&self, interrupt: Interrupt) {
        let mut pending = self.interrupt.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*pending, Some(Interrupt::Terminate(_))) {
            *pending = Some(interrupt);
        }
        drop(pending);
        self.notify.notify_one();
    }

    /// Waits for the next interrupt. A termination stays pending, so that every later call returns it too.
    pub(in crate::postgres) async fn interrupted(&self) -> Interrupt {
        loop {
            if let Some(interrupt) = self.take() {
                return interrupt;
            }
            self.notify.notified().await;
        }
    }

    fn take(&self) -> Option<Interrupt> {
        let mut pending = self.interrupt.lock().unwrap_or_else(PoisonError::into_inner);
        match &*pending {
            Some(Interrupt::Cancel) => pending.take(),
            other => other.clone(),
        }
    }
}

/// The registration of a session. Dropping it frees the connection slot.
#[derive(Debug)]
pub(super) struct Registration {
    server: Arc<Server>,
    handle: Arc<Handle>,
}

impl Registration {
    /// Takes a connection slot. Returns `None` if none is free.
    pub(super) fn new(server: &Arc<Server>, user: &str) -> Option<Self> {
        let key = server.random().i32(..);
        let mut state = server.lock();
        if state.sessions.len() >= state.settings.max_connections {
            return None;
        }
        let pid = state.next_pid;
        state.next_pid += 1;
        let (interrupt, notify) = (Mutex::default(), Notify::new());
        let handle = Arc::new(Handle { pid, key, user: user.to_owned(), interrupt, notify });
        state.sessions.insert(pid, handle.clone());
        drop(state);
        Some(Self { server: server.clone(), handle })
    }

    pub(super) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.server.lock().sessions.remove(&self.handle.pid);
        self.server.departures.raise();
    }
}
