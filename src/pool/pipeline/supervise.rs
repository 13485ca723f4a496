//! The task that supervises one shared connection. It holds the connection's permit until the socket is closed.
//!
//! The task polls the statements whose callers do not, moves statements away from a slow connection, and cancels
//! abandoned ones. A CancelRequest names a session, not a statement (PostgreSQL manual, "Canceling Requests in
//! Progress"). Therefore nothing is written on the connection from the decision to cancel until the server has closed
//! the connection of the CancelRequest and has answered every statement.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use tokio::{select, task::JoinHandle, time::sleep};

use super::{
    connection::{LONG_TICK, SharedConnection},
    flight::Flight,
    load::SLOW_MIN,
};
use crate::{
    error::Error,
    pool::{
        checkout::ping::probe_misfit,
        inner::Inner,
        pod::conn::{Permit, Reason},
    },
    time::{Duration, Instant},
    trace::pod_line,
    wire::record::RecordOwner,
};

/// A supervised connection. If the task is dropped, because the runtime shuts down, the driver ends too.
pub(super) struct Supervised {
    pub(super) connection: Arc<SharedConnection>,
    pub(super) record: RecordOwner,
    pub(super) driver: JoinHandle<()>,
    /// Dropped last: the permit is released after the connection has been closed.
    pub(super) permit: Permit,
    pub(super) pool: Weak<Inner>,
}

/// The interval at which the task looks at a connection without statements in flight that was used recently.
const IDLE_TICK: Duration = Duration::from_millis(50);

/// Time within which the requests that were sent before a cancellation normally reach the server.
const WRITTEN_WITHIN: Duration = crate::config::Limits::RECYCLE_TIMEOUT;

/// Waits until the connection has ended. Closes it when it is clean, once the pool requires this.
pub(super) async fn supervise(supervised: Supervised) {
    let Supervised { connection, record, mut driver, permit, pool } = supervised;
    let mut tasks = Tasks::default();
    loop {
        let tick = tasks.look(&connection, &permit, &pool, Instant::now());
        let closes = connection.owned.closes_when_clean() && connection.is_answered();
        select! {
            biased;
            _ = &mut driver => break, // the driver does not panic, and may be aborted
            () = record.wait_until_clean(), if closes => {
                driver.abort();
                drop(driver.await); // the driver may have ended before
                break;
            }
            () = connection.owned.changed.notified() => {}
            () = poll_fn(|cx| tasks.poll(cx, &connection, &permit, &pool)) => {}
            () = sleep(tick) => {}
        }
    }
    drop(tasks); // the callers of its statements see that the connection has ended
    permit.shared_connections.remove(&connection);
    connection.forget_all();
    let owned = &connection.owned;
    let reason = owned.reason().unwrap_or(if record.is_released() { Reason::Released } else { Reason::Ended });
    permit.shared().counters.closed_for.increment(reason);
    drop(record);
    drop(permit);
    if let Some(pool) = pool.upgrade() {
        pool.reevaluate_shared();
    }
}

/// The work of the supervising task.
#[derive(Default)]
struct Tasks {
    /// The statements that the task polls.
    rescued: Vec<Arc<Flight>>,
    cancel: Cancel,
}

/// The state of a cancellation.
#[derive(Default)]
enum Cancel {
    #[default]
    None,
    /// Nothing more is written. Requests may still be on their way to the socket, or the last cancel request had no
    /// effect yet.
    Stopped {
        since: Instant,
    },
    Requesting(Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>),
}

impl Tasks {
    /// Looks at the statements in flight. Returns the time after which to look again.
    fn look(
        &mut self,
        connection: &Arc<SharedConnection>,
        permit: &Permit,
        pool: &Weak<Inner>,
        now: Instant,
    ) -> Duration {
        if connection.has_place(now) {
            serve(pool);
        }
        let polled = self.rescued.len();
        for flight in connection.overdue(now) {
            if !self.rescued.iter().any(|rescued| Arc::ptr_eq(rescued, &flight)) {
                self.rescued.push(flight);
            }
        }
        let blocked = connection.blocked(now);
        blocked.iter().for_each(|flight| flight.move_away());
        let is_polled = |flight: &Arc<Flight>| self.rescued[..polled].iter().any(|other| Arc::ptr_eq(other, flight));
        if matches!(self.cancel, Cancel::None) && connection.stop_to_cancel(now, is_polled) {
            self.cancel = Cancel::Stopped { since: now };
        }
        if let Cancel::Stopped { since } = self.cancel {
            let waited = now.saturating_duration_since(since) > WRITTEN_WITHIN;
            if connection.resume() {
                self.cancel = Cancel::None;
                serve(pool);
            } else if connection.begin_cancel(now, waited) {
                let token = connection.token.clone();
                self.cancel = Cancel::Requesting(Box::pin(async move { token.cancel().await }));
            }
        }
        let limits = &permit.shared().limits;
        if connection.takes_misfit(now) {
            probe_misfit(permit, &connection.record);
            connection.owned.close_when_clean(Reason::Discarded);
        }
        if connection.is_unused() {
            connection.look(now);
            let close = |reason| connection.owned.close_when_clean(reason);
            let unused_for = connection.unused_for(now);
            if connection.owned.reason().is_some() {
                // It is closed already.
            } else if now >= connection.expires_at {
                close(Reason::Lifetime);
            } else if unused_for > limits.idle_timeout {
                close(Reason::Idle);
            } else if unused_for > LONG_TICK {
                let wanted = limits.shared_connections;
                permit.shared_connections.close_superfluous(wanted, now, || close(Reason::Idle));
            }
            return if unused_for > LONG_TICK { LONG_TICK } else { IDLE_TICK };
        }
        if now >= connection.expires_at && connection.owned.reason().is_none() {
            connection.owned.close_when_clean(Reason::Lifetime);
        }
        if connection.look(now)
            && let Some(pool) = pool.upgrade()
        {
            pool.reevaluate_shared(); // a caller that waits may have to open another connection
        }
        connection.slow_after().clamp(SLOW_MIN, IDLE_TICK)
    }

    /// Polls the statements, and the cancel request. Returns `Ready` if one of them has ended.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        connection: &SharedConnection,
        permit: &Permit,
        pool: &Weak<Inner>,
    ) -> Poll<()> {
        let before = self.rescued.len();
        self.rescued.retain(|flight| {
            let ended = flight.rescue(cx).is_ready();
            if ended {
                connection.end(flight.number, None, Instant::now());
            }
            !ended
        });
        let mut ready = self.rescued.len() != before;
        if ready {
            serve(pool);
        }
        if let Cancel::Requesting(request) = &mut self.cancel
            && let Poll::Ready(result) = request.as_mut().poll(cx)
        {
            if let Err(error) = result {
                pod_line!(warn, permit, %error, "could not cancel an abandoned statement on a shared connection");
                // The server may receive the request later, and would cancel the statement of another caller.
                connection.owned.close_when_clean(Reason::Discarded);
            }
            self.cancel = Cancel::Stopped { since: Instant::now() };
            ready = true;
        }
        if ready { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Tasks {
    /// Returns the statements to their callers. The end of the connection, or of the runtime, has woken only this task.
    fn drop(&mut self) {
        self.rescued.iter().for_each(|flight| flight.wake_caller());
    }
}

fn serve(pool: &Weak<Inner>) {
    if let Some(pool) = pool.upgrade() {
        pool.serve_shared();
    }
}
