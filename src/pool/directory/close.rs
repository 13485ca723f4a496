//! The end of the pool.

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
        self.drain.shorten(deadline);
        let mut requests = vec![request];
        loop {
            let gone = shared.gone.notified();
            let mut gone = std::pin::pin!(gone);
            gone.as_mut().enable();
            for endpoint in self.drain.finished(Instant::now()) {
                shared.events.emit(Event::EndpointRemoved { endpoint });
            }
            let Some(deadline) = self.drain.next_deadline() else { break };
            select! {
                () = gone => {}
                () = sleep_until(deadline) => {}
                Some(request) = more.recv() => requests.push(request),
            }
        }
        self.drain.cancelled().await;
        self.inner.export(); // whoever asked finds all of it counted
        while let Ok(request) = more.try_recv() {
            requests.push(request);
        }
        for request in requests {
            let _ = request.send(self.drain.cut()); // whoever asked may have given up
        }
    }
}
