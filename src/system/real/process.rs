//! Counters of the process. They are the standard library's atomics even in loom tests, because no memory ordering
//! depends on `unique`, and a stale read of `retired` only delays the drop of a copy.

use std::sync::atomic::{AtomicU64, Ordering};

/// The number of publishers that were dropped.
static RETIRED: AtomicU64 = AtomicU64::new(0);

/// Returns a number that is unique in this process and greater than all numbers returned before.
pub(crate) fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // Relaxed: the counter guards no other data, and the modifications of a single atomic have a total order.
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Counts a publisher that was dropped.
pub(crate) fn count_retired() {
    // Release pairs with the acquire in `Copies::purge`.
    RETIRED.fetch_add(1, Ordering::Release);
}

/// Returns the number of publishers that were dropped in this process.
#[inline(always)]
pub(crate) fn retired(ordering: Ordering) -> u64 {
    RETIRED.load(ordering)
}
