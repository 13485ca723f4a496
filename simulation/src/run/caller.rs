//! The callers: tasks of a client that call its pool again and again.

use std::{future::Future, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::SinkExt as _;

use podpool::{
    Applied as PoolApplied, Checkout as PoolCheckout, Client as Connection, Error, Role as PoolRole, SharedClient,
    Target as PoolTarget, tokio_postgres,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{client::Client, recorder::Recorder};
use crate::{
    adversary::{Caller, Leak, Percent, Target, Work},
    properties::{Applied, CallId, Event, Outcome, Role, Session},
};

/// The longest time after which the future of a cancelled call is dropped.
const CANCELLED_WITHIN: u64 = 200;
/// One statement in so many on a shared connection takes long, and the time it takes, in seconds.
const SLOW_ONE_IN: i64 = 16;
const SLOW_TAKES: f64 = 0.3;
/// Duration of a statement that a caller leaves running, in seconds.
const LEFT_RUNNING: &str = "1.5";

/// Calls the pool until `end`. `index` is that of the caller in the plan.
pub(super) async fn run(client: Client, index: usize, caller: Caller, mut random: fastrand::Rng, end: Instant) {
    let mut calls: Vec<tokio::task::JoinHandle<()>> = Vec::new();
    loop {
        let next = Instant::now() + caller.every.mul_f64(0.5 + random.f64());
        if next >= end {
            break;
        }
        sleep_until(next).await;
        calls.retain(|call| !call.is_finished());
        if calls.len() >= caller.concurrency as usize {
            continue;
        }
        let hits =
            |share: Option<Percent>, random: &mut fastrand::Rng| share.is_some_and(|share| random.u32(..100) < share.0);
        let cancelled = hits(caller.cancelled, &mut random).then(|| random.u64(..CANCELLED_WITHIN));
        let leak = if hits(caller.leaked, &mut random) { caller.leak } else { Leak::None };
        let call = Call::begin(&client, index, &caller);
        let work = call.run(client.clone(), caller.clone(), leak);
        calls.push(client.host.run(async move {
            match cancelled {
                // The call records its own end.
                Some(limit) => drop(timeout(Duration::from_millis(limit), work).await),
                None => work.await,
            }
        }));
    }
    sleep_until(end).await;
    for call in calls {
        call.abort();
        // Waits until the future has been dropped.
        let _ = call.await;
    }
}

/// A call that has begun. Records that it was cancelled if it is dropped before it has ended.
struct Call {
    id: CallId,
    ids: Vec<i64>,
    recorder: Recorder,
    has_ended: bool,
}

impl Call {
    fn begin(client: &Client, index: usize, caller: &Caller) -> Self {
        let recorder = client.recorder.clone();
        let count = match caller.work {
            Work::Read | Work::Checkout | Work::SharedRead => 0,
            Work::Insert | Work::InsertThenFail | Work::SharedInsert => 1,
            Work::Transaction | Work::TwoInserts | Work::Batch | Work::Pipelined | Work::Copy => 2,
        };
        let (id, ids) = (recorder.next_call(), recorder.next_ids(count));
        let (work, target) = (caller.work, caller.target);
        let began = Event::Began { call: id, client: client.number, caller: index, work, target, ids: ids.clone() };
        recorder.record(began);
        Self { id, ids, recorder, has_ended: false }
    }

    fn end(&mut self, outcome: Outcome) {
        self.has_ended = true;
        self.recorder.record(Event::Ended { call: self.id, outcome });
    }

    async fn run(mut self, client: Client, caller: Caller, leak: Leak) {
        let target = target(caller.target);
        let (id, ids, recorder) = (self.id, self.ids.clone(), self.recorder.clone());
        let work = |connection: Connection| {
            let held = Held::new(connection, id, &recorder);
            let (ids, caller) = (ids.clone(), caller.clone());
            async move {
                let result = held.work(&caller, &ids).await;
                if !caller.hold.is_zero() {
                    sleep(caller.hold).await;
                }
                result
            }
        };
        let result = match caller.work {
            Work::Checkout => match client.pool.get_for(target).await {
                Ok(connection) if leak != Leak::None => {
                    Held::new(connection, id, &recorder).leave(leak).await;
                    Ok(())
                }
                Ok(connection) => checkout(connection, work).await,
                Err(error) => Err(outcome(&error)),
            },
            Work::Read => client.pool.retry(target, work).await.map_err(|error| outcome(&error)),
            Work::SharedRead => read_shared(&client, target, id).await,
            Work::SharedInsert => insert_shared(&client, target, ids[0]).await,
            _ => client.pool.retry_unapplied(target, work).await.map_err(|error| outcome(&error)),
        };
        let outcome = result.err().unwrap_or(Outcome::Done);
        if let Outcome::Failed { kind, applied } = &outcome {
            client.host.event(format_args!("call {} fails: {kind}, applied: {applied:?}", id.0));
        }
        self.end(outcome);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.has_ended {
            self.end(Outcome::Cancelled);
        }
    }
}

/// Returns a client of shared connections. Its calls end within the time limit of a checkout, as others do.
fn shared(client: &Client, target: PoolTarget) -> SharedClient<'_> {
    client.pool.shared(PoolCheckout::new(target).deadline(client.acquire_timeout))
}

/// Reads on a shared connection. Panics if the row is that of another call.
async fn read_shared(client: &Client, target: PoolTarget, call: CallId) -> Result<(), Outcome> {
    let number = call.0 as i64;
    let takes = if number % SLOW_ONE_IN == 0 { SLOW_TAKES } else { 0.0 };
    let shared = shared(client, target).repeatable();
    let row = shared.query_one("SELECT $1::int8, pg_sleep($2)", &[&number, &takes]).await;
    let read: i64 = row.map_err(|error| outcome(&error))?.get(0);
    assert_eq!(read, number, "a call received the row of another call");
    Ok(())
}

async fn insert_shared(client: &Client, target: PoolTarget, id: i64) -> Result<(), Outcome> {
    let inserted = shared(client, target).execute("INSERT INTO history (id) VALUES ($1)", &[&id]).await;
    assert_eq!(inserted.map_err(|error| outcome(&error))?, 1, "number of inserted rows");
    Ok(())
}

/// Does the work of a checkout without a retry.
async fn checkout<F>(connection: Connection, work: impl FnOnce(Connection) -> F) -> Result<(), Outcome>
where
    F: Future<Output = Result<(), tokio_postgres::Error>>,
{
    // The work only reads, so its effect is of no interest.
    let failed = |_| Outcome::Failed { kind: "query".to_owned(), applied: Applied::Unknown };
    work(connection).await.map_err(failed)
}

/// Returns the outcome that an error states.
fn outcome(error: &Error) -> Outcome {
    let applied = match error.applied() {
        PoolApplied::No => Applied::No,
        PoolApplied::Unknown => Applied::Unknown,
    };
    Outcome::Failed { kind: error.kind().as_str().to_owned(), applied }
}

fn target(target: Target) -> PoolTarget {
    match target {
        Target::Any => PoolTarget::Any,
        Target::ReadWrite => PoolTarget::ReadWrite,
        Target::ReadOnly => PoolTarget::ReadOnly,
        Target::Primary => PoolTarget::Primary,
        Target::Standby => PoolTarget::Standby,
        Target::PreferStandby => PoolTarget::PreferStandby,
        Target::PreferPrimary => PoolTarget::PreferPrimary,
    }
}

/// A connection of a call. Records its return.
struct Held {
    connection: Option<Connection>,
    call: CallId,
    recorder: Recorder,
}

impl Held {
    fn new(connection: Connection, call: CallId, recorder: &Recorder) -> Self {
        if let Some(address) = connection.endpoint().address().tcp()
            && let Some(on) = recorder.pod_at(address.ip())
        {
            let role = match connection.role() {
                PoolRole::Standby => Some(Role::STANDBY),
                // A primary may be read-only by default, which the guard does not tell.
                _ => None,
            };
            // The servers know the state of the session; it is added when the simulation has ended.
            recorder.record(Event::CheckedOut { call, on, address, role, session: Session::default() });
        }
        Self { connection: Some(connection), call, recorder: recorder.clone() }
    }

    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("taken only by the drop")
    }

    /// Executes the statements of a call. Each begins with the number of the call, for the histories of the servers.
    async fn work(&self, caller: &Caller, ids: &[i64]) -> Result<(), tokio_postgres::Error> {
        let (connection, call) = (self.connection(), self.call.0);
        let insert = format!("/*call {call}*/ INSERT INTO history (id) VALUES ($1)");
        match caller.work {
            Work::Read => drop(connection.simple_query(&format!("/*call {call}*/ SELECT max(id) FROM history")).await?),
            Work::Checkout => {
                connection.query(&format!("/*call {call}*/ SELECT max(id) FROM history"), &[]).await?;
            }
            Work::Insert => drop(connection.execute(&insert, &[&ids[0]]).await?),
            Work::TwoInserts => {
                connection.execute(&insert, &[&ids[0]]).await?;
                connection.execute(&insert, &[&ids[1]]).await?;
            }
            Work::InsertThenFail => {
                connection.execute(&insert, &[&ids[0]]).await?;
                connection.batch_execute("SELECT id FROM missing").await?;
            }
            Work::Transaction => {
                connection.batch_execute(&format!("/*call {call}*/ BEGIN")).await?;
                connection.execute(&insert, &[&ids[0]]).await?;
                connection.execute(&insert, &[&ids[1]]).await?;
                connection.batch_execute("COMMIT").await?;
            }
            Work::Batch => {
                let [one, other] = [ids[0], ids[1]];
                let text = format!(
                    "/*call {call}*/ INSERT INTO history (id) VALUES ({one}); INSERT INTO history (id) VALUES ({other})"
                );
                connection.batch_execute(&text).await?;
            }
            Work::Copy => {
                let text = format!("/*call {call}*/ COPY history (id) FROM STDIN");
                let rows = connection.copy_in::<_, Bytes>(&text).await?;
                let mut rows = pin!(rows);
                rows.send(format!("{}\n{}\n", ids[0], ids[1]).into()).await?;
                rows.finish().await?;
            }
            Work::SharedRead | Work::SharedInsert => unreachable!("no connection is checked out"),
            Work::Pipelined => {
                let one = format!("/*call {call}*/ INSERT INTO history (id) VALUES ({})", ids[0]);
                let other = format!("/*call {call}*/ INSERT INTO history (id) VALUES ({})", ids[1]);
                let (one, other) = tokio::join!(connection.batch_execute(&one), connection.batch_execute(&other));
                one.and(other)?;
            }
        }
        Ok(())
    }

    /// Leaves the connection unclean. A failure of the connection is of no interest.
    async fn leave(self, leak: Leak) {
        let (connection, call) = (self.connection(), self.call.0);
        let texts: Vec<String> = match leak {
            Leak::None => Vec::new(),
            Leak::Transaction => vec![format!("/*call {call}*/ BEGIN"), "SELECT max(id) FROM history".to_owned()],
            Leak::Copy => {
                let text = format!("/*call {call}*/ COPY history FROM STDIN");
                if call % 2 == 0 {
                    // The driver's function for `COPY`, dropped before the end of the rows. A server that refuses the
                    // statement leaves nothing behind.
                    drop(connection.copy_in::<_, Bytes>(&text).await);
                    return;
                }
                // The driver expects no rows to be requested, and fails.
                vec![text]
            }
            Leak::Failed => vec![format!("/*call {call}*/ BEGIN"), "SELECT id FROM missing".to_owned()],
            Leak::Statement => vec![format!("/*call {call}*/ SELECT pg_sleep({LEFT_RUNNING})")],
            Leak::Session => vec![format!("/*call {call}*/ SET podpool.marker = '{call}'")],
        };
        for text in texts {
            let sent = connection.batch_execute(&text);
            if leak == Leak::Statement {
                // The future is dropped while the statement runs.
                let _ = timeout(Duration::from_millis(20), sent).await;
            } else if sent.await.is_err() && !matches!(leak, Leak::Copy | Leak::Failed) {
                return;
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.connection.take());
        self.recorder.record(Event::Returned { call: self.call });
    }
}
