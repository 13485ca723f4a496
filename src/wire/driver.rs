//! The task that runs one connection.

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

/// For Terminate, flush and shutdown.
const FAREWELL: Duration = Limits::FAREWELL;

/// Runs a connection until it ends. Cutting it short closes the socket.
pub(super) struct Driver {
    connection: Connection<Tap, Tap>,
    record: Arc<Record>,
    observer: ConnectionObserver,
    waker: Option<(Arc<Flagged>, Waker)>,
    farewell: Option<Pin<Box<Sleep>>>,
}

/// Wakes the task, and leaves a mark that it was woken.
struct Flagged {
    record: Arc<Record>,
    task: Waker,
}

impl Wake for Flagged {
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
        // Until its first poll nobody can wake it, and so nothing would tell of a request on its way.
        record.wake();
        Self { connection, record, observer, waker: None, farewell: None }
    }

    /// Our waker around the task's. A task keeps its waker, so this is made once, and put back after each poll.
    fn take_waker(&mut self, task: &Waker) -> (Arc<Flagged>, Waker) {
        match self.waker.take() {
            Some(kept) if kept.0.task.will_wake(task) => kept,
            _ => {
                let flagged = Arc::new(Flagged { record: self.record.clone(), task: task.clone() });
                (flagged.clone(), Waker::from(flagged))
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
                // LISTEN has no place on a connection that goes back to a pool; what comes is for nobody.
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => {
                    if !self.record.is_released() {
                        let told = self.record.was_told();
                        self.observer.report(Evidence::Lost { cause: error.into(), told });
                    }
                    return Poll::Ready(());
                }
            }
        }
        if self.record.is_released() {
            // Made here, so that it belongs to the runtime that runs this task.
            let farewell = self.farewell.get_or_insert_with(|| Box::pin(sleep(FAREWELL)));
            return farewell.as_mut().poll(cx);
        }
        Poll::Pending
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let kept = self.take_waker(cx.waker());
        self.record.begin();
        // Until the tap has seen it read to the end.
        self.record.set_held(true);
        let poll = self.run(&mut Context::from_waker(&kept.1));
        self.waker = Some(kept);
        if poll.is_ready() {
            self.record.set_ended();
        }
        self.record.end();
        poll
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.record.set_ended();
    }
}
