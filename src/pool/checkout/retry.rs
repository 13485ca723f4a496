//! Runs the caller's work on a connection, and retries it on another connection if the first one failed.

use std::{future::Future, sync::Arc};

use tracing::{Instrument as _, Span};

use super::deadline_of;
use crate::{
    config::{Checkout, Limits, Target},
    endpoint::{Endpoint, Role},
    error::{Applied, Attempt, BoxError, Error, Kind, Phase},
    pool::{
        inner::Inner,
        pod::{
            client::Client,
            deposit::{Deposit, Dropped},
            shared::count,
        },
    },
    time::{Duration, Instant},
    trace::{RETRY, SYSTEM, TARGET},
    wire::{
        CancelToken, Class, Verdict,
        classify::{DriverError, classify, driver_error},
        outcome::WorkMark,
        record::Record,
    },
};

/// Maximum number of retries in one call of [`Pool::retry`](crate::Pool::retry): 8.
///
/// Enough even if every Pod of a typical StatefulSet fails in turn, and low enough not to amplify an outage.
pub const RETRIES: u32 = 8;

/// Pause before the second retry. Doubles with each further retry. The first retry starts without a pause.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// The failures after which work is retried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Repeat {
    /// Every failure of the connection. Used for work that is safe to repeat.
    Always,
    /// Only failures after which the work is known not to have been applied.
    Unapplied,
}

impl Repeat {
    /// Returns the name of the method.
    fn operation(self) -> &'static str {
        match self {
            Self::Always => "retry",
            Self::Unapplied => "retry_unapplied",
        }
    }
}

/// The connection that was passed to the caller's work. Its record is readable after the work has dropped the
/// connection.
struct UsedConnection {
    endpoint: Endpoint,
    record: Arc<Record>,
    /// The record's numbers before the work began.
    began: WorkMark,
    /// The place where the connection is kept after the work has dropped it, until its outcome is known.
    deposit: Arc<Deposit>,
}

impl UsedConnection {
    fn new(client: &mut Client) -> Self {
        let (record, deposit) = (client.shared_record(), Deposit::new());
        client.deposit_in(deposit.clone());
        Self { endpoint: client.endpoint().clone(), began: record.outcome.work(), record, deposit }
    }

    /// Interrupts the work, which has been dropped: cancels its statement, and returns the connection to the pool.
    /// Returns whether the work may have been applied.
    async fn interrupt(&self, token: Option<CancelToken>) -> Applied {
        match self.deposit.take() {
            Dropped::Unsettled(client) => client.interrupt().await,
            Dropped::Settled(settled) => settled.judge_interrupted(),
            Dropped::Ended(since) => self.record.judge_interrupted(since, true),
            // The work has kept the connection and may send further requests on it.
            Dropped::No => {
                if let Some(token) = token {
                    token.cancel_in_background();
                }
                Applied::Unknown
            }
        }
    }

    /// Classifies an error of the work. Waits until `deadline` for outstanding responses if the result decides whether
    /// the work is repeated, and otherwise for a short time. Returns the connection to the pool if the work has dropped
    /// it.
    async fn classify(&self, error: &DriverError, repeat: Repeat, deadline: Instant) -> Verdict {
        let mut verdict = match self.deposit.take() {
            Dropped::Unsettled(client) => {
                let decides = repeat == Repeat::Unapplied && classify(error).is_connection_class();
                let soon = Instant::now() + Limits::RECYCLE_GRACE;
                client.judge(error, if decides { deadline } else { deadline.min(soon) }).await
            }
            Dropped::Settled(settled) => settled.judge(error),
            Dropped::Ended(since) => self.record.judge(since, error, false),
            // The work has kept the connection and may send further requests on it, or may have declared that its
            // statements commit inside.
            Dropped::No => {
                let verdict = self.record.judge(self.began, error, false);
                let executed = self.record.outcome.work() != self.began;
                Verdict { applied: if executed { Applied::Unknown } else { verdict.applied }, ..verdict }
            }
        };
        if verdict.class == Class::ReadOnly && is_refused_by_work(&self.record) {
            verdict.class = Class::Statement;
        }
        verdict
    }
}

/// Returns true if a refused write was refused because the work itself made the transaction read-only: a writable
/// primary refuses no other write. The work would fail on every other primary too.
pub(crate) fn is_refused_by_work(record: &Record) -> bool {
    record.role() == Role::Primary && !record.read_only()
}

/// Returns the error of a call whose deadline passed while its work was running.
pub(crate) fn timed_out(endpoint: &Endpoint, applied: Applied, attempts: Vec<Attempt>) -> Error {
    Error::new(Kind::Timeout, format!("the work on {endpoint} did not end before the deadline of the call"))
        .with_endpoint(endpoint)
        .with_applied(applied)
        .with_attempts(attempts)
}

impl Inner {
    /// Runs the work, and retries it, in a span that is a child of the caller's.
    pub(crate) async fn retry<T, E, F, Fut>(&self, options: Checkout, repeat: Repeat, work: F) -> Result<T, Error>
    where
        F: FnMut(Client) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        let span = self.retry_span(repeat.operation(), options.target);
        self.run_retries(options, repeat, work).instrument(span).await
    }

    /// Returns the span of work that may be repeated.
    pub(super) fn retry_span(&self, operation: &'static str, target: Target) -> Span {
        tracing::debug_span!(
            target: TARGET,
            RETRY,
            "db.system.name" = SYSTEM,
            "db.client.connection.pool.name" = &**self.shared.name(),
            operation,
            target = %target
        )
    }

    async fn run_retries<T, E, F, Fut>(&self, options: Checkout, repeat: Repeat, mut work: F) -> Result<T, Error>
    where
        F: FnMut(Client) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        let started = Instant::now();
        let target = options.target;
        // Work is interrupted only at a deadline of the call.
        let limit = options.deadline.map(|within| deadline_of(started, within));
        let deadline = limit.unwrap_or(started + self.shared.limits.acquire_timeout);
        let mut attempts: Vec<Attempt> = Vec::new();
        // `applied` covers all attempts: an earlier attempt may have been applied even if the last one was not.
        let mut applied = Applied::No;
        let mut tries = 0;
        let mut stale_plan = false;
        loop {
            let mut client = match self.checkout_with(options, Some(deadline)).await {
                Ok(client) => client,
                Err(error) => {
                    let error = error.with_applied(applied).with_earlier(attempts);
                    return Err(error.with_elapsed(started.elapsed()));
                }
            };
            if stale_plan {
                // A schema change makes the cached plans of all connections stale, so this connection's cache is
                // cleared too.
                client.statement_cache.clear();
            }
            let used = UsedConnection::new(&mut client);
            let token = limit.map(|_| client.cancel_token());
            let Some(result) = self.until(limit, work(client)).await else {
                let applied = if applied == Applied::No { used.interrupt(token).await } else { Applied::Unknown };
                return Err(timed_out(&used.endpoint, applied, attempts).with_elapsed(started.elapsed()));
            };
            let error: BoxError = match result {
                Ok(value) if repeat == Repeat::Unapplied || self.kept_role(&used, target) => return Ok(value),
                Ok(_) => {
                    format!("the server's role is now {}, which `{target}` does not accept", used.record.role()).into()
                }
                Err(error) => error.into(),
            };
            let cause = driver_error(&*error);
            let verdict = match cause {
                Some(error) => Some(used.classify(error, repeat, deadline).await),
                None => None,
            };
            let wrong_role = !self.fits(&used.record, target);
            stale_plan |= verdict.is_some_and(|verdict| verdict.class == Class::StalePlan);
            let again = match verdict {
                // The statement with the stale plan was not applied, but earlier statements of the work may have been.
                Some(Verdict { class: Class::StalePlan, .. }) => repeat == Repeat::Always,
                Some(verdict) => {
                    verdict.is_connection_class() && (repeat == Repeat::Always || verdict.applied == Applied::No)
                }
                None => wrong_role && repeat == Repeat::Always,
            };
            if verdict.is_none_or(|verdict| verdict.applied == Applied::Unknown) {
                applied = Applied::Unknown;
            }
            if !again || tries == RETRIES || Instant::now() >= deadline {
                return Err(Error::new(Kind::Query, format!("the work failed on {}", used.endpoint))
                    .with_endpoint(&used.endpoint)
                    .with_applied(applied)
                    .with_attempts(attempts)
                    .with_elapsed(started.elapsed())
                    .with_source(error));
            }
            attempts.push(used.endpoint.attempt(Phase::Query, error));
            drop(used); // the next checkout may need the connection
            count(&self.shared.counters.retries);
            if tries > 0 {
                let pause = PAUSE * 2u32.pow(tries - 1);
                self.pause(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
            }
            tries += 1;
        }
    }

    /// Returns true if the server's last reported role still fits the target after the work. A server reports a change
    /// of role with the response to the next statement.
    fn kept_role(&self, used: &UsedConnection, target: Target) -> bool {
        used.record.role() == Role::Unknown || self.fits(&used.record, target)
    }
}
