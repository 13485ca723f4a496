//! The callers who found no idle connection, in the order they came.
//!
//! A connection that comes back, or that has just been opened, goes to the first in the queue whose target its Pod
//! serves; see [`slot`](crate::endpoint::slot) for why none is missed. A connection is handed over as a [`Client`], so
//! one that reaches a caller who has just given up is given back, and from there to the next.

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

/// Who waits for longer than this is woken when as much of his time is left.
const SOON: Duration = Duration::from_millis(2 * TICK.as_millis() as u64);

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    queue: Mutex<VecDeque<Arc<Waiter>>>,
    /// The queue's length, to be read without the lock.
    len: AtomicUsize,
    /// Somebody [reminds](Waiters::remind) those who wait.
    reminded: AtomicBool,
}

/// Says that those who wait are reminded, until dropped.
#[derive(Debug)]
pub(crate) struct Reminding<'a>(&'a Waiters);

#[derive(Debug)]
struct Waiter {
    target: Target,
    deadline: Instant,
    call: Mutex<Call>,
}

/// What is said to one who waits.
#[derive(Debug, Default)]
struct Call {
    /// There is a connection for him, which is in `client` until he takes it, or a reason to look again.
    called: bool,
    client: Option<Client>,
    /// How to wake him.
    waker: Option<Waker>,
}

impl Waiter {
    /// Says that there is a connection, or a reason to look again. Gives the connection that he had not taken yet, if this is
    /// another one, and what wakes him.
    #[must_use]
    fn call(&self, client: Option<Client>) -> (Option<Client>, Option<Waker>) {
        let mut call = lock(&self.call);
        call.called = true;
        let before = client.and_then(|client| call.client.replace(client));
        (before, call.waker.take())
    }

    /// Makes him look again.
    fn look_again(&self) {
        if let (_, Some(waker)) = self.call(None) {
            waker.wake();
        }
    }
}

/// A place in the queue, given up when dropped.
#[derive(Debug)]
pub(crate) struct QueuedWaiter<'a> {
    waiters: &'a Waiters,
    waiter: Arc<Waiter>,
    /// It was handed a connection, and so is in the queue no more.
    served: bool,
}

impl Waiters {
    /// Takes the last place, or the first, for one who has waited his turn and was given what did not do.
    pub(crate) fn enter(&self, target: Target, deadline: Instant, again: bool) -> QueuedWaiter<'_> {
        let waiter = Arc::new(Waiter { target, deadline, call: Mutex::default() });
        let mut queue = lock(&self.queue);
        if again {
            queue.push_front(waiter.clone());
        } else {
            queue.push_back(waiter.clone());
        }
        self.len.store(queue.len(), Ordering::Relaxed);
        drop(queue);
        // Pairs with the fences in `permit_released` and `look_again`: either who frees a permit, or publishes, sees this place, or
        // the free permit, or what was published, is seen from here on.
        fence(Ordering::SeqCst);
        QueuedWaiter { waiters: self, waiter, served: false }
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
        let (before, waker) = waiter.call(Some(client));
        drop(queue);
        // Without the lock: waking a thread is a system call.
        if let Some(waker) = waker {
            waker.wake();
        }
        before
    }

    /// Makes the first who waits for a Pod like this one look again: it has room for one more connection.
    pub(crate) fn permit_released(&self, slot: &Slot) {
        // Pairs with the fence in `enter`.
        fence(Ordering::SeqCst);
        if self.is_empty() {
            return;
        }
        if let Some(waiter) = lock(&self.queue).iter().find(|waiter| slot.serves(waiter.target.bit())) {
            waiter.look_again();
        }
    }

    /// Makes everybody look again: the candidates have changed, or a connection could not be opened.
    pub(crate) fn look_again(&self) {
        // Pairs with the fence in `enter`.
        fence(Ordering::SeqCst);
        if self.is_empty() {
            return;
        }
        for waiter in lock(&self.queue).iter() {
            waiter.look_again();
        }
    }

    /// Promises to [remind](Waiters::remind) those who wait, every tick, for as long as the promise lives.
    pub(crate) fn begin_reminding(&self) -> Reminding<'_> {
        // Relaxed: who does not see it yet watches the time himself.
        self.reminded.store(true, Ordering::Relaxed);
        Reminding(self)
    }

    /// Makes those look again whose time is up [`SOON`]: from then on they watch the time themselves. So a timer is made
    /// for those few only, not for everybody who is served within a moment.
    pub(crate) fn remind(&self, now: Instant) {
        if self.is_empty() {
            return;
        }
        for waiter in lock(&self.queue).iter().filter(|waiter| waiter.deadline <= now + SOON) {
            waiter.look_again();
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

impl Drop for Reminding<'_> {
    fn drop(&mut self) {
        // Relaxed: the queue's lock orders it. Who stands in the queue by now is made to look again; who comes later took
        // the lock after this, and sees it.
        self.0.reminded.store(false, Ordering::Relaxed);
        for waiter in lock(&self.0.queue).iter() {
            waiter.look_again();
        }
    }
}

impl QueuedWaiter<'_> {
    /// Whether one who waits until then will be made to look again in time.
    pub(crate) fn is_reminded(&self, now: Instant) -> bool {
        // Relaxed: see `Reminding`.
        self.waiter.deadline > now + SOON && self.waiters.reminded.load(Ordering::Relaxed)
    }

    /// Waits until there is a connection, which is given, or a reason to look again. Cancel-safe.
    pub(crate) async fn woken(&mut self) -> Option<Client> {
        let client = poll_fn(|cx| {
            let mut call = lock(&self.waiter.call);
            if mem::take(&mut call.called) {
                return Poll::Ready(call.client.take());
            }
            let before = match &call.waker {
                Some(waker) if waker.will_wake(cx.waker()) => None,
                _ => call.waker.replace(cx.waker().clone()),
            };
            // Without the lock: it may be the last hold on somebody's task.
            drop(call);
            drop(before);
            Poll::Pending
        })
        .await;
        self.served |= client.is_some();
        client
    }

    /// The connection, if one was handed over.
    pub(crate) fn take(&mut self) -> Option<Client> {
        let client = lock(&self.waiter.call).client.take();
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
        // Given back, and so to the next in the queue.
        drop(self.take());
    }
}

#[cfg(all(test, not(podpool_loom)))]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn who_is_reminded_looks_again_just_before_his_time_is_up() {
        let (waiters, now) = (Waiters::default(), Instant::now());
        let mut place = waiters.enter(Target::Any, now + MINUTE, false);
        assert!(!place.is_reminded(now), "nobody has promised to");
        let reminding = waiters.begin_reminding();
        assert!(place.is_reminded(now));
        waiters.remind(now);
        assert!(place.woken().now_or_never().is_none(), "too early");
        waiters.remind(now + MINUTE - SOON);
        assert!(place.woken().now_or_never().is_some());
        assert!(!place.is_reminded(now + MINUTE - SOON), "from here on he watches the time himself");
        assert!(place.woken().now_or_never().is_none(), "once is enough");
        drop(reminding);
        assert!(place.woken().now_or_never().is_some(), "nobody reminds any more");
        assert!(!place.is_reminded(now));
    }
}
