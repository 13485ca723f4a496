//! From a target to a connection: at once where one is idle, else by waiting for one.

pub(crate) mod error;
pub(crate) mod ping;
pub(crate) mod retry;
pub(crate) mod thread_cache;
pub(crate) mod try_idle;
pub(crate) mod wait;

use std::{future::Future, pin::pin};

use tokio::time::{Sleep, sleep_until, timeout_at};
use tracing::Instrument as _;

use self::try_idle::PingPending;
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

/// A connection that could not be made ready.
enum NotReady {
    /// It failed, or has another role than it had.
    Gone(Option<Attempt>),
    /// Its Pod has not answered yet.
    Left(Attempt),
}

impl Inner {
    /// A connection, by the deadline.
    pub(crate) async fn checkout(&self, target: Target, deadline: Option<Instant>) -> Result<Client, Error> {
        self.shared.ask_for(target);
        let result = match self.try_checkout(target, connect::grow) {
            Some(client) if client.is_fresh() && self.fits(client.record(), target) => Ok(client),
            // The slow path is a future of its own, made when it is needed.
            found => {
                let started = Instant::now();
                let deadline = deadline.unwrap_or(started + self.shared.limits.acquire_timeout);
                let span = tracing::debug_span!(target: TARGET, WAIT, "db.system.name" = SYSTEM, target = %target);
                let result = Box::pin(self.wait(target, started, deadline, found)).instrument(span).await;
                self.shared.metrics.waited(started, &result);
                result
            }
        };
        result.inspect(|client| client.record().lend(target == Target::Any))
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
        let mut mute = PingPending::Last;
        let mut found = found;
        loop {
            let client = match found.take() {
                Some(client) => client,
                None => match self.queue(target, started, deadline, again, mute).await {
                    Ok(client) => client,
                    Err(error) => return Err(error.with_earlier(pinged)),
                },
            };
            again = true;
            match self.ready(client, target, deadline).await {
                Ok(client) => return Ok(client),
                Err(NotReady::Gone(attempt)) => pinged.extend(attempt),
                Err(NotReady::Left(attempt)) => {
                    mute = PingPending::Never(Instant::now() + ping::PATIENCE);
                    pinged.push(attempt);
                }
            }
        }
    }

    /// Pings a connection that nobody has used for a while, and one whose server was something else when it was reads of
    /// last: the answer brings the role up to date. Gives one back that is at work: a statement that outlived its
    /// connection's borrower has been closed on it.
    async fn ready(&self, client: Client, target: Target, deadline: Instant) -> Result<Client, NotReady> {
        if !client.record().is_clean() {
            return Err(NotReady::Gone(None));
        }
        if !client.is_stale() && self.fits(client.record(), target) {
            return Ok(client);
        }
        let asked = Instant::now();
        let hedge = asked + ping::HEDGE;
        let answer = self.within(hedge.min(deadline), client.check_connection()).await;
        let attempt = |cause: BoxError| client.endpoint().attempt(Phase::Ping, cause);
        match answer {
            Some(Ok(())) if self.fits(client.record(), target) => Ok(client),
            Some(Ok(())) => {
                // Not what is asked for, nor will it be. Given back, it would only be found again.
                client.retire();
                Err(NotReady::Gone(None))
            }
            Some(Err(error)) => {
                let attempt = attempt(error.into());
                client.pod().suspect.notify_one();
                client.retire();
                Err(NotReady::Gone(Some(attempt)))
            }
            // The caller's time is up, not the connection's: given back, and recycled.
            None if deadline < hedge => Err(NotReady::Gone(None)),
            None => {
                let attempt = attempt("no answer to a ping yet".into());
                ping::leave(client, asked + self.shared.limits.probe_timeout);
                Err(NotReady::Left(attempt))
            }
        }
    }

    /// Whether a server is what the target probe_factory for, as it said last. Where the primary may stand in for standbys that
    /// are too late, the list of candidates alone decides.
    #[inline]
    pub(crate) fn fits(&self, record: &Record, target: Target) -> bool {
        let stand_in = self.shared.limits.lag_fallback == LagFallback::Primary;
        match target {
            Target::Any | Target::PreferPrimary | Target::PreferStandby => true,
            Target::ReadOnly | Target::Standby if stand_in => true,
            Target::Primary => record.role() == Role::Primary,
            Target::Standby => record.role() == Role::Standby,
            Target::ReadWrite => record.role() == Role::Primary && !record.read_only(),
            Target::ReadOnly => record.role() == Role::Standby || record.read_only(),
        }
    }

    /// Sleeps on the pool's runtime, whatever the caller runs on.
    pub(crate) fn sleep_until(&self, at: Instant) -> Sleep {
        let _context = self.shared.runtime.enter();
        sleep_until(at)
    }

    /// Does nothing for a while.
    pub(crate) async fn pause(&self, pause: Duration) {
        self.sleep_until(Instant::now() + pause).await;
    }

    /// The work's result, or `None` if the time is up first.
    async fn within<T>(&self, limit: Instant, work: impl Future<Output = T>) -> Option<T> {
        let work = pin!(work);
        let timeout = {
            let _context = self.shared.runtime.enter();
            timeout_at(limit, work)
        };
        timeout.await.ok()
    }
}
