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
/// can react before connections are refused. Load balancers in Kubernetes react later, so a `preStop` hook is also
/// needed.
const MIN_DRAIN: Duration = Duration::from_secs(1);

/// Maximum time for which requests may continue after the service has stopped accepting connections.
const MAX_CLOSING: Duration = Duration::from_secs(90);

/// The state of the graceful shutdown. While draining, the service still accepts requests, until the requests that were
/// running when draining began have finished. While closing, the service accepts no new connections.
pub(crate) struct Drain {
    stage: watch::Sender<Stage>,
    /// The token that each request clones. `None` once the shutdown has started.
    token: Mutex<Option<Token>>,
    /// The receiver of the channel whose senders are the tokens. The channel closes when the last token is dropped.
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

    /// Returns a token for a new request. Returns `None` once the shutdown has started, because the shutdown does not
    /// wait for later requests.
    pub(crate) fn enter(&self) -> Option<Token> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns true if the shutdown has started.
    pub(crate) fn has_started(&self) -> bool {
        *self.stage.borrow() > Stage::Serving
    }

    /// Waits until the service stops accepting connections. Endless responses, such as event streams, must end then.
    pub(crate) async fn closing(&self) {
        // The wait can fail only if the sender is dropped, and `self` owns the sender.
        let _ = self.stage.subscribe().wait_for(|stage| *stage == Stage::Closing).await;
    }

    /// Waits until the time limit for the remaining requests has expired.
    pub(crate) async fn overdue(&self) {
        self.closing().await;
        sleep(MAX_CLOSING).await;
    }

    /// Waits for the signal, then drains the running requests. Completes when the service must stop accepting
    /// connections.
    pub(crate) async fn run(self: Arc<Self>, signal: impl Future<Output = ()>) {
        signal.await;
        tracing::info!("shutting down: /readyz returns 503; waiting for running requests to finish");
        self.stage.send_replace(Stage::Draining);
        drop(self.token.lock().unwrap_or_else(PoisonError::into_inner).take());
        let mut finished = self.finished.lock().await;
        // No message is ever sent. `recv` returns when the last token is dropped.
        let (_, ()) = join!(finished.recv(), sleep(MIN_DRAIN));
        self.stage.send_replace(Stage::Closing);
    }
}
