//! Defines the driver, the task that runs one connection. It polls tokio-postgres's `Connection`, updates the flags in
//! the [`Record`] of the connection, and closes the socket at the end.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use tokio::time::{Sleep, sleep};
use tokio_postgres::{AsyncMessage, Connection};

use super::{
    connection_observer::{ConnectionObserver, Evidence},
    record::Record,
    tap::Tap,
};
use crate::{config::Limits, time::Duration};

/// Maximum time for sending Terminate, flushing, and shutting down the socket after the pool has released the
/// connection.
const TERMINATE_TIMEOUT: Duration = Limits::TERMINATE_TIMEOUT;

/// A future that runs a connection until its end. Dropping it closes the socket.
pub(super) struct Driver {
    connection: Connection<Tap, Tap>,
    record: Arc<Record>,
    observer: ConnectionObserver,
    /// The waker of the last poll, kept so that the next poll can reuse it.
    waker: Option<(Arc<RecordingWaker>, Waker)>,
    /// A timer that ends the driver after `TERMINATE_TIMEOUT`. It starts when the pool releases the connection.
    close_timer: Option<Pin<Box<Sleep>>>,
}

/// A waker that marks the driver as woken in the record before it wakes the task.
struct RecordingWaker {
    record: Arc<Record>,
    task: Waker,
}

impl Wake for RecordingWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.record.wake();
        self.task.wake_by_ref();
    }
}

impl Driver {
    pub(super) fn new(connection: Connection<Tap, Tap>, record: Arc<Record>, observer: ConnectionObserver) -> Self {
        // A new driver is marked as woken, because no `RecordingWaker` exists before the first poll to mark it when a
        // request is sent.
        record.wake();
        Self { connection, record, observer, waker: None, close_timer: None }
    }

    /// Returns the recording waker that wraps the task's waker. A task rarely changes its waker, so the caller stores
    /// the recording waker after each poll for reuse.
    fn take_waker(&mut self, task: &Waker) -> (Arc<RecordingWaker>, Waker) {
        match self.waker.take() {
            Some(kept) if kept.0.task.will_wake(task) => kept,
            _ => {
                self.record.set_waker(task.clone());
                let recording = Arc::new(RecordingWaker { record: self.record.clone(), task: task.clone() });
                (recording.clone(), Waker::from(recording))
            }
        }
    }

    fn run(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.connection.poll_message(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Ready(Some(Ok(AsyncMessage::Notice(notice)))) => {
                    tracing::debug!(target: "podpool::notice", severity = notice.severity(), "{}", notice.message());
                }
                Poll::Ready(Some(Ok(AsyncMessage::Notification(notification)))) => {
                    self.record.notifications.pass(notification);
                }
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => {
                    if !self.record.is_released() && self.record.is_lost() {
                        self.observer.report(Evidence::Lost { cause: error.into() });
                    }
                    return Poll::Ready(());
                }
            }
        }
        if self.record.is_released() {
            // The timer is created in this task, so that it runs on the runtime of this task.
            let timer = self.close_timer.get_or_insert_with(|| Box::pin(sleep(TERMINATE_TIMEOUT)));
            return timer.as_mut().poll(cx);
        }
        Poll::Pending
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let kept = self.take_waker(cx.waker());
        self.record.begin_poll();
        // The tap, which is the stream below the driver, clears this flag when the driver has drained the socket.
        self.record.set_undelivered(true);
        let poll = self.run(&mut Context::from_waker(&kept.1));
        self.waker = Some(kept);
        if poll.is_ready() {
            self.record.set_ended();
        }
        self.record.end_poll();
        poll
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.record.set_ended();
    }
}
