//! Runs one statement on a shared connection, and runs it again on another one if it certainly had no effect.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use tokio_postgres::{Statement, error::SqlState, types::ToSql};

use super::{
    client::SharedResponse,
    connection::{Request, SharedConnection},
    flight::{InFlight, Landing, Rows},
    gate,
    outcome::Failure,
    params::encode,
    place::Place,
    statements,
};
use crate::{
    config::{Checkout, Limits},
    endpoint::Endpoint,
    error::{Applied, Attempt, BoxError, Error, Kind, Phase},
    pool::{
        checkout::{
            deadline_of,
            retry::{PAUSE, RETRIES, is_refused_by_work, timed_out},
        },
        inner::Inner,
        pod::{conn::Reason, requirement::Requirement, shared::count},
    },
    system::spawn_on,
    time::Instant,
    wire::{
        Class, Verdict,
        classify::{DriverError, classify, is_fatal},
    },
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

/// The end of one attempt to run the statement.
enum Attempted {
    Done(Rows),
    /// The statement was not written, and can run elsewhere.
    Unsent(BoxError),
    /// A cancel request for another statement has ended the statement, which has had no effect.
    Cancelled(BoxError),
    /// The statement waits behind a slow one. It may run twice.
    Moved,
    Failed(BoxError, Verdict),
}

impl Inner {
    /// Runs a statement.
    pub(super) async fn run_shared(self: &Arc<Self>, call: Call<'_>) -> Result<SharedResponse, Error> {
        if let Err(refusal) = gate::check(call.text) {
            let message = format!("{refusal} on a shared connection; run it on a connection from `get`");
            return Err(Error::new(Kind::NotShareable, message));
        }
        let started = Instant::now();
        let options = call.options;
        let limit = options.deadline.map(|within| deadline_of(started, within));
        let acquire_timeout = self.shared.limits.acquire_timeout;
        // Without a deadline, the time in which the statement must be sent begins again when it runs again.
        let mut deadline = limit.unwrap_or(started + acquire_timeout);
        let requirement = Requirement::new(options.target, options.max_lag);
        let mut attempts: Vec<Attempt> = Vec::new();
        // `applied` covers all attempts: a statement that may run twice may have been applied by an earlier one.
        let mut applied = Applied::No;
        let (mut tries, mut failures) = (0, 0);
        loop {
            let place = match self.reserve(requirement, deadline).await {
                Ok(place) => place,
                Err(error) => return Err(error.with_applied(applied).with_earlier(attempts)),
            };
            let endpoint = place.pod.endpoint.clone();
            let sent = AtomicBool::new(false);
            let call = Call { repeatable: call.repeatable && tries < RETRIES, ..call };
            let attempt = self.try_shared(place, call, &sent, deadline);
            let Some(attempted) = self.until(limit, attempt).await else {
                if sent.into_inner() {
                    applied = Applied::Unknown;
                }
                return Err(timed_out(&endpoint, applied, attempts).with_elapsed(started.elapsed()));
            };
            let (error, pauses) = match attempted {
                Attempted::Done(Rows { rows, affected }) => {
                    return Ok(SharedResponse { rows, affected, endpoint, attempts });
                }
                // Its connection takes no further statements, so this does not repeat itself without a wait.
                Attempted::Unsent(_) if Instant::now() < deadline => continue,
                Attempted::Unsent(error) => return Err(failed(&endpoint, applied, attempts, started, error)),
                Attempted::Cancelled(error) => (error, false),
                Attempted::Moved => {
                    applied = Applied::Unknown;
                    ("the statement waited behind a slow one".into(), false)
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
            deadline = limit.unwrap_or_else(|| Instant::now() + acquire_timeout);
        }
    }

    /// Runs the statement in a reserved place. Sets `sent` while the statement may have had an effect.
    async fn try_shared(
        self: &Arc<Self>,
        mut place: Place,
        call: Call<'_>,
        sent: &AtomicBool,
        deadline: Instant,
    ) -> Attempted {
        let connection = place.connection.clone();
        // While a statement is being cancelled, no other request may reach the server.
        if !connection.is_serving(Instant::now()) {
            return Attempted::Unsent(TAKES_NO_MORE.into());
        }
        if connection.needs_ping(Instant::now(), self.shared.limits.ping_after)
            && let Err(cause) = self.ping(&place, deadline).await
        {
            return Attempted::Unsent(cause);
        }
        let statement = match connection.statements.get(call.text) {
            Some(statement) => statement,
            None => match self.prepare(&place, call.text, deadline).await {
                Ok(statement) => statement,
                Err(attempted) => return attempted,
            },
        };
        let params = match encode(call.params, statement.params()) {
            Ok(params) => params,
            Err(cause) => return Attempted::Failed(cause, UNSENT),
        };
        let request = Request { statement, params, keeps_rows: call.keeps_rows, repeatable: call.repeatable };
        let mut request = Some(request);
        // Relaxed: the flag is read by the same task.
        sent.store(true, Ordering::Relaxed);
        let flight = poll_fn(|cx| Poll::Ready(request.take().and_then(|request| connection.send(request, cx)))).await;
        let Some(flight) = flight else {
            sent.store(false, Ordering::Relaxed);
            return Attempted::Unsent(TAKES_NO_MORE.into());
        };
        place.used = true;
        let in_flight = InFlight::new(flight.clone(), connection.clone(), self.clone());
        let error = match in_flight.await {
            Landing::Ended(Ok(rows)) => return Attempted::Done(rows),
            Landing::Ended(Err(error)) => error,
            Landing::Moved => return Attempted::Moved,
        };
        if error.is_closed() || error.as_db_error().is_some_and(is_fatal) {
            // Whether the statement was written is certain once nothing more is.
            self.within(Instant::now() + Limits::RECYCLE_GRACE, connection.record.wait_until_ended()).await;
        }
        match connection.judge(&flight, &error) {
            Failure::Unsent => {
                sent.store(false, Ordering::Relaxed);
                Attempted::Unsent(error.into())
            }
            Failure::Cancelled => {
                sent.store(false, Ordering::Relaxed);
                Attempted::Cancelled(error.into())
            }
            Failure::Failed(verdict) => failure(&connection, error, verdict),
        }
    }

    /// Verifies that a connection still works. Closes it if it does not.
    async fn ping(&self, place: &Place, deadline: Instant) -> Result<(), BoxError> {
        let connection = &place.connection;
        let until = Instant::now() + self.shared.limits.probe_timeout;
        let cause: BoxError = match self.within(until.min(deadline), connection.client.check_connection()).await {
            Some(Ok(())) => {
                connection.touch();
                return Ok(());
            }
            Some(Err(error)) => error.into(),
            // The caller gives up earlier than the pool, so the connection may still work.
            None if deadline < until => return Err("the deadline has passed".into()),
            None => "no response to a ping".into(),
        };
        place.pod.server.probe_wanted.notify_one();
        connection.abort(Reason::Discarded);
        Err(cause)
    }

    /// Prepares a statement in a task of the pool, so that other callers of the same statement do not depend on this
    /// one.
    async fn prepare(self: &Arc<Self>, place: &Place, text: &str, deadline: Instant) -> Result<Statement, Attempted> {
        let connection = &place.connection;
        let entry = connection.statements.entry(text);
        let key = Arc::as_ptr(&entry).addr();
        let mut task = {
            let (connection, entry, text) = (connection.clone(), entry.clone(), text.to_owned());
            let (preparing, pool) = (connection.begin_prepare(key), Arc::downgrade(self));
            spawn_on(&self.shared.runtime, async move {
                let prepared = statements::prepare(&connection.client, &text, &entry).await;
                drop(preparing);
                // The connection may have been slow until now.
                if let Some(pool) = pool.upgrade() {
                    pool.serve_shared();
                }
                prepared
            })
        };
        let prepared = loop {
            // A statement that waits behind a slow one was not sent yet, so it can run elsewhere.
            let next_look = Instant::now() + connection.slow_after();
            match self.within(next_look.min(deadline), &mut task).await {
                Some(prepared) => break prepared,
                None if !connection.is_serving(Instant::now()) && !connection.prepares(key, Instant::now()) => {
                    return Err(Attempted::Unsent("the connection is waiting for a slow statement".into()));
                }
                None if Instant::now() >= deadline => {
                    return Err(Attempted::Failed("the server did not prepare the statement in time".into(), UNSENT));
                }
                None => {}
            }
        };
        let error = match prepared {
            Ok(Ok(statement)) => return Ok(statement),
            Ok(Err(error)) => error,
            Err(error) => return Err(Attempted::Failed(error.into(), UNSENT)),
        };
        connection.statements.forget(text, &entry);
        if error.code() == Some(&SqlState::QUERY_CANCELED) {
            return Err(Attempted::Unsent(error.into())); // a cancel request for another statement, or a time limit
        }
        // Nothing was executed, so nothing was applied.
        let verdict = Verdict { applied: Applied::No, ..classify(&error) };
        Err(failure(connection, error, verdict))
    }
}

/// The reason why a statement that has a place is not sent.
const TAKES_NO_MORE: &str = "the connection takes no further statements";

/// The verdict about a statement that could not be sent for a reason that is not the connection's.
const UNSENT: Verdict = Verdict { class: Class::Statement, applied: Applied::No };

/// Applies a failure to the state of the connection.
fn failure(connection: &SharedConnection, error: DriverError, mut verdict: Verdict) -> Attempted {
    if verdict.class == Class::ReadOnly && is_refused_by_work(&connection.record) {
        verdict.class = Class::Statement;
    }
    if connection.record.take_stale_statements().is_some() {
        connection.statements.clear();
    }
    Attempted::Failed(error.into(), verdict)
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
