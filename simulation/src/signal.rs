//! A counter of changes that tasks can wait for.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// A counter of changes. Wakes all waiting tasks in the order in which they began to wait. The channel `watch` of tokio
/// wakes them in a random order, which would make a simulation depend on the runtime's random generator.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    count: Mutex<u64>,
    notify: Notify,
}

impl Signal {
    /// Counts a change.
    pub(crate) fn raise(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.notify.notify_waiters();
    }

    /// Returns the number of changes so far.
    pub(crate) fn count(&self) -> u64 {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the number of changes is not `seen`. Returns the number.
    pub(crate) async fn changed(&self, seen: u64) -> u64 {
        loop {
            let mut notified = std::pin::pin!(self.notify.notified());
            // Registered before the check, so that no change is missed.
            notified.as_mut().enable();
            let count = self.count();
            if count != seen {
                return count;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn wakes_tasks_in_the_order_in_which_they_began_to_wait() {
        let (signal, order) = (Arc::new(Signal::default()), Arc::new(Mutex::new(Vec::new())));
        for index in 0..100 {
            let (signal, order) = (signal.clone(), order.clone());
            tokio::spawn(async move {
                signal.changed(0).await;
                order.lock().unwrap().push(index);
            });
        }
        // Paused time advances when all tasks wait.
        sleep(Duration::from_millis(1)).await;
        signal.raise();
        assert_eq!(signal.changed(0).await, 1);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
    }
}
