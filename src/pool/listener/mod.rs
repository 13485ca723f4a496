//! Listening for notifications: a [`Listener`] has a connection of its own, which follows the target from Pod to Pod.
//!
//! Callers do not get notifications on pooled connections, because a pooled connection belongs to one caller only until
//! it is returned. The [`subscription`] task opens the dedicated connection and replaces it, and the connection's
//! driver passes the notifications to a [`queue`].

mod queue;
mod subscription;

use std::{fmt, sync::Arc};

use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use self::{
    queue::{Overflow, Queue},
    subscription::Subscription,
};
use super::{Pool, inner::Inner};
use crate::{
    config::Checkout,
    error::{Error, Kind},
    system::spawn_on,
    wire::Notification,
};

/// Number of items that a [`Listener`] buffers: 16,384. If the application is that far behind, further notifications
/// are dropped until it has received all buffered ones, and then it receives a [`ListenerEvent::Gap`].
pub const LISTENER_CAPACITY: usize = 16_384;

/// An item of a [`Listener`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ListenerEvent {
    /// A notification.
    Notification(Notification),
    /// Notifications may have been missed between the previous item and this one. The subscription is active again:
    /// every notification that is sent after this item was received is delivered, or followed by another gap. An
    /// application that derives its state from notifications must read the state again now.
    Gap {
        /// The reason.
        cause: Arc<str>,
    },
}

/// A stream of notifications, from [`Pool::listen`](crate::Pool::listen). Dropping it closes its connection.
pub struct Listener {
    items: mpsc::Receiver<ListenerEvent>,
    overflow: Arc<Overflow>,
    task: AbortHandle,
}

impl Pool {
    /// Listens for notifications (`NOTIFY`, `pg_notify`) on these channels, on a connection of its own.
    ///
    /// Returns when the subscription is active. The connection follows the target: when it is lost, or its Pod no
    /// longer serves the target, the listener connects to another Pod, subscribes again, and then yields a
    /// [`Gap`](ListenerEvent::Gap), because notifications may have been missed. Only a primary accepts `LISTEN`, so the
    /// target is usually [`Target::Primary`](crate::Target::Primary).
    ///
    /// The connection counts toward `max_connections`, but not toward `pool_size`. Channel names are quoted, so their
    /// case matters: `NOTIFY Orders` sends to the channel `orders`.
    ///
    /// ```no_run
    /// # async fn example(pool: podpool::Pool) -> Result<(), podpool::Error> {
    /// use podpool::{ListenerEvent, Target};
    ///
    /// let mut listener = pool.listen(Target::Primary, ["orders"]).await?;
    /// while let Some(event) = listener.next().await {
    ///     match event {
    ///         ListenerEvent::Notification(notification) => println!("order {}", notification.payload()),
    ///         _ => println!("notifications may have been missed: read the orders again"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Cancel-safe: if the future is dropped, the connection is closed.
    ///
    /// # Errors
    ///
    /// - [`Kind::Query`](crate::Kind::Query) if the server refuses `LISTEN`, as a standby does.
    /// - [`Kind::PoolTimeout`](crate::Kind::PoolTimeout) if `max_connections` is reached.
    /// - The errors of [`get`](Pool::get), if no Pod that serves the target could be reached before the deadline.
    pub async fn listen<S: Into<String>>(
        &self,
        checkout: impl Into<Checkout>,
        channels: impl IntoIterator<Item = S>,
    ) -> Result<Listener, Error> {
        let channels = channels.into_iter().map(Into::into).collect();
        let opened = Listener::open(self.0.inner.clone(), checkout.into(), channels).await;
        opened.map_err(|error| self.named(error))
    }
}

impl Listener {
    /// Opens a connection that listens on these channels.
    pub(super) async fn open(inner: Arc<Inner>, options: Checkout, channels: Vec<String>) -> Result<Self, Error> {
        let runtime = inner.shared.runtime.clone();
        let (queue, items, overflow) = Queue::new();
        let subscription = Subscription::new(inner, options, &channels, queue);
        let (ready, subscribed) = oneshot::channel();
        // The connection is opened on the pool's runtime. If this future is dropped, the task is aborted.
        let task = spawn_on(&runtime, subscription.run(ready)).abort_handle();
        let listener = Self { items, overflow, task };
        match subscribed.await {
            Ok(result) => result.map(|()| listener),
            Err(_) => Err(Error::new(Kind::Shutdown, "cannot listen: the pool's runtime has shut down")),
        }
    }

    /// Waits for the next item. Returns `None` once the pool has been closed or dropped. Cancel-safe.
    pub async fn next(&mut self) -> Option<ListenerEvent> {
        match self.items.try_recv() {
            Ok(item) => Some(item),
            Err(mpsc::error::TryRecvError::Disconnected) => None,
            Err(mpsc::error::TryRecvError::Empty) => match self.overflow.take() {
                Some(gap) => Some(gap),
                None => self.items.recv().await,
            },
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}
