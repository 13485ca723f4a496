use crate::event::{Event, Events, Lagged};

/// Hears what happens to the set of Pods. Given to [`Builder::observer`](crate::Builder::observer).
///
/// It is called by a task of its own on the pool's runtime, one event after the other, in their order. **It must not
/// block**: that would hold a thread of the runtime. It slows down nobody else, however: who is more than
/// [`EVENT_CAPACITY`](crate::EVENT_CAPACITY) events behind loses the oldest and is told how many. A panic in it ends its
/// own task and nothing else. To wait for something, send the event to a task of your own, or use
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
///             let line = format!("{endpoint} is out: {}", cause.as_deref().unwrap_or("no cause"));
///             // `try_send`, as `send` may block.
///             if let Err(TrySendError::Full(line)) = self.0.try_send(line) {
///                 eprintln!("nobody reads the alarms: {line}");
///             }
///         }
///     }
/// }
/// ```
pub trait Observer: Send + 'static {
    /// Something happened.
    fn event(&mut self, event: &Event);

    /// It was too slow, and so many events were lost. Does nothing unless implemented.
    fn lagged(&mut self, lagged: Lagged) {
        let _ = lagged;
    }
}

/// Tells the observer of every event until there are no more.
pub(crate) async fn run(mut observer: Box<dyn Observer>, mut events: Events) {
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => observer.event(&event),
            Err(lagged) => observer.lagged(lagged),
        }
    }
}
