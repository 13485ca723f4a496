//! Notifications (`NOTIFY`, `pg_notify`) that a server sends on a connection.

use std::fmt;

use super::{
    connection_observer::{ConnectionObserver, Evidence},
    record::{Record, SessionChange},
};
use crate::sync::{Mutex, lock};

/// A notification that a session has sent with `NOTIFY` or `pg_notify`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notification {
    channel: String,
    payload: String,
    process_id: i32,
}

impl Notification {
    /// Returns the name of the channel.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// Returns the payload. Empty if the sender has set none.
    #[must_use]
    pub fn payload(&self) -> &str {
        &self.payload
    }

    /// Returns the process ID of the session that has sent the notification.
    #[must_use]
    pub fn process_id(&self) -> i32 {
        self.process_id
    }
}

impl From<tokio_postgres::Notification> for Notification {
    fn from(received: tokio_postgres::Notification) -> Self {
        Self {
            channel: received.channel().to_owned(),
            payload: received.payload().to_owned(),
            process_id: received.process_id(),
        }
    }
}

type Receive = dyn FnMut(Notification) + Send;

/// The receiver of the notifications of one connection. Without a receiver, the notifications are dropped.
#[derive(Default)]
pub(crate) struct Notifications(Mutex<Option<Box<Receive>>>);

impl Notifications {
    /// Sets the receiver. It is called under a lock, so it must not block.
    pub(crate) fn receive(&self, receive: impl FnMut(Notification) + Send + 'static) {
        *lock(&self.0) = Some(Box::new(receive));
    }

    /// Removes the receiver. It is not called any more when this function has returned.
    pub(crate) fn stop(&self) {
        let receive = lock(&self.0).take();
        drop(receive);
    }

    /// Returns true if the connection has a receiver.
    fn are_received(&self) -> bool {
        lock(&self.0).is_some()
    }

    pub(super) fn pass(&self, notification: tokio_postgres::Notification) {
        if let Some(receive) = &mut *lock(&self.0) {
            receive(notification.into());
        }
    }
}

impl Record {
    /// Records that the session listens for notifications. Reports it if nothing receives them.
    pub(super) fn listens(&self, observer: &ConnectionObserver) {
        self.add_session_change(SessionChange::Command);
        if !self.notifications.are_received() {
            observer.report(Evidence::Listens);
        }
    }
}

impl fmt::Debug for Notifications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notifications")
    }
}
