//! The queue of callers that wait for a connection: one FIFO queue per class.
//!
//! The waiters of one [`Target`] form a class. A bit mask holds the classes that have waiters. A check-in without
//! matching waiters therefore reads one atomic. Otherwise it compares the heads of at most [`CLASSES`] queues,
//! regardless of the number of waiters, and the oldest waiter that the Pod can serve gets the connection.
//!
//! Waiters are passive: a waiter is [woken](Wake) with a connection, or to evaluate the pool's state again. The
//! [opener](crate::pool::opener) opens connections on behalf of all waiters.
//!
//! # Hand-over and cancellation
//!
//! A waiter is removed from the queue under the lock, and then the connection is sent to it through a channel, without
//! the lock. If the waiter was cancelled before that, sending fails and the next waiter is tried. If the waiter is
//! cancelled after that, the channel drops the guard, which returns the connection and so hands it to the next waiter.
//!
//! # Orderings
//!
//! The mask and the queues change under one lock. There must be no lost wakeup between:
//!
//! * A check-in and a new waiter. The slot's word orders them: the waiter enters the queue and then sets the slot's
//!   flag; see [`slot`](crate::endpoint::slot). The flag is cleared only under the lock, while no waiter matches the
//!   Pod.
//! * A publication and a new waiter. The lock orders them: the directory publishes a view and then reads the mask under
//!   the lock, while the waiter enters the queue under the lock and then reads the view. The later one sees the other.
//! * The end of the pool and a new waiter. [`close`](WaitQueue::close) and [`enter`](WaitQueue::enter) take the lock.

use std::collections::BTreeMap;

use tokio::sync::{Notify, futures::Notified, oneshot};

use crate::{
    config::Target,
    endpoint::slot::Slot,
    sync::{AtomicU32, Mutex, Ordering, lock},
};

/// Number of classes, one per target.
pub(crate) const CLASSES: usize = Target::ALL.len();

/// The queue of all waiters of a pool. `C` is the guard of a checked-out connection and returns the connection on drop.
#[derive(Debug)]
pub(crate) struct WaitQueue<C> {
    queues: Mutex<Queues<C>>,
    /// The classes with waiters, as [`Target::bit`]s. Changed under the lock.
    waiting: AtomicU32,
    /// Notifies the opener that it must plan again.
    opener: Notify,
}

#[derive(Debug)]
struct Queues<C> {
    /// The waiters of each class by ticket, oldest first.
    classes: [BTreeMap<u64, oneshot::Sender<Wake<C>>>; CLASSES],
    next_ticket: u64,
    /// The classes for which the opener's last plan could have opened more connections. A new waiter of another class
    /// does not wake the opener, because no capacity is left for it. Freed capacity wakes the opener.
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
    /// A request to evaluate the pool's state again, because waiting may have become pointless.
    Reevaluate,
}

/// A place in the queue. Dropping it removes the waiter and returns a connection that was already sent to it.
#[derive(Debug)]
pub(crate) struct Waiting<'a, C> {
    queue: &'a WaitQueue<C>,
    target: Target,
    ticket: u64,
    receiver: oneshot::Receiver<Wake<C>>,
    /// True once a [`Wake`] was received. The waiter has then left the queue.
    woken: bool,
}

impl<C> Default for WaitQueue<C> {
    fn default() -> Self {
        let queues = Queues {
            classes: Default::default(),
            next_ticket: 0,
            openable: Target::ALL_BITS,
            starving: 0,
            closed: false,
        };
        Self { queues: Mutex::new(queues), waiting: AtomicU32::new(0), opener: Notify::new() }
    }
}

impl<C> WaitQueue<C> {
    /// Enters the queue of a target: at the end, or at the position of an earlier wait with the same `ticket`.
    ///
    /// If the queue is closed, the waiter is woken immediately.
    pub(crate) fn enter(&self, target: Target, ticket: Option<u64>) -> Waiting<'_, C> {
        let (sender, receiver) = oneshot::channel();
        let mut queues = lock(&self.queues);
        let ticket = ticket.unwrap_or_else(|| {
            queues.next_ticket += 1;
            queues.next_ticket
        });
        let waiting = Waiting { queue: self, target, ticket, receiver, woken: false };
        if queues.closed {
            drop(queues);
            // The receiver is in `waiting`, so this cannot fail.
            let _ = sender.send(Wake::Reevaluate);
            return waiting;
        }
        let class = &mut queues.classes[target.index()];
        let is_first = class.is_empty();
        class.insert(ticket, sender);
        // Relaxed: see the module documentation.
        self.waiting.fetch_or(target.bit(), Ordering::Relaxed);
        let wakes_opener = is_first || queues.openable & target.bit() != 0;
        drop(queues);
        if wakes_opener {
            self.wake_opener();
        }
        waiting
    }

    /// Makes the opener plan again: capacity has become free, or the candidates have changed.
    pub(crate) fn wake_opener(&self) {
        self.opener.notify_one();
    }

    /// Waits until [`wake_opener`](Self::wake_opener) is called. Cancel-safe.
    pub(crate) fn opener_woken(&self) -> Notified<'_> {
        self.opener.notified()
    }

    /// Returns the classes that have waiters. The result may be outdated.
    #[inline]
    pub(crate) fn waiting(&self) -> u32 {
        // Relaxed: a hint only. The slot's word prevents lost wakeups.
        self.waiting.load(Ordering::Relaxed)
    }

    /// Returns the classes in `targets` that have waiters. Takes the lock, so the result is not outdated.
    pub(crate) fn waiting_for(&self, targets: u32) -> u32 {
        let _queues = lock(&self.queues);
        self.waiting() & targets
    }

    /// Sends a connection to the oldest waiter that the Pod can serve. Returns the connection if there is none.
    pub(crate) fn hand_over(&self, slot: &Slot, mut connection: C) -> Option<C> {
        while let Some(sender) = self.pop(slot) {
            match sender.send(Wake::Connection(connection)) {
                Ok(()) => return None,
                // The waiter was cancelled.
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
                // The waiters have left. Dropping the guard returns the connection, or hands it to a new waiter.
                return drop(connection);
            }
        }
    }

    /// Returns true if the Pod can serve a waiter. Otherwise clears the slot's flag.
    fn has_match(&self, slot: &Slot) -> bool {
        let _queues = lock(&self.queues);
        let matches = slot.serves(self.waiting());
        if !matches {
            slot.clear_has_waiters();
        }
        matches
    }

    /// Removes the oldest waiter that the Pod can serve. If there is none, clears the slot's flag.
    fn pop(&self, slot: &Slot) -> Option<oneshot::Sender<Wake<C>>> {
        let mut queues = lock(&self.queues);
        let mut matching = self.waiting() & slot.targets();
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

    /// Clears the bit of a class if its queue is empty. `queues` is the locked state.
    fn update_mask(&self, queues: &Queues<C>, class: usize) {
        if queues.classes[class].is_empty() {
            // Relaxed: see the module documentation.
            self.waiting.fetch_and(!(1 << class), Ordering::Relaxed);
        }
    }

    /// Wakes all waiters of these targets to evaluate the pool's state again.
    pub(crate) fn reevaluate(&self, targets: u32) {
        let woken: Vec<_> = {
            let mut queues = lock(&self.queues);
            let classes = (0..CLASSES).filter(|class| targets & (1 << class) != 0);
            let woken = classes.map(|class| std::mem::take(&mut queues.classes[class])).collect();
            self.waiting.fetch_and(!targets, Ordering::Relaxed);
            woken
        };
        for sender in woken.into_iter().flat_map(BTreeMap::into_values) {
            // Fails only for a waiter that was cancelled.
            let _ = sender.send(Wake::Reevaluate);
        }
    }

    /// Closes the queue with the pool: wakes all waiters now, and later ones as soon as they enter.
    pub(crate) fn close(&self) {
        lock(&self.queues).closed = true;
        self.reevaluate(Target::ALL_BITS);
    }

    /// Begins a plan: returns the number of waiters of each class. The plan does not include later waiters, so each of
    /// them wakes the opener until [`end_plan`](Self::end_plan).
    pub(crate) fn begin_plan(&self) -> [usize; CLASSES] {
        let mut queues = lock(&self.queues);
        queues.openable = Target::ALL_BITS;
        std::array::from_fn(|class| queues.classes[class].len())
    }

    /// Ends a plan. Stores the classes for which more connections could be opened, and the waiting ones without a
    /// candidate.
    pub(crate) fn end_plan(&self, openable: u32, starving: u32) {
        let mut queues = lock(&self.queues);
        (queues.openable, queues.starving) = (openable, starving);
    }

    /// Returns the number of waiters that a Pod with these targets can serve.
    pub(crate) fn count(&self, targets: u32) -> usize {
        if self.waiting() & targets == 0 {
            return 0;
        }
        let queues = lock(&self.queues);
        queues.classes.iter().enumerate().filter(|(class, _)| targets & (1 << class) != 0).map(|(_, q)| q.len()).sum()
    }
}

impl<C> Waiting<'_, C> {
    /// Returns the waiter's ticket. Entering with it again keeps the waiter's position.
    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Waits until the waiter is woken. Cancel-safe: a connection that was sent is not lost.
    pub(crate) async fn woken(&mut self) -> Wake<C> {
        let received = (&mut self.receiver).await;
        self.woken = true;
        // A sender that was not used is dropped only by `drop` below, or with the queue.
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
            let class = self.target.index();
            let sender = queues.classes[class].remove(&self.ticket);
            self.queue.update_mask(&queues, class);
            (sender, queues.classes[class].is_empty() && queues.starving & self.target.bit() != 0)
        };
        if ends_starving {
            self.queue.wake_opener();
        }
        // If the waiter had already left the queue, the receiver holds or will get a connection. Dropping the receiver,
        // after this function, returns the connection.
        drop(sender);
    }
}

#[cfg(all(test, not(podpool_loom)))]
mod tests;

#[cfg(all(test, podpool_loom))]
mod loom_tests;
