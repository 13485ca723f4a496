//! Connections that belong to the application: `Pool::connect_owned`.
//!
//! The pool dials the connection, and its driver and its tap are the pool's, but the connection never enters the pool.
//! A task [supervises](supervise) it until its socket is closed, and holds its permit. The Pod's list of open
//! connections contains it too, so that it is observed and closed like the others:
//!
//! - immediately, when the Pod is ejected or fenced ([`Pod::purge`]);
//! - when it is clean, once the Pod is drained or the pool has ended ([`Pod::close`]), or no longer serves the target.
//!   The deadline for draining applies.

mod connection;
mod dial;
mod supervise;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::task::{JoinError, JoinHandle};

pub(crate) use connection::Owned;
pub use connection::OwnedConnection;
pub(crate) use dial::set_up;

use super::{
    Pool,
    checkout::retry::RETRIES,
    inner::Inner,
    pod::{Pod, conn::Permit, requirement, view::View},
};
use crate::{
    balance::select,
    config::Target,
    error::{Attempt, Error, Kind},
    sync::lock,
    system::spawn_on,
    time::Instant,
    wire::Class,
};

impl Pool {
    /// Opens a connection that belongs to the application: a `tokio_postgres::Client`
    /// that can be given to other libraries, for example to migrations or to another pool. The balancing policy chooses
    /// the Pod among those that fit the target.
    ///
    /// The connection counts towards `pool_size` and `max_connections` until its socket is closed. If no further
    /// connection is allowed, the call waits like [`get`](Pool::get) until one is returned, and replaces it. The hook
    /// [`after_connect`](crate::Builder::after_connect) runs once. The pool never resets the session, and
    /// `idle_timeout` and `max_lifetime` do not apply.
    ///
    /// The pool closes the connection, and statements on it then fail, in these cases:
    ///
    /// - The Pod is ejected or fenced: immediately. Another pool can therefore not keep a connection to a former
    ///   primary.
    /// - The Pod leaves and is drained, or no longer serves the target because its role has changed or its replication
    ///   lag exceeds the limit: as soon as no transaction is open and no response is outstanding. When a Pod is
    ///   drained, `drain_timeout` limits the time.
    /// - The pool is closed, or its last handle is dropped: in the same way. `close_timeout` limits the time in
    ///   [`close`](Pool::close).
    ///
    /// Takes no longer than `acquire_timeout` (5 s by default), plus the rest of the last dial. Cancel-safe: if the
    /// future is dropped, the connection is closed.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](Pool::get). If the dials fail, the error lists up to nine of them.
    ///
    /// ```no_run
    /// # async fn example(pool: podpool::Pool) -> Result<(), Box<dyn std::error::Error>> {
    /// use podpool::{OwnedConnection, Target};
    ///
    /// let OwnedConnection { mut client, cancel_token, .. } = pool.connect_owned(Target::Primary).await?;
    /// let transaction = client.transaction().await?;
    /// transaction.batch_execute("CREATE TABLE t (id int)").await?;
    /// transaction.commit().await?;
    /// # drop(cancel_token);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect_owned(&self, target: Target) -> Result<OwnedConnection, Error> {
        // Boxed to keep the caller's future small.
        Box::pin(self.0.inner.connect_owned(target)).await
    }
}

impl Inner {
    async fn connect_owned(&self, target: Target) -> Result<OwnedConnection, Error> {
        let shared = &self.shared;
        shared.request_target(target);
        let started = Instant::now();
        let deadline = started + shared.limits.acquire_timeout;
        let mut attempts: Vec<Attempt> = Vec::new();
        let class = loop {
            let permit = match self.pick_permit(target) {
                Some(permit) => permit,
                None => match self.wait_for_permit(target, deadline).await {
                    Ok(Some(permit)) => permit,
                    // Another task has taken the permit.
                    Ok(None) if Instant::now() < deadline => continue,
                    Ok(None) => break Class::Full,
                    Err(error) => return Err(error.with_earlier(attempts).with_elapsed(started.elapsed())),
                },
            };
            let pod = Arc::clone(&permit);
            let dialled = AbortOnDrop(spawn_on(&shared.runtime, dial::dial(permit, target))).await;
            let (class, attempt) = match dialled {
                Ok(Ok(connection)) => {
                    // The view may have changed before the connection was added to the Pod's list.
                    self.published.load().review_owned(&pod);
                    return Ok(connection);
                }
                Ok(Err(failed)) => failed,
                Err(error) => {
                    let message = "the tokio runtime on which the pool was built has shut down";
                    return Err(Error::new(Kind::Shutdown, message).with_source(error));
                }
            };
            attempts.push(attempt);
            if attempts.len() > RETRIES as usize || Instant::now() >= deadline {
                break class;
            }
        };
        let kind = match class {
            Class::Access | Class::Credentials => Kind::Auth,
            Class::Tls => Kind::Tls,
            Class::Full if attempts.is_empty() => Kind::PoolTimeout,
            _ => Kind::Connect,
        };
        let error = Error::new(kind, "could not open a connection for the application");
        Err(error.with_attempts(attempts).with_elapsed(started.elapsed()))
    }

    /// Takes a permit of a Pod that can serve the target, in the policy's order. Skips Pods whose dials have failed
    /// until their backoff has ended, and those for which callers wait.
    fn pick_permit(&self, target: Target) -> Option<Permit> {
        let now = Instant::now();
        let waiting = self.shared.waiters.waiting();
        self.with_view(|View { snapshot, .. }, rng, scratch| {
            let take = |pod: &Arc<Pod>| {
                let is_unavailable =
                    pod.has_pending_ping() || requirement::serves(&pod.slot, waiting) || pod.slot.is_closed();
                let backs_off = lock(&pod.last_failure).not_before(now).is_some();
                if is_unavailable || backs_off { None } else { Permit::take(pod) }
            };
            select(snapshot, target.index(), &self.chooser, rng, scratch, take, |_| {})
        })
    }

    /// Waits in the queue for a pooled connection. Its Pod serves the target. If the Pod has no permit left, closes the
    /// connection and takes its permit. Returns `None` if another task has taken it first.
    async fn wait_for_permit(&self, target: Target, deadline: Instant) -> Result<Option<Permit>, Error> {
        let client = self.checkout(target, Some(deadline)).await?;
        let pod = client.pod().clone();
        let not_before = lock(&pod.last_failure).not_before(Instant::now());
        if let Some(not_before) = not_before {
            drop(client);
            self.shared.alarms.at(not_before.min(deadline)).await;
            return Ok(Permit::take(&pod));
        }
        if let Some(permit) = Permit::take(&pod) {
            return Ok(Some(permit)); // the connection returns to the pool
        }
        client.retire();
        Ok(Permit::take(&pod))
    }
}

impl View {
    /// Closes the connections to a Pod that belong to the application, as far as the Pod no longer serves their target.
    fn review_owned(&self, pod: &Arc<Pod>) {
        if let Some((_, health)) = self.pods().find(|(other, _)| Arc::ptr_eq(other, pod)) {
            pod.connections.review_owned(health);
        }
    }

    /// Reviews the connections that belong to the application after this view was published.
    pub(super) fn review_all_owned(&self) {
        self.pods().for_each(|(pod, health)| pod.connections.review_owned(health));
    }
}

/// A task that is aborted when its result is no longer awaited.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
