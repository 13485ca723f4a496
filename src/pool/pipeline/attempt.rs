//! One attempt to run a statement in a reserved place of a shared connection.
//!
//! The futures of this module are allocated for each statement, and an allocator is fast only for small objects.
//! Therefore those parts that most statements do not need are in boxes of their own: the ping, the preparation, the
//! deadline, and the judgement of an error.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use tokio_postgres::{Statement, error::SqlState};

use super::{
    connection::{Request, SharedConnection},
    flight::{Flight, InFlight, Landing, Rows},
    outcome::Failure,
    params::encode,
    place::Place,
    run::Call,
    statements,
};
use crate::{
    config::Limits,
    error::{Applied, BoxError},
    pool::{checkout::retry::is_refused_by_work, inner::Inner, pod::conn::Reason},
    system::spawn_on,
    time::Instant,
    wire::{
        Class, Verdict,
        classify::{DriverError, classify, is_fatal},
    },
};

/// The end of one attempt to run a statement.
pub(super) enum Attempted {
    Done(Rows),
    /// The statement was not written, and can run elsewhere.
    Unsent(BoxError),
    /// A cancel request for another statement has ended the statement, which has had no effect.
    Cancelled(BoxError),
    /// The statement waits behind a slow one. It may run twice.
    Moved,
    /// The deadline of the call has passed. The statement may have been applied, or not.
    TimedOut(Applied),
    Failed(BoxError, Verdict),
}

impl Inner {
    /// Runs a statement in a reserved place. Sets `sent` while the statement may have had an effect.
    pub(super) async fn try_shared(
        self: &Arc<Self>,
        mut place: Place,
        call: Call<'_>,
        sent: &AtomicBool,
        deadline: Instant,
    ) -> Attempted {
        if place.needs_ping
            && let Err(cause) = Box::pin(self.ping(&place, deadline)).await
        {
            return Attempted::Unsent(cause);
        }
        let request = match self.request(&place, call, deadline).await {
            Ok(request) => request,
            Err(attempted) => return attempted,
        };
        // Relaxed: the flag is read by the same task.
        sent.store(true, Ordering::Relaxed);
        let Some(flight) = send(&place.connection, request).await else {
            sent.store(false, Ordering::Relaxed);
            return Attempted::Unsent(TAKES_NO_MORE.into());
        };
        place.used = true;
        let attempted = self.land(InFlight::new(flight, place)).await;
        if let Attempted::Unsent(_) | Attempted::Cancelled(_) = attempted {
            sent.store(false, Ordering::Relaxed);
        }
        attempted
    }

    /// Prepares a statement, unless it is prepared, and encodes its parameters.
    pub(super) async fn request(
        self: &Arc<Self>,
        place: &Place,
        call: Call<'_>,
        deadline: Instant,
    ) -> Result<Request, Attempted> {
        let statement = match place.connection.statements.get(call.text) {
            Some(statement) => statement,
            // While a statement is being cancelled, no other request may reach the server.
            None if !place.connection.is_serving(Instant::now()) => {
                return Err(Attempted::Unsent(TAKES_NO_MORE.into()));
            }
            None => Box::pin(self.prepare(place, call.text, deadline)).await?,
        };
        match encode(call.params, statement.params()) {
            Ok(params) => Ok(Request { statement, params, keeps_rows: call.keeps_rows, repeatable: call.repeatable }),
            Err(cause) => Err(Attempted::Failed(cause, UNSENT)),
        }
    }

    /// Waits for the end of a statement that was sent, and judges it.
    pub(super) async fn land(&self, mut in_flight: InFlight) -> Attempted {
        match (&mut in_flight).await {
            Landing::Ended(Ok(rows)) => Attempted::Done(rows),
            Landing::Ended(Err(error)) => Box::pin(self.judge(&in_flight, error)).await,
            Landing::Moved => Attempted::Moved,
        }
    }

    /// Judges a statement that has failed.
    async fn judge(&self, in_flight: &InFlight, error: DriverError) -> Attempted {
        let connection = &in_flight.place.connection;
        if error.is_closed() || error.as_db_error().is_some_and(is_fatal) {
            // Whether the statement was written is certain once nothing more is.
            self.within(Instant::now() + Limits::RECYCLE_GRACE, connection.record.wait_until_ended()).await;
        }
        match connection.judge(&in_flight.flight, &error) {
            Failure::Unsent => Attempted::Unsent(error.into()),
            Failure::Cancelled => Attempted::Cancelled(error.into()),
            Failure::Failed(verdict) => failure(connection, error, verdict),
        }
    }

    /// Verifies that a connection still works. Closes it if it does not.
    pub(super) async fn ping(&self, place: &Place, deadline: Instant) -> Result<(), BoxError> {
        let connection = &place.connection;
        let now = Instant::now();
        // While a statement is being cancelled, no request may reach the server.
        if !connection.is_serving(now) {
            return Err(TAKES_NO_MORE.into());
        }
        let until = now + self.shared.limits.probe_timeout;
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

/// Sends a statement in a reserved place. Returns `None` if the connection takes no further statements.
pub(super) async fn send(connection: &Arc<SharedConnection>, request: Request) -> Option<Arc<Flight>> {
    let mut request = Some(request);
    poll_fn(|cx| Poll::Ready(request.take().and_then(|request| connection.send(request, cx)))).await
}

/// The reason why a statement that has a place is not sent.
pub(super) const TAKES_NO_MORE: &str = "the connection takes no further statements";

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
