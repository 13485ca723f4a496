//! A process-wide thread that updates the coarse clocks of pools whose runtime has a single worker thread: a task that
//! blocks this worker also stops the pool's upkeep, and the clock would stand still.
//!
//! The thread is started for the first such pool and ends when no such pool is left. It holds only weak references.

use std::sync::{Arc, PoisonError, Weak};

use super::TICK;
use crate::{pool::pod::shared::Shared, system::thread};

/// The state of the thread. Uses the standard library's lock even under loom, because no loom model covers it.
static TICKER: std::sync::Mutex<Ticker> = std::sync::Mutex::new(Ticker { pools: Vec::new(), is_running: false });

struct Ticker {
    pools: Vec<Weak<Shared>>,
    is_running: bool,
}

/// Updates the clock of a pool every [`TICK`] until the pool is dropped.
pub(crate) fn register(shared: &Arc<Shared>) {
    let mut ticker = TICKER.lock().unwrap_or_else(PoisonError::into_inner);
    ticker.pools.push(Arc::downgrade(shared));
    if !ticker.is_running {
        match thread::spawn("podpool-clock", run) {
            Ok(()) => ticker.is_running = true,
            Err(error) => tracing::warn!(
                %error,
                "cannot start thread podpool-clock: after a task has blocked the runtime, a checkout may return a \
                 connection without a ping although it was idle for longer than `ping_after`"
            ),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "this thread belongs to no runtime, so a paused clock does not apply")]
fn run() {
    loop {
        thread::sleep(TICK);
        let pools = {
            let mut ticker = TICKER.lock().unwrap_or_else(PoisonError::into_inner);
            let mut pools = Vec::with_capacity(ticker.pools.len());
            ticker.pools.retain(|pool| pool.upgrade().map(|pool| pools.push(pool)).is_some());
            if pools.is_empty() {
                ticker.pools.shrink_to_fit();
                ticker.is_running = false;
                return;
            }
            pools
        };
        for pool in &pools {
            pool.clock.refresh();
        }
        // Outside of the lock, because dropping the last reference to a pool's state runs the application's code.
        drop(pools);
    }
}
