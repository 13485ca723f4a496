//! The checkout: from a target to a connection.
//!
//! [`try_idle`] takes an idle connection without waiting. If there is none, [`wait`] joins the wait queue. A connection
//! that was idle for a while is [pinged](ping) before the caller gets it. [`retry`] runs the caller's work on a
//! connection and repeats it on another. [`thread_cache`] gives each thread its own copy of the published view, and
//! [`error`] explains a failed checkout.

pub(crate) mod error;
pub(crate) mod ping;
pub(crate) mod retry;
pub(crate) mod thread_cache;
pub(crate) mod try_idle;
pub(crate) mod wait;

use std::{future::Future, pin::pin};

use tokio::time::{Sleep, sleep_until, timeout_at};
use tracing::Instrument as _;

use self::try_idle::PendingPings;
use super::{
    inner::Inner,
    pod::{client::Client, connect, shared::count},
};
use crate::{
    config::{LagFallback, Target},
    endpoint::Role,
    error::{Attempt, BoxError, Error, Phase},
    time::{Duration, Instant},
    trace::{SYSTEM, TARGET, WAIT},
    wire::record::Record,
};

/// The reason why a connection cannot be used by the caller.
enum NotReady {
    /// The connection failed its ping, has the wrong role, or was returned to the pool.
    Unusable(Option<Attempt>),
    /// The Pod has not responded to the ping yet. A background task waits for the response.
    PingPending(Attempt),
}

impl Inner {
    /// Checks out a connection. The deadline is `acquire_timeout` from now unless one is given.
    pub(crate) async fn checkout(&self, target: Target, deadline: Option<Instant>) -> Result<Client, Error> {
        self.shared.request_roles(target);
        let result = match self.try_checkout(target, connect::grow) {
            Some(client) if client.is_fresh() && self.fits(client.record(), target) => Ok(client),
            // The slow path is boxed, which keeps this future small.
            found => {
                let started = Instant::now();
                let deadline = deadline.unwrap_or(started + self.shared.limits.acquire_timeout);
                let span = tracing::debug_span!(target: TARGET, WAIT, "db.system.name" = SYSTEM, target = %target);
                let result = Box::pin(self.wait(target, started, deadline, found)).instrument(span).await;
                self.shared.metrics.waited(started, &result);
                result
            }
        };
        result.map(|mut client| {
            client.begin_use(target == Target::Any);
            client
        })
    }

    async fn wait(
        &self,
        target: Target,
        started: Instant,
        deadline: Instant,
        found: Option<Client>,
    ) -> Result<Client, Error> {
        count(&self.shared.counters.waits);
        let mut pinged = Vec::new();
        let mut again = false;
        let mut pending_pings = PendingPings::LastResort;
        let mut found = found;
        loop {
            let client = match found.take() {
                Some(client) => client,
                None => match self.queue(target, started, deadline, again, pending_pings).await {
                    Ok(client) => client,
                    Err(error) => return Err(error.with_earlier(pinged)),
                },
            };
            again = true;
            match self.ready(client, target, deadline).await {
                Ok(client) => return Ok(client),
                Err(NotReady::Unusable(attempt)) => pinged.extend(attempt),
                Err(NotReady::PingPending(attempt)) => {
                    pending_pings = PendingPings::Avoid { open_after: Instant::now() + ping::OPEN_AFTER };
                    pinged.push(attempt);
                }
            }
        }
    }

    /// Makes a connection ready for the caller.
    ///
    /// Pings the connection if it was idle for longer than `ping_after`, or if its server's last known role does not
    /// fit the target; the response updates the role. Returns the connection to the pool if it is not clean: a
    /// statement that outlived its caller can still be closed on it.
    async fn ready(&self, client: Client, target: Target, deadline: Instant) -> Result<Client, NotReady> {
        if !client.record().is_clean() {
            return Err(NotReady::Unusable(None));
        }
        if !client.is_stale() && self.fits(client.record(), target) {
            return Ok(client);
        }
        let sent = Instant::now();
        let hedge_at = sent + ping::HEDGE_AFTER;
        let response = self.within(hedge_at.min(deadline), client.check_connection()).await;
        let attempt = |cause: BoxError| client.endpoint().attempt(Phase::Ping, cause);
        match response {
            Some(Ok(())) if self.fits(client.record(), target) => Ok(client),
            Some(Ok(())) => {
                // The role does not fit the target. If the connection were returned, this caller would take it again.
                client.retire();
                Err(NotReady::Unusable(None))
            }
            Some(Err(error)) => {
                let attempt = attempt(error.into());
                client.pod().probe_wanted.notify_one();
                client.retire();
                Err(NotReady::Unusable(Some(attempt)))
            }
            // The caller's deadline has passed, not the connection's. The connection is returned and recycled.
            None if deadline < hedge_at => Err(NotReady::Unusable(None)),
            None => {
                let attempt = attempt("no response to a ping yet".into());
                ping::finish_in_background(client, sent + self.shared.limits.probe_timeout);
                Err(NotReady::PingPending(attempt))
            }
        }
    }

    /// Returns true if the role that the server reported last fits the target. If the primary may stand in for late
    /// standbys, the list of candidates alone decides.
    #[inline]
    pub(crate) fn fits(&self, record: &Record, target: Target) -> bool {
        // Most targets accept every server, without a look at the record.
        target.accepts(Role::Unknown, false)
            || self.shared.limits.lag_fallback == LagFallback::Primary && target.excludes_writable_primary()
            || target.accepts(record.role(), record.read_only())
    }

    /// Sleeps on the pool's runtime, so that the caller can run on any executor.
    pub(crate) fn sleep_until(&self, at: Instant) -> Sleep {
        let _context = self.shared.runtime.enter();
        sleep_until(at)
    }

    /// Sleeps for a duration. See [`sleep_until`](Self::sleep_until).
    pub(crate) async fn pause(&self, pause: Duration) {
        self.sleep_until(Instant::now() + pause).await;
    }

    /// Returns the result of the work, or `None` if the work is not finished at `limit`.
    async fn within<T>(&self, limit: Instant, work: impl Future<Output = T>) -> Option<T> {
        let work = pin!(work);
        let timeout = {
            let _context = self.shared.runtime.enter();
            timeout_at(limit, work)
        };
        timeout.await.ok()
    }
}
