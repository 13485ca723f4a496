//! The counters and flags of one Pod, in one cache line.
//!
//! # Layout
//!
//! One 64-bit word holds the number of connections in use, the flags that a check-in must act on, and the number of
//! checkouts. A checkout or a check-in is therefore a single atomic read-modify-write. The word also holds the latency
//! class and whether the classes of the Pods differ, so choosing a Pod reads only one word of each candidate. The
//! number of checkouts wraps at 2^39.
//!
//! ```text
//! 63 …… 25    24       23 …………… 18       17       16            15 …… 0
//! checkouts   uneven   class minus 1     closed   has waiters   in use
//! ```
//!
//! Statements on shared connections count as if each had a connection in use, so that the policies see them. Their
//! number is also in a counter of its own, from which the number of connections in use results.
//!
//! # Orderings
//!
//! All changes of the word are read-modify-writes, so they have a total order, and each change continues the release
//! sequence of the earlier changes. The order matters if a connection is returned while a caller begins to wait:
//!
//! * The check-in makes the connection idle, then calls [`Slot::checkin`], which returns the flags.
//! * The waiter enters the queue, calls [`Slot::set_has_waiters`], then looks for an idle connection once more.
//!
//! Both calls have acquire-release ordering. If the check-in comes first in the total order, its release pairs with the
//! acquire of `set_has_waiters`, and the waiter finds the connection. If the waiter comes first, its release pairs with
//! the acquire of `checkin`, and the check-in reads the flag and finds the waiter in the queue.
//!
//! [`Slot::close`] and `checkin` are ordered in the same way. Either the check-in reads the closed flag and closes the
//! connection, or the thread that called `close` finds the connection when it closes the idle connections afterwards.
//!
//! The latency class, the latencies, the age of the data and the targets (the roles that callers ask for) are written
//! by the pool's background tasks and read by checkouts. Their accesses are relaxed because they guard no other data: a
//! stale value leads to the choice that was right a moment earlier. The class has one writer, so adding the difference
//! to the word changes no other part of the word. The same task writes the `uneven` bit.

mod slab;

use std::time::Duration;

pub(crate) use self::slab::{Slab, SlotHandle, Slots};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

const IN_USE: u64 = (1 << 16) - 1;
/// Maximum number of counted statements on shared connections.
const MAX_STATEMENTS: u32 = 1 << 15;
const HAS_WAITERS: u64 = 1 << 16;
const CLOSED: u64 = 1 << 17;
const CLASS: u64 = 1 << 18;
const UNEVEN: u64 = 1 << 24;
const CHECKOUT: u64 = 1 << 25;

/// The slowest latency class.
pub(crate) const CLASS_MAX: u32 = (UNEVEN / CLASS) as u32;
/// The fastest class whose Pods get only a trickle of the checkouts. Its Pods are more than four times slower than the
/// fastest Pods.
pub(crate) const TRICKLE_FROM: u32 = 4;

/// The load of a Pod, from one read of its word.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Load {
    /// Connections in use, and statements on shared connections.
    pub(crate) in_flight: u32,
    /// The latency class: the Pod's latency as a multiple of the latency of the fastest Pods, at least 1.
    pub(crate) class: u32,
}

/// The flags at the time of a check-in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags(u64);

impl Flags {
    /// Returns true if any flag is set.
    #[inline]
    pub(crate) fn any(self) -> bool {
        self.0 & (HAS_WAITERS | CLOSED) != 0
    }

    /// Returns true if a caller may be waiting for a connection to this Pod.
    pub(crate) fn has_waiters(self) -> bool {
        self.0 & HAS_WAITERS != 0
    }

    /// Returns true if the Pod is being drained, so its idle connections must be closed.
    pub(crate) fn closed(self) -> bool {
        self.0 & CLOSED != 0
    }
}

/// The counters and flags of one Pod.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Slot {
    word: AtomicU64,
    /// Statements on shared connections, which the word contains as connections in use.
    statements: AtomicU32,
    /// The targets for which this Pod is a candidate, as [`Target::bit`](crate::config::Target::bit)s.
    targets: AtomicU32,
    /// Mean duration of a statement in microseconds; 0 if unknown.
    latency: AtomicU32,
    /// Decaying peak of the latency in microseconds; 0 if unknown.
    peak: AtomicU32,
    /// Time, in milliseconds, at which the server's data was known to be current, or [`UNKNOWN`] or [`CURRENT`].
    fresh_at: AtomicU64,
}

/// The age of the server's data is unknown.
const UNKNOWN: u64 = 0;
/// The server is a primary, whose data is always current.
const CURRENT: u64 = u64::MAX;

impl Slot {
    /// Counts a checkout.
    #[inline]
    pub(crate) fn checkout(&self) {
        // Relaxed: the count guards no data. The pool of idle connections synchronizes the connection itself.
        self.word.fetch_add(CHECKOUT | 1, Ordering::Relaxed);
    }

    /// Counts the checkout of a connection that a check-in passes directly to a waiter. The connection stays in use.
    pub(crate) fn handed_over(&self) {
        // Relaxed: the count guards no data. The lock of the wait queue synchronizes the connection itself.
        self.word.fetch_add(CHECKOUT, Ordering::Relaxed);
    }

    /// Counts a check-in, after the connection has become idle or was closed. Returns the flags to act on.
    #[inline]
    pub(crate) fn checkin(&self) -> Flags {
        // Release pairs with the acquire in `set_has_waiters` and `close`, whose callers then find the idle connection.
        // Acquire pairs with the release in these functions: a waiter whose flag is read here is already in the queue.
        let before = self.word.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before & IN_USE > 0, "check-in without a checkout");
        Flags(before)
    }

    /// Counts a statement on a shared connection. Returns false if so many are counted that it is not: they must leave
    /// room for the connections in use.
    #[inline]
    pub(crate) fn begin_statement(&self) -> bool {
        // Relaxed: the counts guard no data, and are only a hint for choosing a Pod.
        if self.statements.fetch_add(1, Ordering::Relaxed) >= MAX_STATEMENTS {
            self.statements.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.word.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Counts the end of a statement that was counted. No connection becomes idle, so there are no flags to act on.
    #[inline]
    pub(crate) fn end_statement(&self) {
        // Relaxed: as in `begin_statement`.
        self.word.fetch_sub(1, Ordering::Relaxed);
        self.statements.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns the flags to act on after a connection that was not in use has become idle.
    pub(crate) fn flags(&self) -> Flags {
        // Use a read-modify-write, because a load could miss a flag that was just set. It pairs with `set_has_waiters`
        // and `close`, as in `checkin`.
        Flags(self.word.fetch_or(0, Ordering::AcqRel))
    }

    /// Sets the flag for a caller in the wait queue that can use a connection to this Pod.
    pub(crate) fn set_has_waiters(&self) {
        // A flag that is already set stays set: it is cleared only under the queue's lock, while no caller in the queue
        // can use this Pod, and this caller is already in the queue. The acquire load pairs with the release in
        // `checkin` and `flags`: connections that became idle before the flag was set are visible here, because every
        // later change of the word continues their release sequence. Later check-ins read the flag as set.
        if self.word.load(Ordering::Acquire) & HAS_WAITERS == 0 {
            // Release pairs with the acquire in `checkin` and `flags`, whose callers then find this waiter in the
            // queue. Acquire pairs with the release in these functions: this waiter then finds the idle connection.
            self.word.fetch_or(HAS_WAITERS, Ordering::AcqRel);
        }
    }

    /// Clears the flag for waiters. Call only under the wait queue's lock, while no caller in the queue can use this
    /// Pod.
    pub(crate) fn clear_has_waiters(&self) {
        // Relaxed: the next waiter takes the queue's lock before it calls `set_has_waiters`, so the lock orders the two
        // calls.
        self.word.fetch_and(!HAS_WAITERS, Ordering::Relaxed);
    }

    /// Marks the Pod as drained and removes it from the candidates of every target, so that no waiter gets a connection
    /// to it any more. The caller must close the idle connections afterwards.
    pub(crate) fn close(&self) {
        self.set_targets(0);
        // Release pairs with the acquire in `checkin`, `flags` and `is_closed`. Acquire pairs with the release in
        // `checkin` and `flags`: connections that became idle earlier are visible to the caller.
        self.word.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Returns true if the Pod is being drained. The flag is never cleared while the Pod exists.
    pub(crate) fn is_closed(&self) -> bool {
        // Acquire pairs with the release in `close`.
        self.word.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Returns the load, for choosing a Pod.
    #[inline]
    pub(crate) fn load(&self) -> Load {
        // Relaxed: the result is only a hint. The word is changed by `checkout`, `checkin` and `set_class`.
        let word = self.word.load(Ordering::Relaxed);
        Load { in_flight: (word & IN_USE) as u32, class: (word / CLASS) as u32 % CLASS_MAX + 1 }
    }

    /// Returns true if no connection is in use and all Pods are in the fastest class.
    #[inline(always)]
    pub(crate) fn is_idle_and_even(&self) -> bool {
        // Relaxed: the result is only a hint, as in `load`. The mask contains the class and the `uneven` bit.
        self.word.load(Ordering::Relaxed) & (IN_USE | (CHECKOUT - CLASS)) == 0
    }

    /// Returns true if at least one Pod of the pool is not in the fastest class.
    #[inline]
    pub(crate) fn is_uneven(&self) -> bool {
        // Relaxed: the result is only a hint, as in `load`.
        self.word.load(Ordering::Relaxed) & UNEVEN != 0
    }

    /// Sets whether at least one Pod of the pool is not in the fastest class.
    pub(crate) fn set_uneven(&self, uneven: bool) {
        // Relaxed: read by `is_uneven` and `is_idle_and_even`; see the module documentation.
        match uneven {
            _ if uneven == self.is_uneven() => {}
            true => drop(self.word.fetch_or(UNEVEN, Ordering::Relaxed)),
            false => drop(self.word.fetch_and(!UNEVEN, Ordering::Relaxed)),
        }
    }

    /// Returns the number of connections in use, without shared ones.
    pub(crate) fn in_use(&self) -> u32 {
        // Relaxed: the result is only a hint, as in `load`.
        self.in_flight().saturating_sub(self.statements.load(Ordering::Relaxed))
    }

    /// Returns the number of connections in use and of statements on shared connections.
    #[inline]
    pub(crate) fn in_flight(&self) -> u32 {
        // Relaxed: the result is only a hint, as in `load`.
        (self.word.load(Ordering::Relaxed) & IN_USE) as u32
    }

    /// Sets the latency class, 1 to [`CLASS_MAX`]. Must not be called concurrently.
    pub(crate) fn set_class(&self, class: u32) {
        let (class, before) = (class.clamp(1, CLASS_MAX), self.load().class);
        if class != before {
            let difference = u64::from(class).wrapping_sub(u64::from(before));
            // Relaxed: read by `load` and `is_idle_and_even`; see the module documentation.
            self.word.fetch_add(difference.wrapping_mul(CLASS), Ordering::Relaxed);
        }
    }

    /// Returns the number of checkouts since the Pod was added.
    pub(crate) fn checkouts(&self) -> u64 {
        // Relaxed: the count guards no data. The count is changed by `checkout` and `handed_over`.
        self.word.load(Ordering::Relaxed) / CHECKOUT
    }

    /// Returns the targets for which the Pod is a candidate, as [`Target::bit`](crate::config::Target::bit)s.
    #[inline]
    pub(crate) fn targets(&self) -> u32 {
        // Relaxed: written by `set_targets`; see the module documentation.
        self.targets.load(Ordering::Relaxed)
    }

    /// Returns true if the Pod is a candidate for one of the targets in this set of bits.
    #[inline]
    pub(crate) fn serves(&self, targets: u32) -> bool {
        self.targets() & targets != 0
    }

    /// Sets the targets for which the Pod is a candidate.
    pub(crate) fn set_targets(&self, targets: u32) {
        // Relaxed: read by `serves`; see the module documentation.
        self.targets.store(targets, Ordering::Relaxed);
    }

    /// Returns the mean duration of a statement, if known.
    #[inline]
    pub(crate) fn latency(&self) -> Option<Duration> {
        // Relaxed: written by `set_latency`; see the module documentation.
        duration(self.latency.load(Ordering::Relaxed))
    }

    /// Returns the decaying peak of the latency, if known.
    #[inline]
    pub(crate) fn peak(&self) -> Option<Duration> {
        // Relaxed: written by `set_latency`; see the module documentation.
        duration(self.peak.load(Ordering::Relaxed))
    }

    /// Sets the latency and its peak, or marks both as unknown. Values below one microsecond are stored as one.
    pub(crate) fn set_latency(&self, latency: Option<(Duration, Duration)>) {
        let (latency, peak) = latency.map_or((0, 0), |(latency, peak)| (micros(latency), micros(peak)));
        // Relaxed: read by `latency` and `peak`; see the module documentation.
        self.latency.store(latency, Ordering::Relaxed);
        self.peak.store(peak, Ordering::Relaxed);
    }

    /// Returns an upper bound for the age of the server's data in milliseconds: 0 for a primary, at least 1 for a
    /// standby, or `None` if it is unknown. `now` returns the current time in milliseconds.
    pub(crate) fn data_age(&self, now: impl FnOnce() -> u64) -> Option<u64> {
        // Relaxed: written by `set_fresh_at`; see the module documentation.
        match self.fresh_at.load(Ordering::Relaxed) {
            UNKNOWN => None,
            CURRENT => Some(0),
            fresh_at => Some(now().saturating_sub(fresh_at).max(1)),
        }
    }

    /// Returns true if the server is a primary, whose data is always current.
    pub(crate) fn is_current(&self) -> bool {
        // Relaxed: written by `set_is_current`; see the module documentation.
        self.fresh_at.load(Ordering::Relaxed) == CURRENT
    }

    /// Sets the time, in milliseconds, at which the data of a standby was known to be current.
    pub(crate) fn set_fresh_at(&self, fresh_at: Option<u64>) {
        // Relaxed: read by `data_age` and `is_current`; see the module documentation.
        self.fresh_at.store(fresh_at.unwrap_or(UNKNOWN), Ordering::Relaxed);
    }

    /// Sets whether the server is a primary. If it no longer is, the age of its data is unknown.
    pub(crate) fn set_is_current(&self, current: bool) {
        if current != self.is_current() {
            self.set_fresh_at(current.then_some(CURRENT));
        }
    }

    fn reset(&self) {
        // Relaxed: the next owner of this slot takes its number from the free list, under the list's lock, after
        // `SlotHandle::drop` has put the number there.
        self.word.store(0, Ordering::Relaxed);
        self.statements.store(0, Ordering::Relaxed);
        self.targets.store(0, Ordering::Relaxed);
        self.latency.store(0, Ordering::Relaxed);
        self.peak.store(0, Ordering::Relaxed);
        self.fresh_at.store(UNKNOWN, Ordering::Relaxed);
    }
}

#[inline]
fn duration(micros: u32) -> Option<Duration> {
    (micros > 0).then(|| Duration::from_micros(micros.into()))
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX).max(1)
}

#[cfg(all(test, podpool_loom))]
mod loom_tests;
#[cfg(all(test, not(podpool_loom)))]
mod tests;
