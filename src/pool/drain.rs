//! Pods on their way out: nothing new is lent, what is borrowed may finish until a deadline.

use std::sync::Arc;

use tokio::{task::JoinHandle, time::sleep};

use super::{entry::Entry, pod::Pod};
use crate::{
    config::Limits,
    endpoint::Endpoint,
    time::{Duration, Instant},
    wire::CancelToken,
};

/// Twice: what was on its way when the connection was cut may begin after the first request.
async fn cancel(token: CancelToken) {
    for pause in [Duration::ZERO, Limits::SETTLE_QUIET] {
        sleep(pause).await;
        if let Err(error) = token.cancel().await {
            tracing::debug!(%error, "could not cancel what ran on a connection that was cut");
        }
    }
}

/// The Pods that are being drained.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    pods: Vec<(Arc<Pod>, Instant)>,
    cut: usize,
    /// Requests to the server to end what ran on the connections that were cut: it would not notice by itself.
    cancelling: Vec<JoinHandle<()>>,
}

impl Drain {
    /// A Pod begins: its idle connections are closed, and its probe with them.
    pub(crate) fn begin(&mut self, entry: Entry, deadline: Instant) {
        let pod = entry.pod.clone();
        drop(entry);
        pod.close();
        self.pods.push((pod, deadline));
    }

    /// No Pod may take longer than this.
    pub(crate) fn shorten(&mut self, deadline: Instant) {
        for (_, until) in &mut self.pods {
            *until = deadline.min(*until);
        }
    }

    /// Takes out the Pods whose last connection has gone. Those whose time is up are cut first.
    pub(crate) fn finished(&mut self, now: Instant) -> Vec<Endpoint> {
        let mut finished = Vec::new();
        let Self { pods, cut, cancelling } = self;
        cancelling.retain(|task| !task.is_finished());
        pods.retain(|(pod, until)| {
            let deserted = pod.is_deserted();
            if !deserted && now >= *until {
                cancelling.extend(pod.at_work().into_iter().map(|token| tokio::spawn(cancel(token))));
                let lines = pod.cut();
                if lines > 0 {
                    tracing::warn!(endpoint = %pod.endpoint, connections = lines, "cut what was not given back in time");
                }
                *cut += lines;
                finished.push(pod.endpoint.clone());
                return false;
            }
            if deserted {
                finished.push(pod.endpoint.clone());
            }
            !deserted
        });
        finished
    }

    /// When the first of them is to be cut, if any is left.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.pods.iter().map(|(_, until)| *until).min()
    }

    /// Waits until the servers have been told to end what was cut. Each is told within `connect_timeout`, or not at all.
    pub(crate) async fn cancelled(&mut self) {
        for task in self.cancelling.drain(..) {
            drop(task.await); // it does not panic
        }
    }

    /// Connections that were cut so far.
    pub(crate) fn cut(&self) -> usize {
        self.cut
    }
}
