//! The queue of callers that wait for a connection: one FIFO queue per class.
//!
//! The waiters with the same [`Requirement`] form a class. A bit mask holds the classes that have
//! waiters. If no waiter can use a returned connection, the check-in therefore reads only this one atomic. Otherwise
//! the check-in compares the heads of at most [`CLASSES`] queues, regardless of the number of waiters, and hands the
//! connection to the oldest waiter that the Pod can serve.
//!
//! Waiters are passive: a waiter is [woken](Wake) with a connection, or to re-evaluate the pool's state. The
//! [opener](crate::pool::opener) opens connections on behalf of all waiters.
//!
//! # Hand-over and cancellation
//!
//! A check-in removes a waiter from the queue under the lock, releases the lock, and then sends the connection to the
//! waiter through a channel. If the waiter was cancelled before the send, sending fails and the next waiter is tried.
//! If the waiter is cancelled after the send, the channel drops the connection's guard. The guard returns the
//! connection and so hands it to the next waiter.
//!
//! # Orderings
//!
//! The mask and the queues change under one lock. No wakeup may be lost between these pairs of events:
//!
//! * A check-in and a new waiter. The slot's word orders them: the waiter enters the queue and then sets the slot's
//!   flag; see [`slot`](crate::endpoint::slot). The flag is cleared only under the lock, while no waiter matches the
//!   Pod.
//! * A publication and a new waiter. The lock orders them: the directory task publishes a view of the Pods and then
//!   reads the mask under the lock, while the waiter enters the queue under the lock and then reads the view. Whichever
//!   takes the lock second therefore reads the other one's change.
//! * The end of the pool and a new waiter. [`close`](WaitQueue::close) and [`enter`](WaitQueue::enter) take the lock.

use std::collections::BTreeMap;

use tokio::sync::{Notify, futures::Notified, oneshot};

use super::requirement::{self, ALL_BITS, CLASSES, Requirement};
use crate::{
    endpoint::slot::Slot,
    sync::{AtomicU32, Mutex, Ordering, lock},
};

/// The queue of all waiters of a pool. `C` is the guard of a checked-out connection. Dropping the guard returns the
/// connection.
#[derive(Debug)]
pub(crate) struct WaitQueue<C> {
    queues: Mutex<Queues<C>>,
    /// The classes that have waiters, as [`Requirement::bit`]s. Changed only under the lock.
    waiting: AtomicU32,
    /// Notifies the opener that it must make a new plan.
    opener: Notify,
}

#[derive(Debug)]
struct Queues<C> {
    /// The waiters of each class by ticket (a number that increases with each new waiter), oldest first.
    classes: [BTreeMap<u64, oneshot::Sender<Wake<C>>>; CLASSES],
    next_ticket: u64,
    /// The classes for which the opener's last plan could have opened more connections. A new waiter of another class
    /// does not wake the opener, because no connection can be opened for it. When capacity is freed, the opener is
    /// woken anyway.
    openable: u32,
    /// The classes that had waiters but no candidate at the opener's last plan.
    starving: u32,
    closed: bool,
}

/// The reason why a waiter is woken.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Wake<C> {
    /// A connection, which the waiter now owns.
    Connection(C),
    /// A request to re-evaluate the pool's state, because waiting may have become pointless.
    Reevaluate,
}

/// A place in the queue. Dropping it removes the waiter and returns a connection that was already sent to it.
#[derive(Debug)]
pub(crate) struct Waiting<'a, C> {
    queue: &'a WaitQueue<C>,
    requirement: Requirement,
    ticket: u64,
    receiver: oneshot::Receiver<Wake<C>>,
    /// True once the waiter has received a [`Wake`]. It has then left the queue.
    woken: bool,
}

impl<C> Default for WaitQueue<C> {
    fn default() -> Self {
        let queues =
            Queues { classes: Default::default(), next_ticket: 0, openable: ALL_BITS, starving: 0, closed: false };
        Self { queues: Mutex::new(queues), waiting: AtomicU32::new(0), opener: Notify::new() }
    }
}

impl<C> WaitQueue<C> {
    /// Enters the queue of a requirement at its end. With the `ticket` of an earlier wait, enters at the position of
    /// that wait.
    ///
    /// If the queue is closed, the waiter is woken immediately.
    pub(crate) fn enter(&self, requirement: impl Into<Requirement>, ticket: Option<u64>) -> Waiting<'_, C> {
        let requirement = requirement.into();
        let (sender, receiver) = oneshot::channel();
        let mut queues = lock(&self.queues);
        let ticket = ticket.unwrap_or_else(|| {
            queues.next_ticket += 1;
            queues.next_ticket
        });
        let waiting = Waiting { queue: self, requirement, ticket, receiver, woken: false };
        if queues.closed {
            drop(queues);
            // The receiver still exists (in `waiting`), so sending cannot fail.
            let _ = sender.send(Wake::Reevaluate);
            return waiting;
        }
        let class = &mut queues.classes[requirement.index()];
        let is_first = class.is_empty();
        class.insert(ticket, sender);
        // Relaxed: see the module documentation.
        self.waiting.fetch_or(requirement.bit(), Ordering::Relaxed);
        let wakes_opener = is_first || queues.openable & requirement.bit() != 0;
        drop(queues);
        if wakes_opener {
            self.wake_opener();
        }
        waiting
    }

    /// Wakes the opener to make a new plan, because capacity has become free or the candidates have changed.
    pub(crate) fn wake_opener(&self) {
        self.opener.notify_one();
    }

    /// Waits until [`wake_opener`](Self::wake_opener) is called. Cancel-safe.
    pub(crate) fn opener_woken(&self) -> Notified<'_> {
        self.opener.notified()
    }

    /// Returns the classes that have waiters. The result may be stale.
    #[inline]
    pub(crate) fn waiting(&self) -> u32 {
        // Relaxed: the result is only a hint. The slot's word prevents lost wakeups.
        self.waiting.load(Ordering::Relaxed)
    }

    /// Returns the classes in `targets` that have waiters. Takes the lock, so the result is not stale.
    pub(crate) fn waiting_for(&self, targets: u32) -> u32 {
        let _queues = lock(&self.queues);
        self.waiting() & targets
    }

    /// Sends a connection to the oldest waiter that the Pod can serve. Returns the connection if there is no such
    /// waiter.
    pub(crate) fn hand_over(&self, slot: &Slot, mut connection: C) -> Option<C> {
        while let Some(sender) = self.pop(slot) {
            match sender.send(Wake::Connection(connection)) {
                Ok(()) => return None,
                // The waiter was cancelled, so the next one is tried.
                Err(Wake::Connection(returned)) => connection = returned,
                Err(Wake::Reevaluate) => unreachable!("a connection was sent"),
            }
        }
        Some(connection)
    }

    /// Hands idle connections of a Pod to the waiters that the Pod can serve, oldest first.
    ///
    /// `idle` takes an idle connection. The lock is not held during the call, because `idle` may close connections.
    pub(crate) fn serve(&self, slot: &Slot, mut idle: impl FnMut() -> Option<C>) {
        while self.has_match(slot) {
            let Some(connection) = idle() else { return };
            if let Some(connection) = self.hand_over(slot, connection) {
                // The waiters have left the queue. Dropping the guard returns the connection, or hands it to a new
                // waiter.
                return drop(connection);
            }
        }
    }

    /// Returns true if the Pod can serve a waiter. If not, clears the slot's flag.
    fn has_match(&self, slot: &Slot) -> bool {
        let _queues = lock(&self.queues);
        let matches = requirement::serves(slot, self.waiting());
        if !matches {
            slot.clear_has_waiters();
        }
        matches
    }

    /// Removes and returns the oldest waiter that the Pod can serve. If there is none, clears the slot's flag.
    fn pop(&self, slot: &Slot) -> Option<oneshot::Sender<Wake<C>>> {
        let mut queues = lock(&self.queues);
        let mut matching = requirement::served_of(slot, self.waiting());
        let mut oldest: Option<(u64, usize)> = None;
        while matching != 0 {
            let class = matching.trailing_zeros() as usize;
            matching &= matching - 1;
            if let Some((&ticket, _)) = queues.classes[class].first_key_value()
                && oldest.is_none_or(|(before, _)| ticket < before)
            {
                oldest = Some((ticket, class));
            }
        }
        let Some((_, class)) = oldest else {
            slot.clear_has_waiters();
            return None;
        };
        let sender = queues.classes[class].pop_first();
        self.update_mask(&queues, class);
        sender.map(|(_, sender)| sender)
    }

    /// Clears the bit of a class in the mask if the queue of the class is empty. `queues` is the locked state.
    fn update_mask(&self, queues: &Queues<C>, class: usize) {
        if queues.classes[class].is_empty() {
            // Relaxed: see the module documentation.
            self.waiting.fetch_and(!(1 << class), Ordering::Relaxed);
        }
    }

    /// Wakes all waiters of these targets to re-evaluate the pool's state.
    pub(crate) fn reevaluate(&self, targets: u32) {
        let woken: Vec<_> = {
            let mut queues = lock(&self.queues);
            let classes = (0..CLASSES).filter(|class| targets & (1 << class) != 0);
            let woken = classes.map(|class| std::mem::take(&mut queues.classes[class])).collect();
            self.waiting.fetch_and(!targets, Ordering::Relaxed);
            woken
        };
        for sender in woken.into_iter().flat_map(BTreeMap::into_values) {
            // Sending fails only for a waiter that was cancelled.
            let _ = sender.send(Wake::Reevaluate);
        }
    }

    /// Closes the queue at the end of the pool. Wakes all waiters now, and wakes later ones as soon as they enter.
    pub(crate) fn close(&self) {
        lock(&self.queues).closed = true;
        self.reevaluate(ALL_BITS);
    }

    /// Begins a plan of the opener. Returns the number of waiters of each class. The plan does not include waiters that
    /// enter later, so each of them wakes the opener until [`end_plan`](Self::end_plan).
    pub(crate) fn begin_plan(&self) -> [usize; CLASSES] {
        let mut queues = lock(&self.queues);
        queues.openable = ALL_BITS;
        std::array::from_fn(|class| queues.classes[class].len())
    }

    /// Ends a plan of the opener. Stores the classes for which more connections could be opened, and the classes that
    /// have waiters but no candidate.
    pub(crate) fn end_plan(&self, openable: u32, starving: u32) {
        let mut queues = lock(&self.queues);
        (queues.openable, queues.starving) = (openable, starving);
    }

    /// Returns the number of waiters whose target is in the bit set `targets`.
    pub(crate) fn count(&self, targets: u32) -> usize {
        if self.waiting() & targets == 0 {
            return 0;
        }
        let queues = lock(&self.queues);
        queues.classes.iter().enumerate().filter(|(class, _)| targets & (1 << class) != 0).map(|(_, q)| q.len()).sum()
    }
}

impl<C> Waiting<'_, C> {
    /// Returns the waiter's ticket. A caller that enters again with its ticket keeps its position.
    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Waits until the waiter is woken. Cancel-safe: if the future is dropped, a connection that was already sent is
    /// not lost.
    pub(crate) async fn woken(&mut self) -> Wake<C> {
        let received = (&mut self.receiver).await;
        self.woken = true;
        // A sender is dropped unused only by `Waiting::drop`, or together with the whole queue.
        received.unwrap_or(Wake::Reevaluate)
    }

    /// Returns true if the waiter was woken and the [`Wake`] has not been received yet.
    pub(crate) fn is_woken(&self) -> bool {
        !self.receiver.is_empty()
    }

    /// Receives the [`Wake`] if the waiter was woken.
    pub(crate) fn try_woken(&mut self) -> Option<Wake<C>> {
        let received = self.receiver.try_recv().ok()?;
        self.woken = true;
        Some(received)
    }
}

impl<C> Drop for Waiting<'_, C> {
    fn drop(&mut self) {
        if self.woken {
            return;
        }
        let (sender, ends_starving) = {
            let mut queues = lock(&self.queue.queues);
            let class = self.requirement.index();
            let sender = queues.classes[class].remove(&self.ticket);
            self.queue.update_mask(&queues, class);
            (sender, queues.classes[class].is_empty() && queues.starving & self.requirement.bit() != 0)
        };
        if ends_starving {
            self.queue.wake_opener();
        }
        // If the waiter had already left the queue, the receiver holds a connection or will receive one. The receiver
        // is dropped after this function, which returns the connection.
        drop(sender);
    }
}

#[cfg(all(test, not(podpool_loom)))]
mod tests;

#[cfg(all(test, podpool_loom))]
mod loom_tests;
