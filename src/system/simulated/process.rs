use std::{cell::Cell, sync::atomic::Ordering};

use crate::system::simulation::world;

thread_local! {
    /// The number of publishers that were dropped. Each thread is a world of its own.
    static RETIRED: Cell<u64> = const { Cell::new(0) };
}

/// Returns a number that is unique in the world and greater than all numbers returned before.
pub(crate) fn unique() -> u64 {
    world().unique()
}

/// Counts a publisher that was dropped.
pub(crate) fn count_retired() {
    RETIRED.set(RETIRED.get() + 1);
}

/// Returns the number of publishers that were dropped in this world.
pub(crate) fn retired(_: Ordering) -> u64 {
    RETIRED.get()
}
