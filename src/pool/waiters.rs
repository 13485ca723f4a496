//! The callers who found no idle connection, in the order they came.
//!
//! A connection that comes back, or that has just been opened, goes to the first in the queue whose target its Pod
//! serves; see [`slot`](crate::endpoint::slot) for why none is missed. A connection is handed over as a [`Client`], so
//! one that reaches a caller who has just given up is given back, and from there to the next.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering, fence},
    },
};

use tokio::sync::Notify;

use super::client::Client;
use crate::{
    config::Target,
    endpoint::slot::Slot,
    sync::{Mutex, lock},
};

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    queue: Mutex<VecDeque<Arc<Waiter>>>,
    /// The queue's length, to be read without the lock.
    len: AtomicUsize,
}

#[derive(Debug)]
struct Waiter {
    target: Target,
    client: Mutex<Option<Client>>,
    wake: Notify,
}

/// A place in the queue, given up when dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    waiters: &'a Waiters,
    waiter: Arc<Waiter>,
    /// It was handed a connection, and so is in the queue no more.
    served: bool,
}

impl Waiters {
    /// Takes the last place, or the first, for one who has waited his turn and was given what did not do.
    pub(crate) fn enter(&self, target: Target, again: bool) -> Place<'_> {
        let waiter = Arc::new(Waiter { target, client: Mutex::default(), wake: Notify::new() });
        let mut queue = lock(&self.queue);
        if again {
            queue.push_front(waiter.clone());
        } else {
            queue.push_back(waiter.clone());
        }
        self.len.store(queue.len(), Ordering::Relaxed);
        drop(queue);
        // Pairs with the fence in `berth_freed`: either the one who frees a berth sees this place, or the berth is seen
        // to be free here.
        fence(Ordering::SeqCst);
        Place { waiters: self, waiter, served: false }
    }

    /// Gives idle connections of a Pod to those who wait for one like it, first come, first served. `idle` takes one, and
    /// is never called under the queue's lock: closing what it finds over comes back here.
    pub(crate) fn serve(&self, slot: &Slot, mut idle: impl FnMut() -> Option<Client>) {
        while self.is_wanted(slot) {
            let Some(client) = idle() else { return };
            if let Some(client) = self.hand_over(slot, client) {
                // Whoever wanted it has gone meanwhile. Given back, and so to whoever has come.
                return drop(client);
            }
        }
    }

    /// Whether anybody waits for a Pod like this one.
    fn is_wanted(&self, slot: &Slot) -> bool {
        let queue = lock(&self.queue);
        let wanted = queue.iter().any(|waiter| slot.serves(waiter.target.bit()));
        if !wanted {
            slot.clear_waited();
        }
        wanted
    }

    /// Hands a connection to the first who waits for a Pod like this one, or back.
    pub(crate) fn hand_over(&self, slot: &Slot, client: Client) -> Option<Client> {
        let mut queue = lock(&self.queue);
        let position = queue.iter().position(|waiter| slot.serves(waiter.target.bit()));
        // In the queue means not yet served: a waiter leaves the queue in the step that serves it.
        let Some(waiter) = position.and_then(|position| queue.remove(position)) else { return Some(client) };
        self.len.store(queue.len(), Ordering::Relaxed);
        let before = lock(&waiter.client).replace(client);
        drop(queue);
        // Without the lock: waking a thread is a system call.
        waiter.wake.notify_one();
        before
    }

    /// Makes the first who waits for a Pod like this one look again: it has room for one more connection.
    pub(crate) fn berth_freed(&self, slot: &Slot) {
        fence(Ordering::SeqCst);
        if self.is_empty() {
            return;
        }
        if let Some(waiter) = lock(&self.queue).iter().find(|waiter| slot.serves(waiter.target.bit())) {
            waiter.wake.notify_one();
        }
    }

    /// Makes everybody look again: the candidates have changed, or a connection could not be opened.
    pub(crate) fn look_again(&self) {
        if self.is_empty() {
            return;
        }
        for waiter in lock(&self.queue).iter() {
            waiter.wake.notify_one();
        }
    }

    /// Whether nobody waits. A hint.
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: who must be seen here for certain is seen through the slot's word.
        self.len.load(Ordering::Relaxed) == 0
    }

    /// How many wait for a Pod that serves `fits`.
    pub(crate) fn count(&self, fits: impl Fn(Target) -> bool) -> usize {
        if self.is_empty() {
            return 0;
        }
        lock(&self.queue).iter().filter(|waiter| fits(waiter.target)).count()
    }
}

impl Place<'_> {
    /// Waits until there is a connection or a reason to look again. Cancel-safe.
    pub(crate) async fn woken(&self) {
        self.waiter.wake.notified().await;
    }

    /// The connection, if one was handed over.
    pub(crate) fn take(&mut self) -> Option<Client> {
        let client = lock(&self.waiter.client).take();
        self.served |= client.is_some();
        client
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.served {
            return;
        }
        {
            let mut queue = lock(&self.waiters.queue);
            queue.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
            self.waiters.len.store(queue.len(), Ordering::Relaxed);
        }
        // Given back, and so to the next in the queue.
        drop(self.take());
    }
}
