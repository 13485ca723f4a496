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

use self::dial::Start;
pub(crate) use connection::Owned;
pub use connection::OwnedConnection;
pub(crate) use dial::{connect, set_up};

use super::{
    Pool,
    checkout::{deadline_of, retry::RETRIES},
    inner::Inner,
    pod::{
        Pod,
        conn::Permit,
        requirement::{self, Requirement},
        view::View,
    },
};
use crate::{
    balance::select,
    config::Checkout,
    error::{Attempt, Error, Kind, Phase},
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
    ///   drained, `drain_timeout` limits the time. A primary that replaces lagging standbys (`lag_fallback=primary`)
    ///   no longer serves the target once a standby has caught up.
    /// - The pool is closed, or its last handle is dropped: in the same way. `close_timeout` limits the time in
    ///   [`close`](Pool::close).
    ///
    /// [`Checkout::deadline`], or `acquire_timeout` (5 s by default), limits the whole call, including the dial and the
    /// hook. [`Checkout::max_lag`] applies until the connection is open; after that, only the pool's limits apply.
    /// Cancel-safe: if the future is dropped, the connection is closed.
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
    pub async fn connect_owned(&self, checkout: impl Into<Checkout>) -> Result<OwnedConnection, Error> {
        // Boxed to keep the caller's future small.
        let connected = Box::pin(self.0.inner.connect_owned(checkout.into())).await;
        connected.map_err(|error| self.named(error))
    }
}

/// The reason why a connection was not opened.
struct Failed {
    class: Class,
    attempt: Attempt,
    /// True if the attempt had not ended by the deadline of the call.
    is_late: bool,
}

impl Inner {
    async fn connect_owned(&self, options: Checkout) -> Result<OwnedConnection, Error> {
        let limits = &self.shared.limits;
        let requested = Requirement::new(options.target, options.max_lag);
        self.shared.request_target(requested.target());
        let started = Instant::now();
        let deadline = deadline_of(started, options.deadline.unwrap_or(limits.acquire_timeout));
        let (mut attempts, mut class): (Vec<Attempt>, _) = (Vec::new(), Class::Full);
        loop {
            let requirement = if requested.step().is_some() { self.with_fallback(requested) } else { requested };
            let permit = match self.pick_permit(requirement) {
                Some(permit) => permit,
                None => match self.wait_for_permit(requirement, deadline).await {
                    Ok(Some(permit)) => permit,
                    // Another task has taken the permit, or the Pod's data has become too old.
                    Ok(None) if Instant::now() < deadline => continue,
                    Ok(None) => break,
                    Err(error) => return Err(error.with_earlier(attempts).with_elapsed(started.elapsed())),
                },
            };
            let failed = match self.open_owned(permit, requirement, deadline).await? {
                Ok(connection) => return Ok(connection),
                // The failures before it explain more than an attempt that has not ended.
                Err(failed) if failed.is_late && !attempts.is_empty() => break,
                Err(failed) => failed,
            };
            class = failed.class;
            attempts.push(failed.attempt);
            if attempts.len() > RETRIES as usize || Instant::now() >= deadline {
                break;
            }
        }
        let only_waited = attempts.iter().all(|attempt| attempt.phase() == Phase::Wait);
        let kind = match class {
            Class::Access | Class::Credentials => Kind::Auth,
            Class::Tls => Kind::Tls,
            Class::Full if only_waited => Kind::PoolTimeout,
            _ => Kind::Connect,
        };
        let error = Error::new(kind, "could not open a connection for the application");
        Err(error.with_attempts(attempts).with_elapsed(started.elapsed()))
    }

    /// Opens a connection with a permit, on the pool's runtime. Waits for other handshakes first.
    async fn open_owned(
        &self,
        permit: Permit,
        requirement: Requirement,
        deadline: Instant,
    ) -> Result<Result<OwnedConnection, Failed>, Error> {
        let (shared, pod) = (&self.shared, Arc::clone(&permit));
        let late = |class, phase, cause: &str| {
            Ok(Err(Failed { class, attempt: pod.endpoint.attempt(phase, cause), is_late: true }))
        };
        // Read before the wait, during which the Pod may be ejected or fenced.
        let generation = pod.generation();
        // The semaphore is never closed, so `acquire_owned` cannot fail.
        let Some(Ok(handshake)) = self.within(deadline, shared.owned_handshakes.clone().acquire_owned()).await else {
            shared.counters.timed_out.increment(Phase::Wait);
            return late(Class::Full, Phase::Wait, "other handshakes were still in progress at the deadline");
        };
        let dial = dial::dial(Start { permit, requirement, generation, handshake });
        match self.within(deadline, AbortOnDrop(spawn_on(&shared.runtime, dial))).await {
            Some(Ok(Ok(connection))) => {
                // The view may have changed before the connection was added to the Pod's list.
                self.published.load().review_owned(&pod);
                Ok(Ok(connection))
            }
            Some(Ok(Err((class, attempt)))) => Ok(Err(Failed { class, attempt, is_late: false })),
            Some(Err(error)) => {
                let message = "the tokio runtime on which the pool was built has shut down";
                Err(Error::new(Kind::Shutdown, message).with_source(error))
            }
            None => late(Class::NotReady, Phase::Startup, "the connection was not open at the deadline of the call"),
        }
    }

    /// Takes a permit of a Pod that fulfills the requirement, in the policy's order. Skips Pods whose dials have failed
    /// until their backoff has ended, and those for which callers wait.
    fn pick_permit(&self, requirement: Requirement) -> Option<Permit> {
        let now = Instant::now();
        let waiting = self.shared.waiters.waiting();
        self.with_view(|View { snapshot, .. }, rng, scratch| {
            let take = |pod: &Arc<Pod>| {
                let is_unavailable = pod.has_pending_ping()
                    || requirement::serves(&pod.slot, waiting)
                    || pod.slot.is_closed()
                    || !requirement.is_within_limit(&pod.slot);
                let backs_off = lock(&pod.last_failure).not_before(now).is_some();
                if is_unavailable || backs_off { None } else { Permit::take(pod) }
            };
            select(snapshot, requirement.target().index(), &self.chooser, rng, scratch, take, |_| {})
        })
    }

    /// Waits in the queue for a pooled connection. Its Pod fulfills the requirement. If the Pod has no permit left,
    /// closes the connection and takes its permit. Returns `None` if another task has taken it first, or if the Pod no
    /// longer fulfills the requirement.
    pub(crate) async fn wait_for_permit(
        &self,
        requirement: Requirement,
        deadline: Instant,
    ) -> Result<Option<Permit>, Error> {
        let client = match requirement.step() {
            None => self.checkout(requirement.target(), Some(deadline)).await?,
            Some(_) => self.checkout_limited(requirement, Some(deadline)).await?,
        };
        let pod = client.pod().clone();
        let not_before = lock(&pod.last_failure).not_before(Instant::now());
        if let Some(not_before) = not_before {
            drop(client);
            self.shared.alarms.at(not_before.min(deadline)).await;
            return Ok(if not_before < deadline { Permit::take(&pod) } else { None });
        }
        if !requirement.is_within_limit(&pod.slot) {
            return Ok(None); // the connection returns to the pool
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
            pod.connections.review_owned(health, &pod.slot);
        }
    }

    /// Reviews the connections that belong to the application after this view was published.
    pub(super) fn review_all_owned(&self) {
        self.pods().for_each(|(pod, health)| pod.connections.review_owned(health, &pod.slot));
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
