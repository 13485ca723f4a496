use std::sync::Arc;

use crate::{
    event::{Emitter, Event, Events, Lagged},
    unwind::{PanicSource, catch},
};

/// A receiver of events about the set of Pods. Pass it to [`Builder::observer`](crate::Builder::observer).
///
/// A separate task on the pool's runtime calls the observer for each event, in order. **The observer must not block**,
/// because it would block a thread of the runtime. A slow observer does not slow down the pool: if it is more than
/// [`EVENT_CAPACITY`](crate::EVENT_CAPACITY) events behind, the oldest events are dropped, and
/// [`lagged`](Observer::lagged) is called with the number of dropped events. If the observer panics, only the current
/// event is lost. For work that blocks or awaits, send the event to a task of your own, or use
/// [`Pool::events`](crate::Pool::events).
///
/// ```
/// use std::sync::mpsc::{SyncSender, TrySendError};
///
/// use podpool::{Event, Observer};
///
/// struct Alarm(SyncSender<String>);
///
/// impl Observer for Alarm {
///     fn event(&mut self, event: &Event) {
///         if let Event::StateChanged { endpoint, to: "ejected", cause, .. } = event {
///             let line = format!("{endpoint} was ejected: {}", cause.as_deref().unwrap_or("unknown cause"));
///             // Not `send`, which may block.
///             if let Err(TrySendError::Full(line)) = self.0.try_send(line) {
///                 eprintln!("alarm dropped because the channel is full: {line}");
///             }
///         }
///     }
/// }
/// ```
pub trait Observer: Send + 'static {
    /// Handles an event.
    fn event(&mut self, event: &Event);

    /// Handles the loss of events because the observer was too slow. Does nothing by default.
    fn lagged(&mut self, lagged: Lagged) {
        let _ = lagged;
    }
}

/// Passes all events to the observer until the stream ends.
pub(crate) async fn run(mut observer: Box<dyn Observer>, mut events: Events, emitter: Arc<Emitter>) {
    while let Some(event) = events.next().await {
        let handled = match event {
            // Skips panics of the observer itself: an observer that panics on every event would trigger itself
            // endlessly.
            Ok(Event::Panicked { source, .. }) if source == PanicSource::Observer.as_str() => continue,
            Ok(event) => catch(|| observer.event(&event)),
            Err(lagged) => catch(|| observer.lagged(lagged)),
        };
        if let Err(panic) = handled {
            emitter.panicked(PanicSource::Observer, &panic);
        }
    }
}
