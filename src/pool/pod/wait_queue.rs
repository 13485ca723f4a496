//! FIFO queue of callers that wait for a connection.
//!
//! A connection that is returned or newly opened goes to the first waiter whose target the Pod serves. The module
//! documentation of [`slot`](crate::endpoint::slot) explains why no waiter is missed. Connections are handed over as
//! [`Client`] guards: if the waiter was cancelled in the meantime, dropping the guard returns the connection, and the
//! next waiter gets it.
//!
//! A waiter re-evaluates its candidates when [`Waiters`] wakes it without a connection: after a change of the view,
//! after the release of a permit, and shortly before its deadline.

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    },
    task::{Poll, Waker},
};

use super::{client::Client, shared::TICK};
use crate::{
    config::Target,
    endpoint::slot::Slot,
    sync::{Mutex, lock},
    time::{Duration, Instant},
};

/// Time before its deadline at which a waiter is reminded.
const REMIND_BEFORE: Duration = Duration::from_millis(2 * TICK.as_millis() as u64);

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    queue: Mutex<VecDeque<Arc<Waiter>>>,
    /// Length of the queue, readable without the lock.
    len: AtomicUsize,
    /// True while a task calls [`remind`](Waiters::remind) on every tick.
    reminded: AtomicBool,
}

/// Marks that a task calls [`Waiters::remind`] on every tick, until dropped.
#[derive(Debug)]
pub(crate) struct Reminding<'a>(&'a Waiters);

#[derive(Debug)]
struct Waiter {
    target: Target,
    deadline: Instant,
    signal: Mutex<Signal>,
}

/// The signal to a waiter.
#[derive(Debug, Default)]
struct Signal {
    /// True if the waiter must wake up, either for `client` or to re-evaluate its candidates.
    raised: bool,
    client: Option<Client>,
    /// The waiter's waker.
    waker: Option<Waker>,
}

impl Waiter {
    /// Raises the signal, with a connection or without. Returns a connection that the new one replaces, and the waker.
    #[must_use]
    fn raise(&self, client: Option<Client>) -> (Option<Client>, Option<Waker>) {
        let mut signal = lock(&self.signal);
        signal.raised = true;
        let replaced = client.and_then(|client| signal.client.replace(client));
        (replaced, signal.waker.take())
    }

    /// Makes the waiter re-evaluate its candidates.
    fn recheck(&self) {
        if let (_, Some(waker)) = self.raise(None) {
            waker.wake();
        }
    }
}

/// A place in the queue, left on drop.
#[derive(Debug)]
pub(crate) struct QueuedWaiter<'a> {
    waiters: &'a Waiters,
    waiter: Arc<Waiter>,
    /// True after a connection was handed over, which removes the waiter from the queue.
    served: bool,
}

impl Waiters {
    /// Joins the queue: at its end, or at its head if `again`. A caller rejoins at the head if the connection that it
    /// waited for was unusable.
    pub(crate) fn enter(&self, target: Target, deadline: Instant, again: bool) -> QueuedWaiter<'_> {
        let waiter = Arc::new(Waiter { target, deadline, signal: Mutex::default() });
        let mut queue = lock(&self.queue);
        if again {
            queue.push_front(waiter.clone());
        } else {
            queue.push_back(waiter.clone());
        }
        self.len.store(queue.len(), Ordering::Relaxed);
        drop(queue);
        // Pairs with the fences in `permit_released` and `recheck_all`. Either a task that releases a permit or
        // publishes a view sees this waiter, or the waiter sees the permit or the view from here on.
        fence(Ordering::SeqCst);
        QueuedWaiter { waiters: self, waiter, served: false }
    }

    /// Hands idle connections of a Pod to matching waiters in queue order.
    ///
    /// `idle` takes a connection. It is not called under the queue's lock, because it can close unusable connections,
    /// which calls back into the queue.
    pub(crate) fn serve(&self, slot: &Slot, mut idle: impl FnMut() -> Option<Client>) {
        while self.has_match(slot) {
            let Some(client) = idle() else { return };
            if let Some(client) = self.hand_over(slot, client) {
                // The waiter has left. Dropping the guard returns the connection, to a newer waiter if there is one.
                return drop(client);
            }
        }
    }

    /// Returns true if a waiter matches this Pod.
    fn has_match(&self, slot: &Slot) -> bool {
        let queue = lock(&self.queue);
        let matches = queue.iter().any(|waiter| slot.serves(waiter.target.bit()));
        if !matches {
            slot.clear_has_waiters();
        }
        matches
    }

    /// Hands a connection to the first matching waiter. Returns the connection if no waiter matches.
    pub(crate) fn hand_over(&self, slot: &Slot, client: Client) -> Option<Client> {
        let mut queue = lock(&self.queue);
        let position = queue.iter().position(|waiter| slot.serves(waiter.target.bit()));
        // A waiter is removed in the step that serves it, so no waiter in the queue has been served.
        let Some(waiter) = position.and_then(|position| queue.remove(position)) else { return Some(client) };
        self.len.store(queue.len(), Ordering::Relaxed);
        let (replaced, waker) = waiter.raise(Some(client));
        drop(queue);
        // Outside of the lock, because waking a thread is a system call.
        if let Some(waker) = waker {
            waker.wake();
        }
        replaced
    }

    /// Makes the first matching waiter re-evaluate its candidates, because this Pod has room for one more connection.
    pub(crate) fn permit_released(&self, slot: &Slot) {
        // Pairs with the fence in `enter`.
        fence(Ordering::SeqCst);
        if self.is_empty() {
            return;
        }
        if let Some(waiter) = lock(&self.queue).iter().find(|waiter| slot.serves(waiter.target.bit())) {
            waiter.recheck();
        }
    }

    /// Makes all waiters re-evaluate their candidates, because those have changed or a connection could not be opened.
    pub(crate) fn recheck_all(&self) {
        // Pairs with the fence in `enter`.
        fence(Ordering::SeqCst);
        if self.is_empty() {
            return;
        }
        for waiter in lock(&self.queue).iter() {
            waiter.recheck();
        }
    }

    /// Starts the time in which the calling task [reminds](Waiters::remind) waiters on every tick.
    pub(crate) fn begin_reminding(&self) -> Reminding<'_> {
        // Relaxed: a waiter that does not see the flag yet uses its own timer.
        self.reminded.store(true, Ordering::Relaxed);
        Reminding(self)
    }

    /// Wakes waiters whose deadline is within [`REMIND_BEFORE`]; from then on they use their own timers. Waiters that
    /// are served earlier, which are most, thus need no timer.
    pub(crate) fn remind(&self, now: Instant) {
        if self.is_empty() {
            return;
        }
        for waiter in lock(&self.queue).iter().filter(|waiter| waiter.deadline <= now + REMIND_BEFORE) {
            waiter.recheck();
        }
    }

    /// Returns true if the queue is empty. The result may be outdated.
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: the slot's word guarantees that a waiter is seen where it must not be missed.
        self.len.load(Ordering::Relaxed) == 0
    }

    /// Returns the number of waiters whose target passes `matches`.
    pub(crate) fn count(&self, matches: impl Fn(Target) -> bool) -> usize {
        if self.is_empty() {
            return 0;
        }
        lock(&self.queue).iter().filter(|waiter| matches(waiter.target)).count()
    }
}

impl Drop for Reminding<'_> {
    fn drop(&mut self) {
        // Relaxed: the queue's lock orders the flag. Current waiters are woken below; later ones take the lock after
        // this and see the flag.
        self.0.reminded.store(false, Ordering::Relaxed);
        for waiter in lock(&self.0.queue).iter() {
            waiter.recheck();
        }
    }
}

impl QueuedWaiter<'_> {
    /// Returns true if the waiter needs no timer, because it will be reminded before its deadline.
    pub(crate) fn is_reminded(&self, now: Instant) -> bool {
        // Relaxed: see the drop of `Reminding`.
        self.waiter.deadline > now + REMIND_BEFORE && self.waiters.reminded.load(Ordering::Relaxed)
    }

    /// Waits for the signal. Returns the connection that was handed over, or `None` if the waiter must re-evaluate its
    /// candidates. Cancel-safe.
    pub(crate) async fn woken(&mut self) -> Option<Client> {
        let client = poll_fn(|cx| {
            let mut signal = lock(&self.waiter.signal);
            if mem::take(&mut signal.raised) {
                return Poll::Ready(signal.client.take());
            }
            let before = match &signal.waker {
                Some(waker) if waker.will_wake(cx.waker()) => None,
                _ => signal.waker.replace(cx.waker().clone()),
            };
            // The old waker may hold the last reference to a task, so it is dropped outside of the lock.
            drop(signal);
            drop(before);
            Poll::Pending
        })
        .await;
        self.served |= client.is_some();
        client
    }

    /// Returns the connection if one was handed over.
    pub(crate) fn take(&mut self) -> Option<Client> {
        let client = lock(&self.waiter.signal).client.take();
        self.served |= client.is_some();
        client
    }
}

impl Drop for QueuedWaiter<'_> {
    fn drop(&mut self) {
        if self.served {
            return;
        }
        {
            let mut queue = lock(&self.waiters.queue);
            queue.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
            self.waiters.len.store(queue.len(), Ordering::Relaxed);
        }
        // A connection that was handed over too late is returned, and thus goes to the next waiter.
        drop(self.take());
    }
}

#[cfg(all(test, not(podpool_loom)))]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn reminds_a_waiter_shortly_before_its_deadline() {
        let (waiters, now) = (Waiters::default(), Instant::now());
        let mut waiter = waiters.enter(Target::Any, now + MINUTE, false);
        assert!(!waiter.is_reminded(now), "no task reminds yet");
        let reminding = waiters.begin_reminding();
        assert!(waiter.is_reminded(now));
        waiters.remind(now);
        assert!(waiter.woken().now_or_never().is_none(), "too early");
        waiters.remind(now + MINUTE - REMIND_BEFORE);
        assert!(waiter.woken().now_or_never().is_some());
        assert!(!waiter.is_reminded(now + MINUTE - REMIND_BEFORE), "the waiter needs its own timer from here on");
        assert!(waiter.woken().now_or_never().is_none(), "a signal wakes once");
        drop(reminding);
        assert!(waiter.woken().now_or_never().is_some(), "woken because no task reminds any more");
        assert!(!waiter.is_reminded(now));
    }
}
