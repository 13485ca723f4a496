//! Runs one statement on a shared connection, and runs it again on another one if it certainly had no effect.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio_postgres::types::ToSql;

use super::{attempt::Attempted, client::SharedResponse, gate, place::Place};
use crate::{
    config::Checkout,
    endpoint::Endpoint,
    error::{Applied, Attempt, BoxError, Error, Kind, Phase},
    pool::{
        checkout::{
            abandoned::Unended,
            deadline_of,
            retry::{PAUSE, RETRIES, timed_out},
        },
        inner::Inner,
        pod::{requirement::Requirement, shared::count},
    },
    time::Instant,
    wire::Class,
};

/// A call that runs one statement.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) text: &'a str,
    pub(super) params: &'a [&'a (dyn ToSql + Sync)],
    /// True if the caller needs the rows, and not only their number.
    pub(super) keeps_rows: bool,
    pub(super) repeatable: bool,
    pub(super) options: Checkout,
}

impl Call<'_> {
    pub(super) fn requirement(&self) -> Requirement {
        Requirement::new(self.options.target, self.options.max_lag)
    }
}

/// The times of a call.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) started: Instant,
    /// The deadline of the whole call.
    pub(super) limit: Option<Instant>,
    /// The time until which the statement must be sent. Without a deadline of the call, this time begins again when
    /// the statement runs again.
    pub(super) deadline: Instant,
    /// True if this time does not begin again, because it is that of several statements.
    pub(super) is_fixed: bool,
}

impl Inner {
    /// Runs a statement.
    pub(super) async fn run_shared(self: &Arc<Self>, call: Call<'_>) -> Result<SharedResponse, Error> {
        gate::check(call.text).map_err(|refusal| not_shareable(refusal.to_string()))?;
        let times = self.times(call.options);
        let place = self.reserve(call.requirement(), times.deadline, times.started).await?;
        let endpoint = place.pod.endpoint.clone();
        match self.attempt_shared(place, call, times).await {
            Attempted::Done(rows) => Ok(SharedResponse::new(rows, endpoint, Vec::new())),
            first => Box::pin(self.run_from(call, times, Some((endpoint, first)))).await,
        }
    }

    /// Runs a statement in a reserved place until it has ended, or until the deadline of the call.
    async fn attempt_shared(self: &Arc<Self>, place: Place, call: Call<'_>, times: Times) -> Attempted {
        let sent = AtomicBool::new(false);
        let unended = Unended::new(&self.shared, Phase::Query);
        let attempted = match times.limit {
            None => Some(self.try_shared(place, call, &sent, times.deadline).await),
            Some(limit) => Box::pin(self.within(limit, self.try_shared(place, call, &sent, times.deadline))).await,
        };
        unended.end();
        // Relaxed: the flag is written by the same task.
        let may_be_applied = if sent.load(Ordering::Relaxed) { Applied::Unknown } else { Applied::No };
        attempted.unwrap_or(Attempted::TimedOut(may_be_applied))
    }

    /// Returns the times of a call that starts now.
    pub(super) fn times(&self, options: Checkout) -> Times {
        let started = Instant::now();
        let limit = options.deadline.map(|within| deadline_of(started, within));
        let deadline = limit.unwrap_or(started + self.shared.limits.acquire_timeout);
        Times { started, limit, deadline, is_fixed: false }
    }

    /// Runs a statement whose text is accepted. `first` is the end of a first attempt on a Pod, if there was one.
    pub(super) async fn run_from(
        self: &Arc<Self>,
        call: Call<'_>,
        times: Times,
        mut first: Option<(Endpoint, Attempted)>,
    ) -> Result<SharedResponse, Error> {
        let Times { started, limit, mut deadline, is_fixed } = times;
        let mut attempts: Vec<Attempt> = Vec::new();
        // `applied` covers all attempts: a statement that may run twice may have been applied by an earlier one.
        let mut applied = Applied::No;
        let (mut tries, mut failures) = (0, 0);
        loop {
            let call = Call { repeatable: call.repeatable && tries < RETRIES, ..call };
            let (endpoint, attempted) = match first.take() {
                Some(first) => first,
                None => {
                    let place = match self.reserve(call.requirement(), deadline, Instant::now()).await {
                        Ok(place) => place,
                        Err(error) => return Err(error.with_applied(applied).with_earlier(attempts)),
                    };
                    let endpoint = place.pod.endpoint.clone();
                    (endpoint, self.attempt_shared(place, call, Times { deadline, ..times }).await)
                }
            };
            let (error, pauses) = match attempted {
                Attempted::Done(rows) => return Ok(SharedResponse::new(rows, endpoint, attempts)),
                // Its connection takes no further statements, so this does not repeat itself without a wait.
                Attempted::Unsent(_) if Instant::now() < deadline => continue,
                Attempted::Unsent(error) => return Err(failed(&endpoint, applied, attempts, started, error)),
                Attempted::Cancelled(error) => (error, false),
                Attempted::Moved => {
                    applied = Applied::Unknown;
                    ("the statement waited behind a slow one".into(), false)
                }
                Attempted::TimedOut(may_be_applied) => {
                    if may_be_applied == Applied::Unknown {
                        applied = Applied::Unknown;
                    }
                    return Err(timed_out(&endpoint, applied, attempts).with_elapsed(started.elapsed()));
                }
                Attempted::Failed(error, verdict) => {
                    if verdict.applied == Applied::Unknown {
                        applied = Applied::Unknown;
                    }
                    let unapplied = verdict.applied == Applied::No;
                    let again = match verdict.class {
                        Class::StalePlan => unapplied,
                        _ => verdict.is_connection_class() && (call.repeatable || unapplied),
                    };
                    if !again {
                        return Err(failed(&endpoint, applied, attempts, started, error));
                    }
                    (error, true)
                }
            };
            if tries == RETRIES || limit.is_some_and(|limit| Instant::now() >= limit) {
                return Err(failed(&endpoint, applied, attempts, started, error));
            }
            tries += 1;
            attempts.push(endpoint.attempt(Phase::Query, error));
            count(&self.shared.counters.retries);
            if pauses {
                if failures > 0 {
                    let pause = PAUSE * 2u32.pow(failures - 1);
                    let left = limit.map(|limit| limit.saturating_duration_since(Instant::now()));
                    self.pause(left.map_or(pause, |left| left.min(pause))).await;
                }
                failures += 1;
            }
            if limit.is_none() && !is_fixed {
                deadline = Instant::now() + self.shared.limits.acquire_timeout;
            }
        }
    }
}

/// Returns the error of a call with a statement that is not accepted.
pub(super) fn not_shareable(reason: String) -> Error {
    Error::new(Kind::NotShareable, format!("{reason} on a shared connection; run it on a connection from `get`"))
}

/// Returns the error of a call whose statement has failed.
fn failed(endpoint: &Endpoint, applied: Applied, attempts: Vec<Attempt>, started: Instant, cause: BoxError) -> Error {
    Error::new(Kind::Query, format!("the statement failed on {endpoint}"))
        .with_endpoint(endpoint)
        .with_applied(applied)
        .with_attempts(attempts)
        .with_elapsed(started.elapsed())
        .with_source(cause)
}
