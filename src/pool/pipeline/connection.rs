//! A connection that several callers use at the same time.

mod supervised;

use std::{
    fmt,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use tokio::task::AbortHandle;
use tokio_postgres::{Client, Statement};

use self::supervised::CONFIRMED;
use super::{
    flight::{Flight, Rows, Work},
    load::Load,
    outcome::{Facts, Failure, judge},
    params::Encoded,
    statements::Statements,
};
use crate::{
    config::Limits,
    pool::{owned::Owned, pod::conn::Reason},
    sync::{Mutex, lock},
    time::{Duration, Instant},
    wire::{CancelToken, classify::DriverError, record::Record},
};

/// A connection that several callers use at the same time. The task that [supervises](super::supervise) it holds its
/// permit.
pub(crate) struct SharedConnection {
    pub(super) client: Arc<Client>,
    pub(super) record: Arc<Record>,
    /// The pool's part, which closes the connection when its Pod is ejected, fenced or drained.
    pub(super) owned: Arc<Owned>,
    pub(super) token: CancelToken,
    pub(super) statements: Statements,
    driver: AbortHandle,
    /// Number of statements that were executed before the connection was shared.
    executed_before: u32,
    /// Maximum number of statements in flight.
    depth: usize,
    /// Time without use after which the connection is pinged before its next use.
    ping_after: Duration,
    opened_at: Instant,
    /// End of the connection's lifetime.
    pub(super) expires_at: Instant,
    state: Mutex<State>,
}

/// The state that the callers and the supervising task change.
struct State {
    load: Load<Arc<Flight>>,
    /// The memory of statements that have ended.
    spare: Vec<Work>,
    /// True while nothing may be written, because of a cancel request.
    stopped: bool,
    /// The time since which the connection has had no free place, or only a few.
    full_since: Option<Instant>,
    /// Number of consecutive looks of the supervising task at which the connection could take no statement, and the
    /// time of the last one.
    looks: u32,
    looked_at: Instant,
    /// True if the role that the session has reported does not fit a target that its Pod serves.
    misfit: bool,
    /// The time at which the connection was last known to work.
    last_used: Instant,
}

/// A statement that is ready to be sent.
pub(super) struct Request {
    pub(super) statement: Statement,
    pub(super) params: Vec<Encoded>,
    /// True if the caller needs the rows, and not only their number.
    pub(super) keeps_rows: bool,
    pub(super) repeatable: bool,
}

/// A place that was taken on a connection.
pub(super) struct Reserved {
    /// True if the connection was unused for so long that it must be pinged before its next use.
    pub(super) needs_ping: bool,
}

/// The parts of a new connection.
pub(super) struct Parts {
    pub(super) client: Client,
    pub(super) record: Arc<Record>,
    pub(super) owned: Arc<Owned>,
    pub(super) token: CancelToken,
    pub(super) driver: AbortHandle,
    pub(super) expires_at: Instant,
}

impl SharedConnection {
    /// Creates a shared connection. No request is outstanding on it.
    /// `round_trip` is the shortest time of a statement on another connection to the Pod.
    pub(super) fn new(parts: Parts, limits: &Limits, round_trip: Option<Duration>) -> Arc<Self> {
        let Parts { client, record, owned, token, driver, expires_at } = parts;
        let executed_before = record.statements_written();
        let now = Instant::now();
        let load = Load::new(limits.shared_slow, round_trip);
        let state = State {
            load,
            spare: Vec::new(),
            stopped: false,
            full_since: None,
            looks: 0,
            looked_at: now,
            misfit: false,
            last_used: now,
        };
        Arc::new(Self {
            client: Arc::new(client),
            record,
            owned,
            token,
            statements: Statements::new(limits.statement_cache_size),
            driver,
            executed_before,
            depth: limits.shared_depth,
            ping_after: limits.ping_after,
            opened_at: now,
            expires_at,
            state: Mutex::new(state),
        })
    }

    /// Returns true if the pool has not decided to close the connection, and it has not ended.
    fn is_open(&self) -> bool {
        self.owned.reason().is_none() && !self.record.has_ended()
    }

    /// Returns true if statements can be sent without waiting behind a slow one. The connection may have no free place.
    pub(super) fn is_serving(&self, now: Instant) -> bool {
        self.accepts(&lock(&self.state), now)
    }

    fn accepts(&self, state: &State, now: Instant) -> bool {
        self.is_open() && !state.stopped && !(state.load.is_slow(now) && self.record.outstanding() > 0)
    }

    /// Records that the role that the session has reported does not fit a target that its Pod serves. The supervising
    /// task then replaces the connection.
    pub(super) fn set_misfit(&self) {
        if !std::mem::replace(&mut lock(&self.state).misfit, true) {
            self.owned.changed.notify_one();
        }
    }

    /// Records that a statement is being prepared on the connection, until the returned value is dropped.
    pub(super) fn begin_prepare(self: &Arc<Self>, key: usize) -> Preparing {
        lock(&self.state).load.begin_prepare(key, Instant::now());
        Preparing { connection: self.clone(), key }
    }

    /// Returns true if the server prepares this statement now, as far as this is known.
    pub(super) fn prepares(&self, key: usize, now: Instant) -> bool {
        lock(&self.state).load.prepares(key, now)
    }

    /// Returns true if no other connection must be opened instead of this one. A statement is slow only if the
    /// supervising task has found this twice: if the process did not run for some time, its statements seem slow.
    pub(super) fn counts(&self) -> bool {
        self.is_open() && lock(&self.state).looks < CONFIRMED
    }

    /// Returns true if the connection has been full for some time and its server would execute more statements, if
    /// another connection sent them.
    pub(super) fn limits_server(&self, now: Instant) -> bool {
        let state = lock(&self.state);
        let is_full = state.full_since.is_some_and(|since| now.saturating_duration_since(since) >= GROW_AFTER);
        is_full && self.accepts(&state, now) && state.load.waits_for_statements()
    }

    /// Returns the shortest time of a statement.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        lock(&self.state).load.round_trip()
    }

    /// Returns the number of taken places.
    pub(crate) fn in_flight(&self) -> usize {
        lock(&self.state).load.in_flight()
    }

    /// Returns true if a place is free and statements can be sent without waiting behind a slow one.
    pub(super) fn has_place(&self, now: Instant) -> bool {
        let state = lock(&self.state);
        self.accepts(&state, now) && state.load.in_flight() < self.depth
    }

    /// Takes a place for a statement, if one is free and statements can be sent without waiting behind a slow one.
    pub(super) fn reserve(&self, now: Instant) -> Option<Reserved> {
        let mut state = lock(&self.state);
        let is_reserved = self.accepts(&state, now) && state.load.reserve(self.depth);
        let is_unused = || now.saturating_duration_since(state.last_used) >= self.ping_after;
        is_reserved.then(|| Reserved { needs_ping: state.load.is_answered() && is_unused() })
    }

    /// Takes a place beyond the depth, for a further statement of a batch.
    pub(super) fn reserve_beyond(&self) {
        lock(&self.state).load.reserve(usize::MAX);
    }

    /// Gives up a place that was not used.
    pub(super) fn release(&self) {
        lock(&self.state).load.release();
    }

    /// Sends a statement in a place that was reserved. Returns `None` if nothing may be written on the connection, or
    /// only behind a slow statement; the place remains reserved then.
    ///
    /// The lock orders the statements: the order of their numbers is that in which they enter the driver's channel.
    pub(super) fn send(&self, request: Request, cx: &mut Context<'_>) -> Option<Arc<Flight>> {
        let now = Instant::now();
        let mut state = lock(&self.state);
        if !self.accepts(&state, now) {
            return None;
        }
        let Request { statement, params, keeps_rows, repeatable } = request;
        let work = execute(self.client.clone(), statement, params, keeps_rows);
        let mut work = match state.spare.pop() {
            Some(mut spare) => {
                spare.set(work);
                spare
            }
            None => Work::new(work),
        };
        // The first poll puts the request into the driver's channel. It clones the caller's waker, which may panic.
        let first = match catch_unwind(AssertUnwindSafe(|| work.poll(cx))) {
            Ok(first) => first,
            Err(panic) => {
                state.stopped = true;
                self.abort(Reason::Discarded);
                drop(state);
                resume_unwind(panic);
            }
        };
        if let Poll::Ready(Err(error)) = &first
            && error.as_db_error().is_none()
            && !self.record.has_ended()
        {
            // The driver may not have sent the request, so the numbers of later statements would not be certain.
            state.stopped = true;
            self.abort(Reason::Discarded);
        }
        let cancels = state.load.cancels();
        let flight = state.load.send(now, |number| Flight::new(number, cancels, repeatable, work, first));
        if state.load.in_flight() >= self.depth {
            state.full_since.get_or_insert(now);
        }
        let was_idle = now.saturating_duration_since(state.last_used) > LONG_TICK / 2;
        state.last_used = now;
        drop(state);
        if was_idle {
            self.owned.changed.notify_one();
        }
        Some(flight)
    }

    /// Applies that a statement has ended, and frees its place. Returns true if the connection was slow.
    pub(super) fn end(&self, number: u32, work: Option<Work>, now: Instant) -> bool {
        let (ended, was_slow) = {
            let mut state = lock(&self.state);
            if state.spare.len() < self.depth {
                state.spare.extend(work);
            }
            state.last_used = now;
            let was_slow = state.load.is_slow(now) || state.looks > 0;
            let ended = state.load.end(number, now);
            if state.load.in_flight() * 4 < self.depth * 3 {
                state.full_since = None;
            }
            (ended, was_slow)
        };
        drop(ended);
        if self.record.session_change().is_some() {
            // The statement has changed the session of all callers, for example with `set_config`.
            self.owned.close_when_clean(Reason::Discarded);
        }
        was_slow
    }

    /// Applies that the caller of a statement does not wait for it any more.
    pub(super) fn abandon(&self, number: u32) {
        lock(&self.state).load.abandon(number);
        self.owned.changed.notify_one();
    }

    /// Judges a statement that has failed.
    pub(super) fn judge(&self, flight: &Flight, error: &DriverError) -> Failure {
        // Read first: it acquires the tap's writes.
        let ended = self.record.has_ended();
        let written = self.written();
        let cancel_sent = lock(&self.state).load.cancels() != flight.cancels;
        judge(Facts { number: flight.number, written, ended, cancel_sent }, error)
    }

    /// Returns the number of statements that were written to the server, at least in part.
    fn written(&self) -> u32 {
        self.record.statements_written().wrapping_sub(self.executed_before)
    }

    /// Closes the connection immediately.
    pub(super) fn abort(&self, reason: Reason) {
        self.owned.set_reason(reason);
        self.driver.abort();
    }

    /// Records that the connection works.
    pub(super) fn touch(&self) {
        lock(&self.state).last_used = Instant::now();
        self.owned.changed.notify_one(); // a statement follows, and the task may sleep for a long time
    }
}

/// A statement that is being prepared on a connection.
pub(super) struct Preparing {
    connection: Arc<SharedConnection>,
    key: usize,
}

impl Drop for Preparing {
    fn drop(&mut self) {
        lock(&self.connection.state).load.end_prepare(self.key, Instant::now());
    }
}

/// The interval at which the supervising task looks at a connection that was unused for longer than this. A statement
/// that is sent after a pause of half of it wakes the task.
pub(super) const LONG_TICK: Duration = Duration::from_secs(1);

/// Time for which a connection must be full before another one is opened because of that.
const GROW_AFTER: Duration = Duration::from_millis(100);

/// Executes a statement. The first poll sends the request.
async fn execute(
    client: Arc<Client>,
    statement: Statement,
    params: Vec<Encoded>,
    keeps_rows: bool,
) -> Result<Rows, DriverError> {
    let mut stream = pin!(client.query_raw(&statement, params).await?);
    let mut rows = Vec::new();
    while let Some(row) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        let row = row?;
        if keeps_rows {
            rows.push(row);
        }
    }
    Ok(Rows { rows, affected: stream.rows_affected().unwrap_or(0) })
}

impl fmt::Debug for SharedConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("SharedConnection");
        out.field("owned", &self.owned).field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}
