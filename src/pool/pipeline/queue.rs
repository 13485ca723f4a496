//! The queue of statements that wait for a place on a shared connection: one FIFO queue for each class of
//! [`Requirement`]s. A waiting statement is bound to no connection, so a slow connection delays none of them.
//!
//! # Hand-over
//!
//! A place that becomes free is reserved for the oldest waiter that its connection can serve, and sent to it through a
//! channel. If the waiter was cancelled, the place is given up, and the next waiter gets it.
//!
//! # Orderings
//!
//! `waiting` changes under the lock of the queues. No wakeup is lost between a waiter and the end of a statement: the
//! waiter sets its bit and then looks for a free place, and the end frees the place and then reads the bits. Both take
//! the lock of the connection for the place, so whichever takes that lock second sees the other one's change. A waiter
//! that enters behind others of its class need not look: those have looked, and an end whose place one of them does not
//! take reads the bits while the class has waiters, so it takes the lock of the queues and finds the later one too. The
//! tasks that supervise the connections look for waiters too, since a Pod can begin to serve them without an end.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::{
    pool::pod::requirement::{CLASSES, Requirement},
    sync::{AtomicU32, Mutex, Ordering, lock},
    unwind::catch,
};

/// The queue of a pool. `R` is a reserved place, which is given up when it is dropped.
#[derive(Debug)]
pub(crate) struct Queue<R> {
    /// The classes that have waiters, as [`Requirement::bit`]s.
    waiting: AtomicU32,
    /// The classes of which one waiter [leads](Queue::lead).
    led: AtomicU32,
    state: Mutex<State<R>>,
}

/// The leadership of a class. Dropping it wakes the waiters, so that another one can lead.
#[derive(Debug)]
pub(super) struct Lead<'a, R> {
    queue: &'a Queue<R>,
    bit: u32,
}

#[derive(Debug)]
struct State<R> {
    /// The waiters of each class by ticket (a number that increases with each new waiter), oldest first.
    classes: [BTreeMap<u64, Waiter<R>>; CLASSES],
    next_ticket: u64,
}

#[derive(Debug)]
struct Waiter<R> {
    requirement: Requirement,
    sender: oneshot::Sender<Wake<R>>,
}

/// The reason why a waiter is woken.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Wake<R> {
    Reserved(R),
    /// The state of the Pods or of a connection has changed, so that the waiter may have to open a connection or to
    /// fail.
    Reevaluate,
}

/// A waiter's place in the queue. Dropping it removes the waiter, and gives up a place that was already sent to it.
#[derive(Debug)]
pub(super) struct Waiting<'a, R> {
    queue: &'a Queue<R>,
    requirement: Requirement,
    pub(super) ticket: u64,
    /// True if other waiters of the class were in the queue before.
    pub(super) follows: bool,
    /// True while the queue may contain the waiter.
    queued: bool,
    receiver: oneshot::Receiver<Wake<R>>,
}

impl<R> Waiter<R> {
    /// Wakes the waiter. Returns the reason if the waiter was cancelled. The waiter may run on any executor; a panic of
    /// its waker affects only that waiter.
    fn wake(self, wake: Wake<R>) -> Option<Wake<R>> {
        catch(|| self.sender.send(wake).err()).ok().flatten()
    }
}

impl<R> Default for Queue<R> {
    fn default() -> Self {
        let state = State { classes: Default::default(), next_ticket: 0 };
        Self { waiting: AtomicU32::new(0), led: AtomicU32::new(0), state: Mutex::new(state) }
    }
}

impl<R> Queue<R> {
    /// Returns the classes that have waiters.
    // Relaxed: see the module documentation.
    #[inline]
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Makes the caller the one of its class that waits for the permit to open a connection, while the others wait only
    /// for a place. Returns `None` if another caller is.
    pub(super) fn lead(&self, requirement: Requirement) -> Option<Lead<'_, R>> {
        let bit = requirement.bit();
        // Acquire-release pairs with the end of the lead, which wakes the waiters afterwards. A caller that reads the
        // bit before that has entered the queue before, and is woken.
        let is_led = self.led.fetch_or(bit, Ordering::AcqRel) & bit != 0;
        (!is_led).then_some(Lead { queue: self, bit })
    }

    /// Enters the queue at its end, or, with the ticket of an earlier wait, at the position of that wait.
    pub(super) fn enter(&self, requirement: Requirement, ticket: Option<u64>) -> Waiting<'_, R> {
        let (sender, receiver) = oneshot::channel();
        let mut state = lock(&self.state);
        let ticket = ticket.unwrap_or_else(|| {
            state.next_ticket += 1;
            state.next_ticket
        });
        let class = &mut state.classes[requirement.index()];
        let follows = !class.is_empty();
        class.insert(ticket, Waiter { requirement, sender });
        self.waiting.fetch_or(requirement.bit(), Ordering::Relaxed);
        drop(state);
        Waiting { queue: self, requirement, ticket, follows, queued: true, receiver }
    }

    /// Hands a place to the oldest waiter if `reserve` returns one for it. Returns true if the waiter has got it, or if
    /// none waits. The lock is held while `reserve` runs.
    pub(super) fn serve_oldest(&self, reserve: impl FnOnce(Requirement) -> Option<R>) -> bool {
        let (place, waiter) = {
            let mut state = lock(&self.state);
            let Some((index, requirement)) = state.oldest(self.waiting()) else { return true };
            let Some(place) = reserve(requirement) else { return false };
            let waiter = state.classes[index].pop_first();
            self.update(&state, index);
            (place, waiter)
        };
        // If the waiter was cancelled, the place is given up, and the next waiter gets it.
        let back = waiter.map(|(_, waiter)| waiter.wake(Wake::Reserved(place)));
        drop(back);
        true
    }

    /// Returns the oldest waiter of these classes.
    fn oldest(&self, classes: u32) -> Option<(usize, Requirement)> {
        let left = self.waiting() & classes;
        if left == 0 { None } else { lock(&self.state).oldest(left) }
    }

    /// Hands at most `limit` places to the waiters, oldest first, as long as `reserve` returns one for the oldest of a
    /// class. The lock is not held while `reserve` runs.
    pub(super) fn serve(&self, limit: usize, mut reserve: impl FnMut(Requirement) -> Option<R>) {
        let (mut unserved, mut served) = (0, 0);
        while served < limit {
            let Some((index, requirement)) = self.oldest(!unserved) else { return };
            let mut place = reserve(requirement);
            if place.is_some() {
                served += 1;
            } else {
                unserved |= 1 << index;
            }
            while let Some(given) = place.take() {
                let Some(waiter) = self.pop(index) else { break };
                // Fails if the waiter was cancelled.
                if let Some(Wake::Reserved(back)) = waiter.wake(Wake::Reserved(given)) {
                    place = Some(back);
                }
            }
        }
    }

    /// Wakes all waiters.
    pub(super) fn reevaluate(&self) {
        let woken: Vec<_> = {
            let mut state = lock(&self.state);
            self.waiting.store(0, Ordering::Relaxed);
            state.classes.iter_mut().flat_map(std::mem::take).collect()
        };
        for (_, waiter) in woken {
            waiter.wake(Wake::Reevaluate);
        }
    }

    fn pop(&self, index: usize) -> Option<Waiter<R>> {
        let mut state = lock(&self.state);
        let waiter = state.classes[index].pop_first();
        self.update(&state, index);
        waiter.map(|(_, waiter)| waiter)
    }

    fn update(&self, state: &State<R>, index: usize) {
        if state.classes[index].is_empty() {
            self.waiting.fetch_and(!(1 << index), Ordering::Relaxed);
        }
    }
}

impl<R> State<R> {
    /// Returns the oldest waiter of these classes.
    fn oldest(&self, mut classes: u32) -> Option<(usize, Requirement)> {
        let mut oldest: Option<(u64, usize, Requirement)> = None;
        while classes != 0 {
            let index = classes.trailing_zeros() as usize;
            classes &= classes - 1;
            if let Some((ticket, waiter)) = self.classes[index].first_key_value()
                && oldest.is_none_or(|(oldest, ..)| *ticket < oldest)
            {
                oldest = Some((*ticket, index, waiter.requirement));
            }
        }
        oldest.map(|(_, index, requirement)| (index, requirement))
    }
}

impl<R> Lead<'_, R> {
    /// Returns true if this is the leadership of the class of a requirement.
    pub(super) fn is_of(&self, requirement: Requirement) -> bool {
        self.bit == requirement.bit()
    }
}

impl<R> Drop for Lead<'_, R> {
    fn drop(&mut self) {
        self.queue.led.fetch_and(!self.bit, Ordering::AcqRel);
        self.queue.reevaluate();
    }
}

impl<R> Waiting<'_, R> {
    /// Waits until the waiter is woken. Cancel-safe.
    pub(super) async fn woken(&mut self) -> Wake<R> {
        // The sender is dropped only after it was used.
        let wake = (&mut self.receiver).await.unwrap_or(Wake::Reevaluate);
        self.queued = false;
        wake
    }
}

impl<R> Drop for Waiting<'_, R> {
    fn drop(&mut self) {
        if !self.queued {
            return;
        }
        let index = self.requirement.index();
        let removed = {
            let mut state = lock(&self.queue.state);
            let removed = state.classes[index].remove(&self.ticket);
            self.queue.update(&state, index);
            removed
        };
        drop(removed);
    }
}

#[cfg(all(test, not(podpool_loom)))]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;
    use crate::config::Target;

    /// A place that records that it was given up.
    #[derive(Debug)]
    struct Place(u32, Rc<RefCell<Vec<u32>>>);

    impl Drop for Place {
        fn drop(&mut self) {
            self.1.borrow_mut().push(self.0);
        }
    }

    fn received(waiting: &mut Waiting<'_, Place>) -> Option<u32> {
        match waiting.receiver.try_recv() {
            Ok(Wake::Reserved(place)) => Some(place.0),
            _ => None,
        }
    }

    /// Serves the queue with these numbers of places for each target.
    fn serve(queue: &Queue<Place>, given_up: &Rc<RefCell<Vec<u32>>>, mut places: Vec<(Target, u32)>) {
        queue.serve(usize::MAX, |requirement| {
            let at = places.iter().position(|(target, _)| *target == requirement.target())?;
            Some(Place(places.remove(at).1, given_up.clone()))
        });
    }

    #[test]
    fn the_oldest_waiter_of_each_class_is_served_first() {
        let (queue, given_up) = (Queue::default(), Rc::default());
        let mut first = queue.enter(Target::Any.into(), None);
        let mut second = queue.enter(Target::Any.into(), None);
        let mut other = queue.enter(Target::Primary.into(), None);
        serve(&queue, &given_up, vec![(Target::Any, 1), (Target::Primary, 2)]);
        assert_eq!((received(&mut first), received(&mut second), received(&mut other)), (Some(1), None, Some(2)));
        assert_eq!(queue.waiting(), Target::Any.bit());
        serve(&queue, &given_up, vec![(Target::Primary, 3), (Target::Any, 4), (Target::Any, 5)]);
        assert_eq!(received(&mut second), Some(4));
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn the_oldest_waiter_of_all_classes_is_served_first() {
        let (queue, given_up) = (Queue::default(), Rc::default());
        let mut first = queue.enter(Target::Primary.into(), None);
        let mut second = queue.enter(Target::Any.into(), None);
        // One place that serves both targets.
        let mut places = vec![Place(2, Rc::clone(&given_up)), Place(1, given_up)];
        queue.serve(1, |_| places.pop());
        assert_eq!((received(&mut first), received(&mut second), places.len()), (Some(1), None, 1));
        queue.serve(1, |_| places.pop());
        assert_eq!(received(&mut second), Some(2));
    }

    #[test]
    fn a_ticket_keeps_the_position() {
        let (queue, given_up) = (Queue::default(), Rc::default());
        let first = queue.enter(Target::Any.into(), None);
        let mut second = queue.enter(Target::Any.into(), None);
        let ticket = first.ticket;
        queue.reevaluate();
        assert_eq!(queue.waiting(), 0);
        drop(first);
        assert!(matches!(second.receiver.try_recv(), Ok(Wake::Reevaluate)));
        let mut second = queue.enter(Target::Any.into(), Some(second.ticket));
        let mut first = queue.enter(Target::Any.into(), Some(ticket));
        serve(&queue, &given_up, vec![(Target::Any, 1)]);
        assert_eq!((received(&mut first), received(&mut second)), (Some(1), None));
    }

    #[test]
    fn one_waiter_of_a_class_leads_and_the_others_are_woken_after_it() {
        let queue: Queue<Place> = Queue::default();
        let lead = queue.lead(Target::Any.into()).expect("nobody leads");
        assert!(queue.lead(Target::Any.into()).is_none());
        assert!(queue.lead(Target::Primary.into()).is_some());
        let mut other = queue.enter(Target::Any.into(), None);
        drop(lead);
        assert!(matches!(other.receiver.try_recv(), Ok(Wake::Reevaluate)));
        assert!(queue.lead(Target::Any.into()).is_some());
    }

    #[test]
    fn a_cancelled_waiter_gives_its_place_up() {
        let (queue, given_up) = (Queue::default(), Rc::<RefCell<Vec<u32>>>::default());
        let first = queue.enter(Target::Any.into(), None);
        let mut second = queue.enter(Target::Any.into(), None);
        serve(&queue, &given_up, vec![(Target::Any, 1)]);
        assert!(given_up.borrow().is_empty());
        drop(first);
        assert_eq!(*given_up.borrow(), [1]);
        drop(queue.enter(Target::Primary.into(), None));
        assert_eq!(queue.waiting(), Target::Any.bit());
        serve(&queue, &given_up, vec![(Target::Any, 2)]);
        assert_eq!(received(&mut second), Some(2));
    }
}
