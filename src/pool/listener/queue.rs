//! The queue between a connection and its [`Listener`](super::Listener). Keeps notifications and gaps in order.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{LISTENER_CAPACITY, ListenerEvent};
use crate::{
    sync::{Mutex, lock},
    wire::Notification,
};

/// The sending side of the queue.
#[derive(Debug)]
pub(super) struct Queue {
    sender: mpsc::Sender<ListenerEvent>,
    /// The cause of a gap that precedes the next notification.
    gap: Mutex<Option<Arc<str>>>,
    overflow: Arc<Overflow>,
}

/// True if items were dropped because the queue was full. Further items are dropped until the application has received
/// all items in the queue, so that the gap stands where the dropped items are missing.
#[derive(Debug, Default)]
pub(super) struct Overflow(Mutex<bool>);

impl Overflow {
    /// Returns a gap if items were dropped. Called only while the queue is empty.
    pub(super) fn take(&self) -> Option<ListenerEvent> {
        let dropped = std::mem::take(&mut *lock(&self.0));
        dropped.then(|| ListenerEvent::Gap { cause: "the application has received the items too slowly".into() })
    }
}

impl Queue {
    pub(super) fn new() -> (Arc<Self>, mpsc::Receiver<ListenerEvent>, Arc<Overflow>) {
        let (sender, receiver) = mpsc::channel(LISTENER_CAPACITY);
        let overflow = Arc::<Overflow>::default();
        (Arc::new(Self { sender, gap: Mutex::default(), overflow: overflow.clone() }), receiver, overflow)
    }

    /// Adds a notification, after the gap that precedes it.
    pub(super) fn add(&self, notification: Notification) {
        self.end_gap();
        self.send(ListenerEvent::Notification(notification));
    }

    /// Begins a gap, because the connection is lost. Called while no connection passes notifications.
    pub(super) fn begin_gap(&self, cause: Arc<str>) {
        *lock(&self.gap) = Some(cause);
    }

    /// Ends a gap, because the server sends notifications again. Does nothing if no gap has begun.
    pub(super) fn end_gap(&self) {
        let mut gap = lock(&self.gap);
        if let Some(cause) = gap.take() {
            self.send(ListenerEvent::Gap { cause });
        }
    }

    fn send(&self, item: ListenerEvent) {
        let mut overflow = lock(&self.overflow.0);
        if !*overflow {
            *overflow = matches!(self.sender.try_send(item), Err(mpsc::error::TrySendError::Full(_)));
        }
    }
}

#[cfg(all(test, not(podpool_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_gap_stands_where_items_are_missing() {
        let (queue, mut items, overflow) = Queue::new();
        let gap = |cause: &str| ListenerEvent::Gap { cause: cause.into() };
        queue.end_gap();
        assert!(items.try_recv().is_err(), "no gap has begun");
        queue.begin_gap("lost".into());
        queue.end_gap();
        queue.end_gap();
        assert_eq!((items.try_recv(), items.try_recv().is_err()), (Ok(gap("lost")), true));

        for number in 0..=LISTENER_CAPACITY {
            queue.send(gap(&number.to_string()));
        }
        for number in 0..LISTENER_CAPACITY {
            assert_eq!(items.try_recv(), Ok(gap(&number.to_string())));
            queue.send(gap("dropped until the queue is empty"));
        }
        assert!(items.try_recv().is_err());
        assert!(matches!(overflow.take(), Some(ListenerEvent::Gap { .. })));
        assert_eq!(overflow.take(), None);
        queue.send(gap("next"));
        assert_eq!(items.try_recv(), Ok(gap("next")));
    }
}
