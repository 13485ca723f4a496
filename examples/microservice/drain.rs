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

/// How long the door stays open, at least, after `/readyz` has turned 503: whoever routes requests here should see it
/// before connections are refused. What takes longer, as in Kubernetes, is for a `preStop` hook.
const LINGER: Duration = Duration::from_secs(1);

/// How long requests may go on after the door is closed.
const LIMIT: Duration = Duration::from_secs(90);

/// The orderly end: requests that run when it begins finish, new ones are served until then, then the door closes.
pub(crate) struct Drain {
    stage: watch::Sender<Stage>,
    /// Held by every request that began in time; taken away when the end begins.
    token: Mutex<Option<Token>>,
    /// Hears of the last token's end.
    finished: tokio::sync::Mutex<mpsc::Receiver<Infallible>>,
}

#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Stage {
    Serving,
    Draining,
    Closing,
}

/// Held by a request while it runs.
pub(crate) type Token = mpsc::Sender<Infallible>;

impl Drain {
    pub(crate) fn new() -> Self {
        let (token, finished) = mpsc::channel(1);
        let (token, finished) = (Mutex::new(Some(token)), tokio::sync::Mutex::new(finished));
        Self { stage: watch::Sender::new(Stage::Serving), token, finished }
    }

    /// A request begins. `None` once the end has begun: then nobody waits for it but its own connection.
    pub(crate) fn enter(&self) -> Option<Token> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the end has begun.
    pub(crate) fn has_begun(&self) -> bool {
        *self.stage.borrow() > Stage::Serving
    }

    /// Waits for the moment to end what has no end of its own.
    pub(crate) async fn closing(&self) {
        // The sender is in `self`, so the wait cannot fail.
        let _ = self.stage.subscribe().wait_for(|stage| *stage == Stage::Closing).await;
    }

    /// Waits until requests have had more than enough time to finish.
    pub(crate) async fn overdue(&self) {
        self.closing().await;
        sleep(LIMIT).await;
    }

    /// The whole end, from the moment it is asked for to the moment the door closes.
    pub(crate) async fn run(self: Arc<Self>, asked: impl Future<Output = ()>) {
        asked.await;
        tracing::info!("asked to end: not ready any more, running requests finish");
        self.stage.send_replace(Stage::Draining);
        drop(self.token.lock().unwrap_or_else(PoisonError::into_inner).take());
        let mut finished = self.finished.lock().await;
        // Nothing is ever sent: the channel ends with its last token.
        let (_, ()) = join!(finished.recv(), sleep(LINGER));
        self.stage.send_replace(Stage::Closing);
    }
}
