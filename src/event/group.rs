//! The events of a group of pools that share their Pods.

use super::{Emitter, Event};
use crate::{
    sync::{Arc, Mutex, lock},
    unwind::{Panic, PanicSource},
};

/// The sending sides of the event streams of all pools of a group, in the order in which the pools were built.
#[derive(Debug, Default)]
pub(crate) struct GroupEvents(Mutex<Vec<Arc<Emitter>>>);

impl GroupEvents {
    /// Adds a pool.
    pub(crate) fn add(&self, emitter: Arc<Emitter>) {
        lock(&self.0).push(emitter);
    }

    /// Removes a pool.
    pub(crate) fn remove(&self, emitter: &Arc<Emitter>) {
        lock(&self.0).retain(|other| !Arc::ptr_eq(other, emitter));
    }

    /// Returns true if this is the first pool of the group. Events and metrics about the Pods are logged, counted and
    /// exported only for this pool.
    #[cfg(any(feature = "_metrics", test))]
    pub(crate) fn is_first(&self, emitter: &Arc<Emitter>) -> bool {
        lock(&self.0).first().is_some_and(|first| Arc::ptr_eq(first, emitter))
    }

    /// Returns the name of the first pool. Empty if there is no pool.
    pub(crate) fn name(&self) -> Arc<str> {
        lock(&self.0).first().map_or_else(|| Arc::from(""), |first| first.name().clone())
    }

    /// Sends an event to the subscribers of all pools. It is logged and counted only for the first one.
    pub(crate) fn emit(&self, event: Event) {
        // Sent outside of the lock, because sending wakes the subscribers.
        let emitters = lock(&self.0).clone();
        let mut emitters = emitters.into_iter();
        let first = emitters.next();
        emitters.for_each(|emitter| emitter.forward(event.clone()));
        if let Some(first) = first {
            first.emit(event);
        }
    }

    /// Reports a panic of a task that the pools share.
    pub(crate) fn panicked(&self, source: PanicSource, panic: &Panic) {
        let first = lock(&self.0).first().cloned();
        if let Some(first) = first {
            first.panicked(source, panic);
        }
    }
}

#[cfg(all(test, not(podpool_loom)))]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn an_event_reaches_the_subscribers_of_all_pools_and_the_first_remaining_pool_counts_it() {
        let emitters: Vec<_> = ["a", "b", "c"].map(|name| Arc::new(Emitter::new(name.into()))).into();
        let group = GroupEvents::default();
        emitters.iter().for_each(|emitter| group.add(emitter.clone()));
        let mut streams: Vec<_> = emitters.iter().map(|emitter| emitter.subscribe()).collect();
        let count = |emitter: &Emitter| emitter.count_of("certificates_reloaded");
        for (removed, counts) in [(None, [1, 0, 0]), (Some(0), [1, 1, 0]), (Some(1), [1, 1, 1])] {
            if let Some(removed) = removed {
                let emitter: &Arc<Emitter> = &emitters[removed];
                group.remove(emitter);
                assert_eq!(&*group.name(), ["b", "c"][removed]);
                streams.remove(0);
            }
            group.emit(Event::CertificatesReloaded);
            assert_eq!([0, 1, 2].map(|i| count(&emitters[i])), counts);
            for stream in &mut streams {
                let event = stream.next().now_or_never();
                assert!(matches!(event, Some(Some(Ok(Event::CertificatesReloaded)))), "{event:?}");
                assert!(stream.next().now_or_never().is_none(), "one event");
            }
        }
        assert!(group.is_first(&emitters[2]) && !group.is_first(&emitters[0]));
        group.remove(&emitters[2]);
        group.emit(Event::CertificatesReloaded);
        assert_eq!(&*group.name(), "");
    }
}
