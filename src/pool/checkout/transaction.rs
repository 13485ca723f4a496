//! Runs the caller's work in a transaction, commits it, and repeats it if the transaction certainly had no effect.
//!
//! Only the pool sends the `COMMIT`, after the work has returned. Before the `COMMIT` is sent, the loss of the
//! connection therefore means that the server has rolled the transaction back, whatever statement was in flight. After
//! that, only the server's response shows whether the transaction was committed; without a response, the outcome is
//! unknown. A `COMMIT` that the server answers with the command tag `ROLLBACK`, because a statement had failed, is no
//! success.
//!
//! Conflicts with other transactions (SQLSTATE 40001 and 40P01) are repeated until the deadline, after a random pause
//! whose maximum doubles with each repetition, so that the transactions do not meet again. Lost connections are
//! repeated as in [`retry`](super::retry).

use std::future::Future;

use tracing::Instrument as _;

use super::{
    deadline_of,
    retry::{PAUSE, RETRIES, is_refused_by_work, timed_out},
};
use crate::{
    config::Limits,
    endpoint::Endpoint,
    error::{Applied, Attempt, BoxError, Error, Kind, Phase},
    pool::{
        inner::Inner,
        pod::{client::Client, deposit::Deposit, jitter::random, shared::count},
        transaction::{Transaction, TransactionOptions},
    },
    time::{Duration, Instant},
    wire::{
        Class,
        classify::{classify, driver_error, is_conflict, is_conflict_code},
        record::{IDLE, Record},
    },
};

/// Maximum pause after the first conflict. Doubles with each further conflict.
const CONFLICT_PAUSE: Duration = Duration::from_millis(2);
/// The highest maximum.
const CONFLICT_PAUSE_MAX: Duration = Duration::from_millis(100);

/// The reason why a transaction failed, as far as it decides about a repetition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reason {
    /// A conflict with another transaction.
    Conflict,
    /// The connection or its server.
    Connection,
    /// A stale prepared statement.
    StalePlan,
    /// Any other reason, which a repetition would not remove.
    Other,
}

/// A failed transaction.
struct Failure {
    error: BoxError,
    reason: Reason,
    applied: Applied,
}

impl Failure {
    fn new(error: BoxError, record: &Record, options: &TransactionOptions, applied: Applied) -> Self {
        let reason = match driver_error(&*error) {
            Some(error) if is_conflict(error) => Reason::Conflict,
            Some(error) => {
                let verdict = classify(error);
                let refused = options.read_only == Some(true) || is_refused_by_work(record);
                match verdict.class {
                    Class::StalePlan => Reason::StalePlan,
                    Class::ReadOnly if refused => Reason::Other,
                    _ if verdict.is_connection_class() => Reason::Connection,
                    _ => Reason::Other,
                }
            }
            None => Reason::Other,
        };
        Self { error, reason, applied }
    }
}

/// The reason why an attempt has returned no value.
enum Stopped {
    Failed(Failure),
    /// The deadline of the call has passed.
    Interrupted(Applied),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The failed attempts of one call: the last [`RETRIES`] of them, because conflicts are not limited in number.
#[derive(Default)]
struct Attempts(Vec<Attempt>);

impl Attempts {
    fn push(&mut self, attempt: Attempt) {
        if self.0.len() == RETRIES as usize {
            self.0.remove(0);
        }
        self.0.push(attempt);
    }
}

impl Inner {
    /// Runs the transaction, and repeats it, in a span that is a child of the caller's.
    pub(crate) async fn transaction<T, E, F, Fut>(&self, options: TransactionOptions, work: F) -> Result<T, Error>
    where
        F: FnMut(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        let span = self.retry_span("transaction", options.checkout.target);
        self.run_transactions(options, work).instrument(span).await
    }

    async fn run_transactions<T, E, F, Fut>(&self, options: TransactionOptions, mut work: F) -> Result<T, Error>
    where
        F: FnMut(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        let started = Instant::now();
        // Work is interrupted only at a deadline of the call.
        let limit = options.checkout.deadline.map(|within| deadline_of(started, within));
        let deadline = limit.unwrap_or(started + self.shared.limits.acquire_timeout);
        let begin = options.begin();
        let mut attempts = Attempts::default();
        let (mut conflicts, mut losses) = (0u32, 0u32);
        let mut stale_plan = false;
        loop {
            let client = match self.checkout_with(options.checkout, Some(deadline)).await {
                Ok(client) => client,
                Err(error) => return Err(error.with_earlier(attempts.0).with_elapsed(started.elapsed())),
            };
            if stale_plan {
                client.statement_cache.clear();
            }
            let endpoint = client.endpoint().clone();
            let failure = match self.attempt(client, &options, &begin, &mut work, (limit, deadline)).await {
                Ok(value) => return Ok(value),
                Err(Stopped::Failed(failure)) => failure,
                Err(Stopped::Interrupted(applied)) => {
                    return Err(timed_out(&endpoint, applied, attempts.0).with_elapsed(started.elapsed()));
                }
            };
            let repeats = failure.applied == Applied::No
                && match failure.reason {
                    Reason::Conflict => true,
                    Reason::Connection | Reason::StalePlan => losses < RETRIES,
                    Reason::Other => false,
                };
            if !repeats || Instant::now() >= deadline {
                return Err(failed(failure, &endpoint, attempts).with_elapsed(started.elapsed()));
            }
            stale_plan |= failure.reason == Reason::StalePlan;
            let pause = if failure.reason == Reason::Conflict {
                let highest = CONFLICT_PAUSE.saturating_mul(1 << conflicts.min(16)).min(CONFLICT_PAUSE_MAX);
                conflicts += 1;
                highest.mul_f64(random())
            } else {
                losses += 1;
                if losses == 1 { Duration::ZERO } else { PAUSE * 2u32.pow(losses - 2) }
            };
            attempts.push(endpoint.attempt(Phase::Query, failure.error));
            count(&self.shared.counters.retries);
            if !pause.is_zero() {
                self.pause(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
            }
        }
    }

    /// Runs one transaction.
    async fn attempt<T, E, F, Fut>(
        &self,
        mut client: Client,
        options: &TransactionOptions,
        begin: &str,
        work: &mut F,
        (limit, deadline): (Option<Instant>, Instant),
    ) -> Result<T, Stopped>
    where
        F: FnMut(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        match self.until(limit, client.batch_execute(begin)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(Failure::new(error.into(), client.record(), options, Applied::No).into()),
            None => {
                client.interrupt().await;
                return Err(Stopped::Interrupted(Applied::No));
            }
        }
        let deposit = Deposit::keeping();
        client.deposit_in(deposit.clone());
        let result = self.until(limit, work(Transaction::new(client))).await;
        let Some(client) = deposit.take_kept() else {
            let Some(result) = result else { return Err(Stopped::Interrupted(Applied::Unknown)) };
            let error = match result {
                Ok(_) => "the work returned without dropping its transaction, which is rolled back".into(),
                Err(error) => error.into(),
            };
            return Err(Failure { error, reason: Reason::Other, applied: Applied::Unknown }.into());
        };
        match result {
            Some(Ok(value)) => match self.until(limit, commit(client, options, deadline)).await {
                Some(result) => result.map(|()| value).map_err(Stopped::Failed),
                // The `COMMIT` is not cancelled: while the server waits for a synchronous standby, a cancel request
                // would make it commit without the standby.
                None => Err(Stopped::Interrupted(Applied::Unknown)),
            },
            Some(Err(error)) => Err(self.roll_back(client, options, error.into()).await.into()),
            None => {
                // No `COMMIT` was sent, so the server rolls the transaction back even if it does not respond in time.
                let unapplied = !client.has_committed() && client.record().status() != IDLE;
                let applied = client.interrupt().await;
                Err(Stopped::Interrupted(if unapplied { Applied::No } else { applied }))
            }
        }
    }

    /// Rolls a transaction back after its work has failed with this error.
    async fn roll_back(&self, client: Client, options: &TransactionOptions, error: BoxError) -> Failure {
        // If a statement is still in flight, the connection is recycled in the background instead.
        let limit = Instant::now() + Limits::RECYCLE_GRACE;
        let rolled_back = matches!(self.within(limit, client.batch_execute("ROLLBACK")).await, Some(Ok(())));
        let record = client.record();
        let unapplied = !client.has_committed() && (rolled_back || record.status() != IDLE);
        Failure::new(error, record, options, if unapplied { Applied::No } else { Applied::Unknown })
    }
}

/// Commits a transaction. Waits until `deadline` for responses that are still outstanding after an error.
async fn commit(mut client: Client, options: &TransactionOptions, deadline: Instant) -> Result<(), Failure> {
    // A statement that the work has abandoned may still fail.
    client.record().wait_until_idle().await;
    let before = client.record().outcome.work();
    let had_committed = client.has_committed();
    client.set_committing(true);
    let committed = client.batch_execute("COMMIT").await;
    client.set_committing(false);
    let record = client.record();
    let Err(error) = committed else {
        if record.outcome.work().committed() != before.committed() {
            return Ok(());
        }
        let applied = if had_committed { Applied::Unknown } else { Applied::No };
        let sqlstate = record.outcome.last_sqlstate().unwrap_or_default();
        let reason = if is_conflict_code(&sqlstate) { Reason::Conflict } else { Reason::Other };
        let error = format!(
            "the server rolled the transaction back, because a statement had failed (SQLSTATE {sqlstate}) although the \
             work returned `Ok`"
        );
        return Err(Failure { error: error.into(), reason, applied });
    };
    let unsent = record.has_ended() && record.outcome.work() == before;
    let applied = match unsent && !had_committed {
        true => Applied::No,
        false => client.judge(&error, deadline).await.applied,
    };
    Err(Failure::new(error.into(), record, options, applied))
}

fn failed(failure: Failure, endpoint: &Endpoint, attempts: Attempts) -> Error {
    Error::new(Kind::Query, format!("the transaction failed on {endpoint}"))
        .with_endpoint(endpoint)
        .with_applied(failure.applied)
        .with_attempts(attempts.0)
        .with_source(failure.error)
}
