//! Checks out a connection for a target, which is the role that a caller requests.
//!
//! [`try_idle`] takes an idle connection without waiting. If there is none, the caller [waits](wait) in the wait queue.
//! A connection is [pinged](ping) first if it was idle for longer than `ping_after`, or if its server's last known role
//! does not fit the target. [`retry`] runs the caller's work on a connection and retries it on another, and
//! [`transaction`] runs it in a transaction. [`approve`] calls the application's hook, which can reject a connection.
//! [`abandoned`] counts callers that give up. [`limited`] serves requirements with a limit on the age of a server's
//! data. [`thread_cache`] holds each thread's copy of the published view, and [`error`] builds the error of a
//! failed checkout.

pub(crate) mod abandoned;
mod approve;
pub(crate) mod error;
mod limited;
pub(crate) mod ping;
pub(crate) mod retry;
pub(crate) mod thread_cache;
mod transaction;
pub(crate) mod try_idle;
pub(crate) mod wait;

use std::{future::Future, pin::pin};

use tokio::select;
use tracing::Instrument as _;

use self::{abandoned::Unended, wait::Wait};
use super::{
    inner::Inner,
    pod::{client::Client, requirement::Requirement, shared::count},
};
use crate::{
    config::{Checkout, LagFallback, Limits, Target},
    endpoint::Role,
    error::{Attempt, BoxError, Error, Phase},
    time::{Duration, Instant},
    trace::{SYSTEM, TARGET, WAIT},
    wire::record::Record,
};

/// The reason why the caller cannot use a connection that it has taken or was handed.
enum NotReady {
    /// The connection was closed after a failed ping or because its server's role does not fit, or it was returned to
    /// the pool.
    Unusable(Option<Attempt>),
    /// The Pod has not responded to the ping yet. A background task continues to wait for the response.
    PingPending(Attempt),
}

/// Timeout that replaces a requested timeout that is too long to be added to an [`Instant`]: one year.
const FAR_FUTURE: Duration = Duration::from_secs(365 * 86_400);

/// Returns the time at which a call that began at `began` must end.
pub(crate) fn deadline_of(began: Instant, within: Duration) -> Instant {
    began.checked_add(within).unwrap_or(began + FAR_FUTURE)
}

impl Inner {
    /// Checks out a connection. Without a `deadline`, fails after `acquire_timeout`.
    pub(crate) async fn checkout(&self, target: Target, deadline: Option<Instant>) -> Result<Client, Error> {
        self.shared.request_target(target);
        let found = self.try_checkout(target);
        let now = self.shared.clock.now();
        let (mut client, ready_at) = match found {
            Some(client) if client.is_ready(now, self.shared.slow_from, |record| self.fits(record, target)) => {
                (client, now)
            }
            // The slow path is boxed to keep this future small.
            found => Box::pin(self.checkout_slowly(target.into(), deadline, found)).await?,
        };
        client.begin_use(target == Target::Any, ready_at);
        Ok(client)
    }

    /// Checks out a connection for a requirement with a limit on the age of a server's data.
    pub(crate) async fn checkout_limited(
        &self,
        requirement: Requirement,
        deadline: Option<Instant>,
    ) -> Result<Client, Error> {
        self.shared.request_target(requirement.target());
        let (requirement, found) = self.try_limited(requirement);
        let (target, now) = (requirement.target(), self.shared.clock.now());
        let (mut client, ready_at) = match found {
            Some(client) if client.is_ready(now, self.shared.slow_from, |record| self.fits(record, target)) => {
                (client, now)
            }
            found => self.checkout_slowly(requirement, deadline, found).await?,
        };
        client.begin_use(target == Target::Any, ready_at);
        Ok(client)
    }

    /// Checks out a connection on the slow path, and records its duration. Also returns the time of the pool's clock.
    async fn checkout_slowly(
        &self,
        requirement: Requirement,
        deadline: Option<Instant>,
        found: Option<Client>,
    ) -> Result<(Client, u64), Error> {
        let started = Instant::now();
        let deadline = deadline.unwrap_or(started + self.shared.limits.acquire_timeout);
        let target = requirement.target();
        let span = tracing::debug_span!(
            target: TARGET,
            WAIT,
            "db.system.name" = SYSTEM,
            "db.client.connection.pool.name" = &**self.shared.name(),
            target = %target
        );
        let waiting = self.shared.waiting_spans.enter(&span);
        let result = self.wait(requirement, started, deadline, found).instrument(span).await;
        drop(waiting);
        self.shared.metrics.waited(started, &result);
        let client = result.map_err(|error| error.of_pool(self.shared.name()))?;
        Ok((client, self.shared.clock.now()))
    }

    /// Checks out a connection on the slow path, and counts the caller if it gives up before the checkout has ended.
    async fn wait(
        &self,
        requirement: Requirement,
        started: Instant,
        deadline: Instant,
        found: Option<Client>,
    ) -> Result<Client, Error> {
        count(&self.shared.counters.waits);
        let mut unended = Unended::new(&self.shared, Phase::Wait);
        let result = self.wait_for(requirement, started, deadline, found, &mut unended.phase).await;
        unended.end();
        result
    }

    /// Waits in the queue, pings connections that need a ping, and calls the application's hook. `found` is a
    /// connection that the fast path has already taken but that may need a ping. Sets `phase` to what it is waiting
    /// for.
    async fn wait_for(
        &self,
        requirement: Requirement,
        started: Instant,
        deadline: Instant,
        found: Option<Client>,
        phase: &mut Phase,
    ) -> Result<Client, Error> {
        let mut failed = Vec::new();
        let mut wait = Wait { requirement, started, deadline, ticket: None, avoid_pending_pings: false };
        let mut found = found;
        loop {
            *phase = Phase::Wait;
            let client = match found.take() {
                Some(client) => client,
                None => match self.queue(&mut wait).await {
                    Ok(client) => client,
                    Err(error) => return Err(error.with_earlier(failed)),
                },
            };
            *phase = Phase::Ping;
            match self.ready(client, requirement, deadline).await {
                Ok(client) => {
                    *phase = Phase::BeforeCheckout;
                    match self.approve(client, deadline).await {
                        Ok(client) if Self::is_within_limit(&client, requirement) => return Ok(client),
                        // The data has become too old. The connection is returned to the pool.
                        Ok(client) => drop(client),
                        Err(attempt) => {
                            failed.push(attempt);
                            if let Err(error) = Self::check_rejections(&failed) {
                                return Err(error.with_attempts(failed).with_elapsed(started.elapsed()));
                            }
                        }
                    }
                }
                Err(NotReady::Unusable(attempt)) => failed.extend(attempt),
                Err(NotReady::PingPending(attempt)) => {
                    wait.avoid_pending_pings = true;
                    failed.push(attempt);
                }
            }
        }
    }

    /// Verifies that the caller can use a connection.
    /// Pings the connection if it was idle for longer than `ping_after`, or if its server's last known role does not
    /// fit the target. The response to the ping updates the role. A connection that is not clean is returned to the
    /// pool. Even an idle connection can become unclean, because dropping a prepared statement can send a request on
    /// it.
    async fn ready(&self, client: Client, requirement: Requirement, deadline: Instant) -> Result<Client, NotReady> {
        let target = requirement.target();
        let suits = |client: &Client| {
            self.fits(client.record(), target) && (requirement.step().is_none() || !Self::has_former_role(client))
        };
        if !client.record().is_clean() {
            return Err(NotReady::Unusable(None));
        }
        if !client.is_stale(self.shared.clock.verify(), self.shared.ping_after) && suits(&client) {
            return Ok(client);
        }
        let sent = Instant::now();
        let hedge_at = sent + ping::HEDGE_AFTER;
        let response = self.within(hedge_at.min(deadline), client.check_connection()).await;
        let attempt = |cause: BoxError| client.endpoint().attempt(Phase::Ping, cause);
        match response {
            Some(Ok(())) if suits(&client) => Ok(client),
            Some(Ok(())) => {
                // The connection is closed because its server's role does not fit. If it were returned, this caller
                // could get it again.
                ping::probe_misfit(client.pod(), client.record());
                client.retire();
                Err(NotReady::Unusable(None))
            }
            Some(Err(error)) => {
                let attempt = attempt(error.into());
                client.pod().server.probe_wanted.notify_one();
                client.retire();
                Err(NotReady::Unusable(Some(attempt)))
            }
            // The caller's deadline passed before the ping was overdue. The connection is returned to the pool and
            // recycled.
            None if deadline < hedge_at => Err(NotReady::Unusable(None)),
            None => {
                let attempt = attempt("no response to a ping yet".into());
                ping::finish_in_background(client, target, sent + self.shared.limits.probe_timeout);
                Err(NotReady::PingPending(attempt))
            }
        }
    }

    /// Returns true if the role that the server last reported fits the target; see [`fits`].
    #[inline]
    pub(crate) fn fits(&self, record: &Record, target: Target) -> bool {
        fits(&self.shared.limits, record, target)
    }

    /// Checks out a connection with the options of a call. A `deadline` replaces the one of the options.
    pub(crate) async fn checkout_with(&self, options: Checkout, deadline: Option<Instant>) -> Result<Client, Error> {
        let deadline = deadline.or_else(|| options.deadline.map(|within| deadline_of(Instant::now(), within)));
        let requirement = Requirement::new(options.target, options.max_lag);
        match requirement.step() {
            None => self.checkout(requirement.target(), deadline).await,
            Some(_) => Box::pin(self.checkout_limited(requirement, deadline)).await,
        }
    }

    /// Returns the result of `work`, or drops the work and returns `None` at the time `limit`. Counts the caller if it
    /// gives up before that.
    pub(crate) async fn until<T>(&self, limit: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
        let unended = Unended::new(&self.shared, Phase::Query);
        let result = match limit {
            Some(limit) => self.within(limit, work).await,
            None => Some(work.await),
        };
        unended.end();
        result
    }

    /// Sleeps for `pause`. Works on any executor that the caller may use.
    pub(crate) async fn pause(&self, pause: Duration) {
        self.shared.alarms.at(Instant::now() + pause).await;
    }

    /// Returns the result of `work`, or `None` if it has not finished by `limit`.
    pub(crate) async fn within<T>(&self, limit: Instant, work: impl Future<Output = T>) -> Option<T> {
        let work = pin!(work);
        select! {
            biased;
            done = work => Some(done),
            () = self.shared.alarms.at(limit) => None,
        }
    }
}

/// Returns true if the role that the server last reported fits the target. Also returns true if the primary may replace
/// lagging standbys (`lag_fallback=primary`), because then the list of candidates alone decides.
#[inline]
fn fits(limits: &Limits, record: &Record, target: Target) -> bool {
    // Checked first: if the target accepts every server, the connection's role need not be read.
    target.accepts(Role::Unknown, false)
        || limits.lag_fallback == LagFallback::Primary && target.excludes_writable_primary()
        || target.accepts(record.role(), record.read_only())
}
