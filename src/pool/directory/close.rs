//! Closes the pool: drains all Pods until `close_timeout`, then forcibly closes the remaining connections.

use tokio::{select, sync::mpsc, time::sleep_until};

use super::{CloseRequest, Directory};
use crate::{event::Event, time::Instant};

impl Directory {
    pub(super) async fn close(mut self, request: CloseRequest, mut more: mpsc::UnboundedReceiver<CloseRequest>) {
        let shared = self.inner.shared.clone();
        let deadline = Instant::now() + shared.limits.close_timeout;
        let members = self.members.clear();
        let last = self.view(true);
        self.inner.end(last);
        for member in members {
            self.drain.begin(member, deadline);
        }
        self.drain.limit_deadlines(deadline);
        let mut requests = vec![request];
        loop {
            // `closed` is registered before the connections are counted, so that a connection that closes in between is
            // not missed.
            let closed = shared.connection_closed.notified();
            let mut closed = std::pin::pin!(closed);
            closed.as_mut().enable();
            for endpoint in self.drain.take_finished(Instant::now()) {
                shared.events.emit(Event::EndpointRemoved { endpoint });
            }
            let Some(deadline) = self.drain.next_deadline() else { break };
            select! {
                () = closed => {}
                () = sleep_until(deadline) => {}
                Some(request) = more.recv() => requests.push(request),
            }
        }
        self.drain.finish_cancelling().await;
        self.inner.export(); // so that the metrics are final before `close` returns to its callers
        while let Ok(request) = more.try_recv() {
            requests.push(request);
        }
        for request in requests {
            let _ = request.send(self.drain.aborted()); // fails only if the caller was cancelled
        }
    }
}
