//! One statement that was sent on a shared connection.
//!
//! The caller polls the driver's future itself. If the caller stops, because it was cancelled or because its task does
//! not run, the task that [supervises](super::supervise) the connection polls the future instead: the driver holds
//! only a few messages of a response, and a response that nobody receives would block all later ones.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio_postgres::Row;
use tokio_util::sync::ReusableBoxFuture;

use super::place::Place;
use crate::{
    sync::{Mutex, lock},
    time::Instant,
    unwind::catch,
    wire::classify::DriverError,
};

/// The result of a statement.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) rows: Vec<Row>,
    /// Number of rows that the statement has affected or returned.
    pub(super) affected: u64,
}

/// The driver's part of a statement. Its memory is used again for later statements, because it is larger than the
/// objects for which the usual allocators are fast.
pub(super) type Work = ReusableBoxFuture<'static, Result<Rows, DriverError>>;

/// A statement that was sent.
pub(super) struct Flight {
    /// The number of the statement on its connection.
    pub(super) number: u32,
    /// Number of cancel requests on the connection before the statement was sent.
    pub(super) cancels: u32,
    /// True if the statement may run twice.
    repeatable: bool,
    state: Mutex<State>,
}

struct State {
    progress: Progress,
    /// Wakes the caller.
    caller: Option<Waker>,
    /// True if the caller must run the statement on another connection.
    moved: bool,
}

enum Progress {
    Running(Work),
    /// The work has ended, and its memory can be used again.
    Ended(Result<Rows, DriverError>, Option<Work>),
    /// The caller has received the result.
    Taken,
}

/// The reason why a caller stops to wait for a statement.
pub(super) enum Landing {
    Ended(Result<Rows, DriverError>),
    /// The statement waits behind a slow one, and may run on another connection instead.
    Moved,
}

impl Flight {
    /// Creates the flight of a statement whose work was polled once, with this result.
    pub(super) fn new(
        number: u32,
        cancels: u32,
        repeatable: bool,
        work: Work,
        first: Poll<Result<Rows, DriverError>>,
    ) -> Arc<Self> {
        let progress = match first {
            Poll::Ready(result) => Progress::Ended(result, Some(work)),
            Poll::Pending => Progress::Running(work),
        };
        let state = Mutex::new(State { progress, caller: None, moved: false });
        Arc::new(Self { number, cancels, repeatable, state })
    }

    /// Polls the statement for its caller. Returns the work too if it has ended.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<(Landing, Option<Work>)> {
        let mut state = lock(&self.state);
        if let Progress::Running(work) = &mut state.progress {
            match work.poll(cx) {
                Poll::Ready(result) => state.end(result),
                Poll::Pending if state.moved => return Poll::Ready((Landing::Moved, None)),
                Poll::Pending => {
                    if !state.caller.as_ref().is_some_and(|caller| caller.will_wake(cx.waker())) {
                        state.caller = Some(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
            }
        }
        match mem::replace(&mut state.progress, Progress::Taken) {
            Progress::Ended(result, work) => Poll::Ready((Landing::Ended(result), work)),
            Progress::Running(_) | Progress::Taken => Poll::Pending, // not polled after its end
        }
    }

    /// Polls the statement instead of its caller. Returns `Ready` if it has ended, and wakes the caller then.
    pub(super) fn rescue(&self, cx: &mut Context<'_>) -> Poll<()> {
        let caller = {
            let mut state = lock(&self.state);
            let Progress::Running(work) = &mut state.progress else { return Poll::Ready(()) };
            match work.poll(cx) {
                Poll::Ready(result) => state.end(result),
                Poll::Pending => return Poll::Pending,
            }
            state.caller.take()
        };
        wake(caller);
        Poll::Ready(())
    }

    /// Wakes the caller, so that it polls the statement again.
    pub(super) fn wake_caller(&self) {
        let caller = lock(&self.state).caller.take();
        wake(caller);
    }

    /// Makes the caller run the statement on another connection, if the statement may run twice.
    pub(super) fn move_away(&self) {
        if !self.repeatable {
            return;
        }
        let caller = {
            let mut state = lock(&self.state);
            if mem::replace(&mut state.moved, true) {
                return;
            }
            state.caller.take()
        };
        wake(caller);
    }
}

impl State {
    /// Applies that the work has ended.
    fn end(&mut self, result: Result<Rows, DriverError>) {
        let work = match mem::replace(&mut self.progress, Progress::Taken) {
            Progress::Running(work) => Some(work),
            Progress::Ended(_, work) => work,
            Progress::Taken => None,
        };
        self.progress = Progress::Ended(result, work);
    }
}

/// Wakes a caller, which may run on any executor. A panic of its waker affects only that caller.
fn wake(caller: Option<Waker>) {
    if let Some(caller) = caller {
        let _ = catch(|| caller.wake());
    }
}

/// The caller's handle to a statement that was sent. Dropping it before the end abandons the statement.
pub(super) struct InFlight {
    pub(super) flight: Arc<Flight>,
    pub(super) place: Place,
    ended: bool,
}

impl InFlight {
    /// Creates the handle to a statement that was sent in this place.
    pub(super) fn new(flight: Arc<Flight>, place: Place) -> Self {
        Self { flight, place, ended: false }
    }
}

impl Future for InFlight {
    type Output = Landing;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Landing> {
        let Poll::Ready((landing, work)) = self.flight.poll(cx) else { return Poll::Pending };
        if let Landing::Ended(_) = &landing {
            self.ended = true;
            let (Place { pool, pod, connection, .. }, now) = (&self.place, Instant::now());
            if connection.end(self.flight.number, work, now) {
                pool.serve_shared(); // the connection was slow, so it may have several free places
            } else {
                pool.serve_one_shared(pod, connection, now);
            }
        }
        Poll::Ready(landing)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.ended {
            self.place.connection.abandon(self.flight.number);
        }
    }
}
