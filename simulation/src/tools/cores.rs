//! Work on all cores.

use std::thread;

/// Runs `work` on one thread for each core, and waits until all of them have ended.
pub(super) fn on_all_cores(work: impl Fn() + Sync) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(&work);
        }
    });
}
