//! Closes a pool: drains its Pods until `close_timeout`, then forcibly closes the remaining connections. The other
//! pools of its group are not affected.

use std::sync::Arc;

use tokio::{select, sync::oneshot, time::sleep_until};

use super::{Directory, drain::Drain};
use crate::{
    event::Event,
    pool::{inner::Inner, pod::view::View},
    sync::{Mutex, lock},
    system::spawn_on,
    time::Instant,
};

/// The callers that wait until the pool is closed. `None` once it is.
#[derive(Debug)]
pub(crate) struct CloseRequests(Mutex<Option<Vec<oneshot::Sender<usize>>>>);

impl CloseRequests {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }

    /// Adds a caller. The response is the number of connections that were closed forcibly. It fails if the pool is
    /// already closed, or if its runtime ends.
    pub(crate) fn add(&self) -> oneshot::Receiver<usize> {
        let (request, response) = oneshot::channel();
        if let Some(requests) = &mut *lock(&self.0) {
            requests.push(request);
        }
        response
    }

    /// Responds to all callers.
    fn respond(&self, aborted: usize) {
        for request in lock(&self.0).take().into_iter().flatten() {
            let _ = request.send(aborted); // fails only if the caller was cancelled
        }
    }

    /// Makes all callers fail.
    pub(crate) fn cancel(&self) {
        drop(lock(&self.0).take());
    }
}

/// A pool whose Pods are being drained. Dropping it makes the callers of `close` fail.
struct Closing(Arc<Inner>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close_requests.cancel();
    }
}

impl Directory {
    /// Starts to close a pool.
    pub(super) fn begin_close(&mut self, pool: u64, now: Instant) {
        let Some(joined) = self.pools.iter().find(|joined| joined.shared().id == pool) else { return };
        // Before the pool leaves the group, so that the metrics of the Pods are exported a last time.
        joined.inner.end(View { closed: true, unused: self.unused.clone(), ..View::empty() });
        let Some((inner, mut pods)) = self.leave(pool, now) else { return };
        pods.limit_deadlines(now + inner.shared.limits.close_timeout);
        let task = spawn_on(&self.group.runtime, drain(Closing(inner.clone()), pods));
        inner.set_closing(task.abort_handle());
    }
}

async fn drain(closing: Closing, mut pods: Drain) {
    let Closing(inner) = &closing;
    let shared = &inner.shared;
    loop {
        // `closed` is registered before the connections are counted, so that a connection that closes in between is
        // not missed.
        let closed = shared.group.connection_closed.notified();
        let mut closed = std::pin::pin!(closed);
        closed.as_mut().enable();
        for endpoint in pods.take_finished(Instant::now()) {
            shared.events.emit(Event::EndpointRemoved { endpoint });
        }
        let Some(deadline) = pods.next_deadline() else { break };
        select! {
            () = closed => {}
            () = sleep_until(deadline) => {}
        }
    }
    pods.finish_cancelling().await;
    inner.export(); // so that the metrics are final before `close` returns to its callers
    shared.events.close();
    inner.close_requests.respond(pods.aborted());
}
