use std::{
    convert::Infallible,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    join,
    sync::{mpsc, watch},
    time::sleep,
};

/// Minimum time for which the service accepts connections after `/readyz` starts to return 503, so that load balancers
/// can react before connections are refused. In Kubernetes this takes longer and needs a `preStop` hook as well.
const MIN_DRAIN: Duration = Duration::from_secs(1);

/// Maximum time for which requests may continue after the service has stopped to accept connections.
const MAX_CLOSING: Duration = Duration::from_secs(90);

/// The graceful shutdown. While draining, the service still accepts requests, until the requests that were running at
/// the start have finished. While closing, it accepts no more connections.
pub(crate) struct Drain {
    stage: watch::Sender<Stage>,
    /// Cloned for each request. `None` once the shutdown has started.
    token: Mutex<Option<Token>>,
    /// Closed when the last token is dropped.
    finished: tokio::sync::Mutex<mpsc::Receiver<Infallible>>,
}

#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Stage {
    Serving,
    Draining,
    Closing,
}

/// A token that a request holds while it runs.
pub(crate) type Token = mpsc::Sender<Infallible>;

impl Drain {
    pub(crate) fn new() -> Self {
        let (token, finished) = mpsc::channel(1);
        let (token, finished) = (Mutex::new(Some(token)), tokio::sync::Mutex::new(finished));
        Self { stage: watch::Sender::new(Stage::Serving), token, finished }
    }

    /// Returns the token of a new request, or `None` once the shutdown has started, which does not wait for such a
    /// request.
    pub(crate) fn enter(&self) -> Option<Token> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns true if the shutdown has started.
    pub(crate) fn has_started(&self) -> bool {
        *self.stage.borrow() > Stage::Serving
    }

    /// Waits until endless responses have to end.
    pub(crate) async fn closing(&self) {
        // The wait fails only if the sender is dropped, and `self` owns the sender.
        let _ = self.stage.subscribe().wait_for(|stage| *stage == Stage::Closing).await;
    }

    /// Waits until the time limit of the remaining requests.
    pub(crate) async fn overdue(&self) {
        self.closing().await;
        sleep(MAX_CLOSING).await;
    }

    /// Waits for the signal, then drains. Completes when the service has to stop accepting connections.
    pub(crate) async fn run(self: Arc<Self>, signal: impl Future<Output = ()>) {
        signal.await;
        tracing::info!("shutting down: not ready; waiting for running requests");
        self.stage.send_replace(Stage::Draining);
        drop(self.token.lock().unwrap_or_else(PoisonError::into_inner).take());
        let mut finished = self.finished.lock().await;
        // No message is ever sent. `recv` returns when the last token is dropped.
        let (_, ()) = join!(finished.recv(), sleep(MIN_DRAIN));
        self.stage.send_replace(Stage::Closing);
    }
}
