//! What is counted for one Pod, in one cache line.
//!
//! # Layout
//!
//! Everything that a checkout and a check-in must change together stands in one word, so that each of them is one
//! atomic read-modify-write: the connections lent out, the flags that the returning side must see, and the picks so
//! far. The latency class stands there too, so that a pick reads one word of each Pod. The picks begin anew after
//! 2^40.
//!
//! ```text
//! 63 ………… 24     23 … 18        17       16      15 ………… 0
//! picks so far   class less 1   closed   waited   in flight
//! ```
//!
//! # Orderings
//!
//! All changes of the word are read-modify-writes, hence totally ordered. The protocol that matters is between one who
//! gives a connection back and one who begins to wait:
//!
//! * giving back: put the connection where others find it, then [`Slot::checkin`] (release), which returns the flags;
//! * waiting: stand in the queue, then [`Slot::set_waited`] (acquire), then look for a connection once more.
//!
//! Whichever change of the word comes first, the other side sees it: either the one giving back sees `waited` and goes
//! to the queue, or the waiter's acquire pairs with the giver's release and it finds the connection. `closed` works
//! the same way against the final sweep of a Pod that is being drained. The class, the latencies and the targets are plain
//! values that need no ordering: a pick made on an old one is a pick made a moment earlier. The class has one writer,
//! the pool's upkeep, so adding the difference to the word changes no other part of it.

use std::{ops::Deref, time::Duration};

use super::chunks::{CHUNK, Chunk, Chunks};
use crate::sync::{Arc, AtomicU32, AtomicU64, Mutex, Ordering, lock};

const IN_FLIGHT: u64 = (1 << 16) - 1;
const WAITED: u64 = 1 << 16;
const CLOSED: u64 = 1 << 17;
const CLASS: u64 = 1 << 18;
const PICK: u64 = 1 << 24;

/// The slowest latency class.
pub(crate) const CLASS_MAX: u32 = (PICK / CLASS) as u32;

/// What a pick reads of a Pod, in one load.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Load {
    /// Connections lent out.
    pub(crate) in_flight: u32,
    /// How many times slower than the fastest it counts as, from 1.
    pub(crate) class: u32,
}

/// What the returning side must see in the word it has just changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags(u64);

impl Flags {
    /// Somebody may be waiting for a connection to this Pod.
    pub(crate) fn waited(self) -> bool {
        self.0 & WAITED != 0
    }

    /// The Pod is being drained: nothing is to be kept for it.
    pub(crate) fn closed(self) -> bool {
        self.0 & CLOSED != 0
    }
}

/// The counters of one Pod.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Slot {
    word: AtomicU64,
    /// The targets that this Pod serves, a bit each.
    targets: AtomicU32,
    /// Microseconds; 0 while nothing is known.
    latency: AtomicU32,
    /// The same, at its peak and decaying from there.
    peak: AtomicU32,
}

impl Slot {
    /// Counts one connection out.
    #[inline]
    pub(crate) fn checkout(&self) {
        // Relaxed: the count guards nothing; what was found in the pool came with the pool's own ordering.
        self.word.fetch_add(PICK | 1, Ordering::Relaxed);
    }

    /// Counts a connection that goes from one borrower straight to the next.
    pub(crate) fn handed_over(&self) {
        // Relaxed: as in `checkout`; the queue's lock orders the handing over.
        self.word.fetch_add(PICK, Ordering::Relaxed);
    }

    /// Counts one connection in, after it has been put where others find it.
    #[inline]
    pub(crate) fn checkin(&self) -> Flags {
        // Release pairs with `set_waited` and `close`: who sees this change sees the connection. Acquire pairs with
        // the same two: who is seen here already stands in the queue.
        let before = self.word.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before & IN_FLIGHT > 0, "a connection came in that had not gone out");
        Flags(before)
    }

    /// The flags, after a connection that nobody had borrowed has been put where others find it.
    pub(crate) fn touch(&self) -> Flags {
        // A read-modify-write, as a plain load could miss a flag set just before; pairs as in `checkin`.
        Flags(self.word.fetch_or(0, Ordering::AcqRel))
    }

    /// Says that somebody in the queue may want this Pod.
    pub(crate) fn set_waited(&self) {
        // Where it is said already, it stays said: it is taken back only under the queue's lock, when nobody in the queue
        // wants this Pod. Whoever gives back after that sees it; whoever gave back before it was said is seen here, because
        // every later change of the word carries on that release.
        if self.word.load(Ordering::Acquire) & WAITED == 0 {
            // Release publishes the place in the queue to `checkin`; acquire makes its connection visible here.
            self.word.fetch_or(WAITED, Ordering::AcqRel);
        }
    }

    /// Whether that is said.
    pub(crate) fn is_waited(&self) -> bool {
        // Relaxed: a hint. Who goes by it stands in the queue next, and looks again from there.
        self.word.load(Ordering::Relaxed) & WAITED != 0
    }

    /// Takes that back. Only under the queue's lock, when nobody in the queue wants this Pod.
    pub(crate) fn clear_waited(&self) {
        // The queue's lock orders this against the next waiter's `set_waited`.
        self.word.fetch_and(!WAITED, Ordering::Relaxed);
    }

    /// Says that nothing is to be kept for this Pod any more.
    pub(crate) fn close(&self) {
        // As `set_waited`, with the final sweep in the waiter's place.
        self.word.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Whether the Pod is being drained.
    pub(crate) fn is_closed(&self) -> bool {
        // Acquire pairs with `close`; the flag is never taken back while the Pod lives.
        self.word.load(Ordering::Acquire) & CLOSED != 0
    }

    /// What a pick needs to know.
    #[inline]
    pub(crate) fn load(&self) -> Load {
        // Relaxed: a hint for choosing.
        let word = self.word.load(Ordering::Relaxed);
        Load { in_flight: (word & IN_FLIGHT) as u32, class: (word / CLASS) as u32 % CLASS_MAX + 1 }
    }

    /// Whether it has no connection lent out and is of the first class.
    #[inline(always)]
    pub(crate) fn is_idle_and_fast(&self) -> bool {
        // Relaxed: a hint for choosing.
        self.word.load(Ordering::Relaxed) & (IN_FLIGHT | (PICK - CLASS)) == 0
    }

    /// Connections lent out at this moment.
    #[inline]
    pub(crate) fn in_flight(&self) -> u32 {
        self.load().in_flight
    }

    /// Sets the latency class, 1 to [`CLASS_MAX`]. One writer at a time.
    pub(crate) fn set_class(&self, class: u32) {
        let (class, before) = (class.clamp(1, CLASS_MAX), self.load().class);
        if class != before {
            let difference = u64::from(class).wrapping_sub(u64::from(before));
            // Relaxed: see the module's text.
            self.word.fetch_add(difference.wrapping_mul(CLASS), Ordering::Relaxed);
        }
    }

    /// Checkouts since the Pod was added.
    pub(crate) fn picks(&self) -> u64 {
        // Relaxed: a plain counter.
        self.word.load(Ordering::Relaxed) / PICK
    }

    /// Whether the Pod serves the target with this bit.
    pub(crate) fn serves(&self, target: u32) -> bool {
        // Relaxed: see the module's text.
        self.targets.load(Ordering::Relaxed) & target != 0
    }

    /// Sets the targets that the Pod serves.
    pub(crate) fn set_targets(&self, targets: u32) {
        // Relaxed: see the module's text.
        self.targets.store(targets, Ordering::Relaxed);
    }

    /// The Pod's latency, if anything is known of it.
    #[inline]
    pub(crate) fn latency(&self) -> Option<Duration> {
        // Relaxed: see the module's text.
        duration(self.latency.load(Ordering::Relaxed))
    }

    /// The Pod's latency at its peak, decaying from there.
    #[inline]
    pub(crate) fn peak(&self) -> Option<Duration> {
        // Relaxed: see the module's text.
        duration(self.peak.load(Ordering::Relaxed))
    }

    /// Sets the Pod's latency, and that at its peak; anything under a microsecond counts as one.
    pub(crate) fn set_latency(&self, latency: Duration, peak: Duration) {
        // Relaxed: see the module's text.
        self.latency.store(micros(latency), Ordering::Relaxed);
        self.peak.store(micros(peak), Ordering::Relaxed);
    }

    fn reset(&self) {
        // Relaxed: the slot's number passes through the lock of the free list before anyone uses it again.
        self.word.store(0, Ordering::Relaxed);
        self.targets.store(0, Ordering::Relaxed);
        self.latency.store(0, Ordering::Relaxed);
        self.peak.store(0, Ordering::Relaxed);
    }
}

#[inline]
fn duration(micros: u32) -> Option<Duration> {
    (micros > 0).then(|| Duration::from_micros(micros.into()))
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX).max(1)
}

/// Where slots come from. They lie next to each other, 4 KiB a chunk, and stay where they are while the Pod lives, whatever
/// is added or removed around it.
#[derive(Debug)]
pub(crate) struct Slab {
    chunks: Chunks<Slot>,
    free: Arc<Mutex<Vec<u32>>>,
}

impl Default for Slab {
    fn default() -> Self {
        Self { chunks: Chunks::default(), free: Arc::new(Mutex::new((0..CHUNK as u32).rev().collect())) }
    }
}

impl Slab {
    /// A slot with everything at zero. Its place is free again when the handle is dropped.
    pub(crate) fn take(&mut self) -> SlotHandle {
        let recycled = lock(&self.free).pop();
        let number = match recycled {
            Some(number) => number,
            None => {
                let first = self.chunks.len() as u32;
                self.chunks.grow();
                lock(&self.free).extend((first + 1..first + CHUNK as u32).rev());
                first
            }
        };
        SlotHandle { chunk: self.chunks.chunk(number).clone(), number, free: self.free.clone() }
    }

    /// All slots, to look up by number.
    pub(crate) fn slots(&self) -> Slots {
        Slots(self.chunks.clone())
    }
}

/// The slots, by number.
#[derive(Clone, Debug)]
pub(crate) struct Slots(Chunks<Slot>);

impl Slots {
    /// Those with these numbers, which must have come from handles of the same slab.
    #[inline]
    pub(crate) fn of(&self, numbers: impl Iterator<Item = u32>) -> impl Iterator<Item = &Slot> {
        // Looked up once for all.
        let only = self.0.only();
        numbers.map(move |number| only.map_or_else(|| self.slot(number), |only| &only[number as usize % CHUNK]))
    }

    /// The slot with this number, if there is one.
    #[inline(always)]
    pub(crate) fn find(&self, number: u32) -> Option<&Slot> {
        self.0.find(number)
    }

    /// The slot with this number, which must have come from a handle of the same slab.
    #[inline(always)]
    pub(crate) fn slot(&self, number: u32) -> &Slot {
        self.0.get(number)
    }
}

/// One Pod's hold on its slot.
#[derive(Debug)]
pub(crate) struct SlotHandle {
    chunk: Chunk<Slot>,
    number: u32,
    free: Arc<Mutex<Vec<u32>>>,
}

impl SlotHandle {
    /// The slot's number.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl Deref for SlotHandle {
    type Target = Slot;

    #[inline]
    fn deref(&self) -> &Slot {
        &self.chunk[self.number as usize % CHUNK]
    }
}

impl Drop for SlotHandle {
    fn drop(&mut self) {
        self.reset();
        lock(&self.free).push(self.number);
    }
}

#[cfg(all(test, not(podpool_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_one_cache_line() {
        assert_eq!(size_of::<Slot>(), 64);
    }

    #[test]
    fn counts_flags_and_picks_do_not_disturb_each_other() {
        let slot = Slot::default();
        slot.checkout();
        slot.checkout();
        slot.set_waited();
        for class in [CLASS_MAX, 1, 5, CLASS_MAX + 1, 2] {
            slot.set_class(class);
            assert_eq!(slot.load(), Load { in_flight: 2, class: class.min(CLASS_MAX) });
        }
        assert_eq!((slot.in_flight(), slot.picks(), slot.is_closed()), (2, 2, false));
        let flags = slot.checkin();
        assert!(flags.waited() && !flags.closed());
        slot.clear_waited();
        slot.close();
        let flags = slot.checkin();
        assert!(!flags.waited() && flags.closed());
        assert_eq!((slot.in_flight(), slot.picks(), slot.is_closed()), (0, 2, true));
        assert!(slot.touch().closed());
    }

    #[test]
    fn slots_lie_together_and_are_used_again_clean() {
        let mut slab = Slab::default();
        let mut handles: Vec<_> = (0..130).map(|_| slab.take()).collect();
        let numbers: Vec<_> = handles.iter().map(SlotHandle::number).collect();
        assert_eq!(numbers, (0..130).collect::<Vec<_>>());
        handles[7].checkout();
        handles[7].set_latency(Duration::from_millis(3), Duration::from_millis(4));
        handles[7].set_class(9);
        assert_eq!(slab.slots().slot(7).in_flight(), 1);
        drop(handles.remove(7));
        let again = slab.take();
        assert_eq!(again.number(), 7);
        assert_eq!((again.load(), again.picks()), (Load { in_flight: 0, class: 1 }, 0));
        assert_eq!((again.latency(), again.peak()), (None, None));
    }
}

#[cfg(all(test, podpool_loom))]
mod loom_tests {
    use super::*;

    /// One gives a connection back, one begins to wait: the connection is found, or the waiter is seen.
    #[test]
    fn a_connection_and_a_waiter_never_miss_each_other() {
        loom::model(|| {
            let slot = Arc::new(Slot::default());
            let idle = Arc::new(Mutex::new(0));
            slot.checkout();
            let giver = {
                let (slot, idle) = (slot.clone(), idle.clone());
                loom::thread::spawn(move || {
                    *lock(&idle) += 1;
                    slot.checkin().waited()
                })
            };
            slot.set_waited();
            let found = std::mem::take(&mut *lock(&idle)) > 0;
            let seen = giver.join().unwrap();
            assert!(found || seen, "the connection lies there and somebody waits for it");
            assert_eq!(slot.in_flight(), 0);
        });
    }

    /// The same where `waited` is up from one who has left the queue, and is being taken back.
    #[test]
    fn nor_do_they_where_somebody_waited_before() {
        loom::model(|| {
            let slot = Arc::new(Slot::default());
            let idle = Arc::new(Mutex::new(0));
            let queue = Arc::new(Mutex::new(0));
            slot.checkout();
            slot.set_waited();
            let giver = {
                let (slot, idle, queue) = (slot.clone(), idle.clone(), queue.clone());
                loom::thread::spawn(move || {
                    *lock(&idle) += 1;
                    if !slot.checkin().waited() {
                        return false;
                    }
                    let queue = lock(&queue);
                    if *queue == 0 {
                        slot.clear_waited();
                    }
                    *queue > 0
                })
            };
            *lock(&queue) += 1;
            slot.set_waited();
            let found = std::mem::take(&mut *lock(&idle)) > 0;
            let seen = giver.join().unwrap();
            assert!(found || seen, "the connection lies there and somebody waits for it");
        });
    }

    /// A Pod is drained while a connection comes back: the sweep finds it, or the one who gives it back sees the flag.
    #[test]
    fn nothing_is_left_in_a_pod_that_is_drained() {
        loom::model(|| {
            let slot = Arc::new(Slot::default());
            let idle = Arc::new(Mutex::new(0));
            slot.checkout();
            let giver = {
                let (slot, idle) = (slot.clone(), idle.clone());
                loom::thread::spawn(move || {
                    *lock(&idle) += 1;
                    if slot.checkin().closed() {
                        *lock(&idle) = 0;
                    }
                })
            };
            slot.close();
            *lock(&idle) = 0;
            giver.join().unwrap();
            assert_eq!((*lock(&idle), slot.in_flight()), (0, 0));
        });
    }

    /// Counts stay exact under any order.
    #[test]
    fn nothing_is_counted_twice_or_lost() {
        loom::model(|| {
            let slot = Arc::new(Slot::default());
            let other = {
                let slot = slot.clone();
                loom::thread::spawn(move || {
                    slot.checkout();
                    slot.checkin();
                })
            };
            slot.checkout();
            slot.set_class(7);
            slot.checkin();
            slot.set_class(3);
            other.join().unwrap();
            assert_eq!((slot.load(), slot.picks()), (Load { in_flight: 0, class: 3 }, 2));
        });
    }
}
