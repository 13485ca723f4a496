//! The receiving side of the event stream.

use std::{
    fmt,
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;
use tokio::sync::broadcast::{
    Receiver,
    error::{RecvError, TryRecvError},
};

use super::{EVENT_CAPACITY, Event};

/// A subscription to the pool's events. Receives all events that are emitted after its creation.
///
/// Implements `Stream` of the crate `futures-core`, which ends once the pool has been closed.
pub struct Events(State);

enum State {
    /// The pool has been closed.
    Ended,
    /// No task waits for an event.
    Ready(Receiver<Event>),
    /// A task waits for an event. The future has the receiver.
    Waiting(Waiting),
}

/// A future that waits for the next event, and returns the receiver with it.
type Waiting = Pin<Box<dyn Future<Output = (Receiver<Event>, Result<Event, RecvError>)> + Send + Sync>>;

/// The error that a subscriber gets after falling more than [`EVENT_CAPACITY`] events behind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "the count is the only information")]
pub struct Lagged {
    /// Number of events that were lost.
    pub lost: u64,
}

impl fmt::Display for Lagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events lost: the subscriber was too slow", self.lost)
    }
}

impl std::error::Error for Lagged {}

impl Events {
    pub(super) fn new(receiver: Receiver<Event>) -> Self {
        Self(State::Ready(receiver))
    }

    /// Waits for the next event. Returns `None` once the pool has been closed. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`Lagged`] if events were lost. The next call returns the oldest event that is still buffered.
    pub async fn next(&mut self) -> Option<Result<Event, Lagged>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Events {
    type Item = Result<Event, Lagged>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let (state, item) = match mem::replace(&mut self.0, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Ready(mut receiver) => match receiver.try_recv() {
                    Ok(event) => (State::Ready(receiver), Some(Ok(event))),
                    Err(TryRecvError::Lagged(lost)) => (State::Ready(receiver), Some(Err(Lagged { lost }))),
                    Err(TryRecvError::Closed) => (State::Ended, None),
                    Err(TryRecvError::Empty) => {
                        self.0 = State::Waiting(Box::pin(async move {
                            let received = receiver.recv().await;
                            (receiver, received)
                        }));
                        continue;
                    }
                },
                State::Waiting(mut waiting) => match waiting.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.0 = State::Waiting(waiting);
                        return Poll::Pending;
                    }
                    Poll::Ready((receiver, Ok(event))) => (State::Ready(receiver), Some(Ok(event))),
                    Poll::Ready((receiver, Err(RecvError::Lagged(lost)))) => {
                        (State::Ready(receiver), Some(Err(Lagged { lost })))
                    }
                    Poll::Ready((_, Err(RecvError::Closed))) => (State::Ended, None),
                },
            };
            self.0 = state;
            return Poll::Ready(item);
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(state) = self;
        let has_ended = matches!(state, State::Ended);
        f.debug_struct("Events").field("capacity", &EVENT_CAPACITY).field("has_ended", &has_ended).finish()
    }
}

#[cfg(all(test, not(podpool_loom)))]
mod tests {
    use std::time::Duration;

    use futures_util::{FutureExt as _, StreamExt};

    use super::*;
    use crate::event::Emitter;

    fn names(events: &mut Events) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(Some(event)) = StreamExt::next(events).now_or_never() {
            names.push(event.map_or_else(|lagged| lagged.to_string(), |event| event.name().to_owned()));
        }
        names
    }

    #[tokio::test]
    async fn a_subscription_is_a_stream_that_loses_no_event_when_a_poll_is_cancelled() {
        let emitter = Emitter::new("test".into());
        let mut events = emitter.subscribe();
        assert!(events.next().now_or_never().is_none(), "a waiting call is cancelled");
        emitter.emit(Event::CertificatesReloaded);
        emitter.emit(Event::NoHealthyPods { pods: 1, cause: "down".into() });
        assert_eq!(names(&mut events), ["certificates_reloaded", "no_healthy_pods"]);
        let waiting = tokio::spawn(async move { (StreamExt::next(&mut events).await, events) });
        tokio::task::yield_now().await;
        emitter.emit(Event::HealthyPodsAgain { after: Duration::from_secs(1) });
        let (event, mut events) = waiting.await.unwrap();
        assert!(matches!(event, Some(Ok(Event::HealthyPodsAgain { .. }))), "the waiting task is woken: {event:?}");
        (0..EVENT_CAPACITY + 2).for_each(|_| emitter.emit(Event::CertificatesReloaded));
        let received = names(&mut events);
        assert_eq!((received.len(), &*received[0]), (EVENT_CAPACITY + 1, "2 events lost: the subscriber was too slow"));
        emitter.emit(Event::NoHealthyPods { pods: 1, cause: "down".into() });
        emitter.close();
        assert_eq!(names(&mut events), ["no_healthy_pods"], "events before the end are received");
        assert!(matches!(events.next().now_or_never(), Some(None)), "the stream has ended");
        assert!(matches!(events.next().now_or_never(), Some(None)), "it stays ended");
    }
}
