use std::sync::Arc;

use crate::{
    event::{Emitter, Event, Lagged},
    unwind::{PanicSource, catch},
};

/// A receiver of events about the set of Pods. Pass it to [`Builder::observer`](crate::Builder::observer).
///
/// A separate task on the pool's runtime calls the observer for each event, in order. **The observer
/// must not block**, because it would block a thread of the runtime. It cannot slow down the pool: an observer that is
/// more than [`EVENT_CAPACITY`](crate::EVENT_CAPACITY) events behind loses the oldest ones, and
/// [`lagged`](Observer::lagged) is called with their number. A panic loses
/// only the event. To wait for something, send the event to a task of your own, or use
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
pub(crate) async fn run(mut observer: Box<dyn Observer>, emitter: Arc<Emitter>) {
    let mut events = emitter.subscribe();
    while let Some(event) = events.next().await {
        let handled = match event {
            // An observer that panics at each event would otherwise cause the next one.
            Ok(Event::Panicked { source, .. }) if source == PanicSource::Observer.as_str() => continue,
            Ok(event) => catch(|| observer.event(&event)),
            Err(lagged) => catch(|| observer.lagged(lagged)),
        };
        if let Err(panic) = handled {
            emitter.panicked(PanicSource::Observer, &panic);
        }
    }
}
