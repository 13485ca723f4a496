//! A process-wide thread that fires alarms of pools whose runtime may not be driven by any thread.
//!
//! The thread is started for the first pool that needs it and runs until the process exits. It sleeps until the next
//! alarm and holds only weak references to the alarms of each pool.

use std::{
    ptr,
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak},
};

use super::Alarms;
use crate::{
    system::thread,
    time::{Duration, SystemInstant as Instant},
};

#[derive(Debug, Default)]
struct Watchdog {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pools: Vec<Weak<Alarms>>,
    /// Time at which the thread wakes up to fire the next alarm. `None` if no alarm is pending.
    wake_at: Option<Instant>,
}

static WATCHDOG: OnceLock<Watchdog> = OnceLock::new();

/// Returns the process-wide watchdog. Starts its thread at the first call.
fn watchdog() -> &'static Watchdog {
    let mut is_new = false;
    let watchdog = WATCHDOG.get_or_init(|| {
        is_new = true;
        Watchdog::default()
    });
    if is_new {
        let started = thread::spawn("podpool-alarms", run);
        if let Err(error) = started {
            tracing::error!(
                %error,
                "cannot start thread podpool-alarms: checkouts outside of the pool's runtime may miss their deadlines"
            );
        }
    }
    watchdog
}

/// Registers the alarms of a pool with the thread, until [`forget`] is called.
pub(super) fn watch(alarms: &Arc<Alarms>) {
    watchdog().lock().pools.push(Arc::downgrade(alarms));
}

/// Unregisters the alarms of a pool.
pub(super) fn forget(alarms: &Alarms) {
    watchdog().lock().pools.retain(|pool| !ptr::eq(pool.as_ptr(), alarms));
}

/// Makes the thread wake up at `at` or earlier.
pub(super) fn wake_by(at: Instant) {
    let watchdog = watchdog();
    let mut state = watchdog.lock();
    if state.wake_at.is_none_or(|wake_at| at < wake_at) {
        state.wake_at = Some(at);
        watchdog.changed.notify_one();
    }
}

impl Watchdog {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A poisoned lock is ignored: each change of the state is a single step, so no panic can leave the state
        // inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run() {
    let watchdog = watchdog();
    let mut state = watchdog.lock();
    loop {
        let wait = state.wake_at.map(|at| at.saturating_duration_since(now()));
        if wait.is_none_or(|wait| wait > Duration::ZERO) {
            state = match wait {
                Some(wait) => watchdog.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0,
                None => watchdog.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            continue;
        }
        state.wake_at = None;
        let pools: Vec<_> = state.pools.iter().filter_map(Weak::upgrade).collect();
        // The lock is released before wakers are called, because a waker may run code that registers an alarm.
        drop(state);
        let next = pools.iter().filter_map(|alarms| alarms.fire(now().into())).min();
        drop(pools); // outside of the lock, because dropping a pool's alarms takes the lock
        state = watchdog.lock();
        if let Some(next) = next.map(|next| next.into_std()) {
            state.wake_at = Some(state.wake_at.map_or(next, |at| at.min(next)));
        }
    }
}

/// Returns the system's time, even while tokio's clock is paused.
#[allow(clippy::disallowed_methods, reason = "this thread belongs to no runtime, so a paused clock does not apply")]
fn now() -> Instant {
    Instant::now()
}
