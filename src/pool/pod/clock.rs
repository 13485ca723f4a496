//! The pool's coarse clock: milliseconds, updated by the upkeep every [`TICK`].
//!
//! A checkout reads this clock instead of the system's precise clock, whose read on a virtual machine takes half as
//! long as a whole checkout. Even a read of the kernel's coarse clock executes a tenth as many instructions as a
//! checkout.
//!
//! The coarse clock is stale while the upkeep does not run: while tasks block the runtime's threads, while the process
//! is stopped (SIGSTOP), and while the machine is suspended. Connections that were idle all the time would then seem to
//! have been used recently. Three measures prevent this:
//!
//! * Each thread [verifies](Clock::verify) the coarse clock against the precise clock at its first checkout in a tick.
//! * The timer of the upkeep updates the clock [when it fires](RefreshOnWake), before the runtime runs any task that
//!   the same turn of its driver has woken.
//! * If the runtime has a single worker thread, another thread, the [`ticker`], also updates the clock, because a task
//!   that blocks the worker stops the upkeep too.
//!
//! What remains: for some microseconds after the process has been continued, a thread that was stopped in the middle of
//! a task, and that has already verified the clock in the same tick, still reads the time of the stop.
//!
//! The precise clock is tokio's monotonic clock, plus the time for which the machine was suspended: Linux excludes this
//! time from `CLOCK_MONOTONIC` and includes it in `CLOCK_BOOTTIME`.

pub(crate) mod ticker;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Wake, Waker},
};

use super::shared::Shared;
use crate::{
    system::clock,
    time::{Duration, Instant},
};

/// Interval at which the upkeep task updates the clock, and thus the clock's resolution.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// A clock whose time is read with one atomic load.
#[derive(Debug)]
pub(crate) struct Clock {
    millis: AtomicU64,
    started: Instant,
    /// The time at `started`, on the timeline of all coarse clocks in this process. With one timeline, a thread needs
    /// to remember only one verified time for all pools.
    offset: Duration,
    /// The time for which the machine had been suspended at `started`.
    suspended: Duration,
    /// Time by which a test has advanced the precise clock.
    #[cfg(test)]
    advanced: crate::sync::Mutex<Duration>,
}

// Relaxed: the time guards no other data.
impl Clock {
    /// Creates a clock that shows the current time.
    pub(crate) fn new() -> Self {
        let offset = clock::since_start();
        Self {
            millis: AtomicU64::new(millis(offset)),
            started: Instant::now(),
            offset,
            suspended: suspended(),
            #[cfg(test)]
            advanced: crate::sync::Mutex::default(),
        }
    }

    /// Returns the coarse time in milliseconds.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.millis.load(Ordering::Relaxed)
    }

    /// Sets the coarse time to that of the precise clock if it is late by a [`TICK`] or more. Returns the coarse time.
    ///
    /// A smaller difference is left, so that threads that verify the clock do not invalidate each other's results.
    pub(crate) fn verify(&self) -> u64 {
        let (coarse, now) = (self.now(), self.precise());
        if now < coarse.saturating_add(TICK.as_millis() as u64) {
            return coarse;
        }
        self.millis.fetch_max(now, Ordering::Relaxed).max(now)
    }

    /// Sets the coarse time to that of the precise clock.
    pub(crate) fn refresh(&self) {
        self.millis.fetch_max(self.precise(), Ordering::Relaxed);
    }

    fn precise(&self) -> u64 {
        let suspended = suspended().saturating_sub(self.suspended);
        let since_start = self.started.elapsed() + suspended;
        #[cfg(test)]
        let since_start = since_start + *crate::sync::lock(&self.advanced);
        millis(self.offset + since_start)
    }

    /// Advances the precise clock as if the process had been stopped or the machine had been suspended.
    #[cfg(test)]
    pub(crate) fn advance(&self, by: Duration) {
        *crate::sync::lock(&self.advanced) += by;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the total time for which the machine has been suspended since it was booted.
fn suspended() -> Duration {
    let suspended = clock::suspended();
    // Two clocks are read one after the other. A smaller difference is a delay between the two reads.
    if suspended < TICK { Duration::ZERO } else { suspended }
}

/// The waker of the upkeep's timer. Updates the clock in the runtime's timer driver, and then wakes the upkeep.
#[derive(Debug)]
pub(crate) struct RefreshOnWake {
    shared: Arc<Shared>,
    task: Waker,
}

impl RefreshOnWake {
    /// Creates a waker that updates the clock of the pool and then wakes `task`.
    pub(crate) fn waker(shared: &Arc<Shared>, task: &Waker) -> Waker {
        Waker::from(Arc::new(Self { shared: shared.clone(), task: task.clone() }))
    }
}

impl Wake for RefreshOnWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.shared.clock.refresh();
        self.task.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn verify_corrects_only_a_clock_that_is_late_by_a_tick() {
        let clock = Clock::new();
        let start = clock.now();
        clock.advance(TICK - Duration::from_millis(2));
        assert_eq!((clock.verify(), clock.now()), (start, start));
        clock.advance(Duration::from_secs(60));
        assert_eq!(clock.now(), start);
        let verified = clock.verify();
        assert!((60_090..=60_110).contains(&(verified - start)), "{}", verified - start);
        assert_eq!(clock.now(), verified);
        clock.advance(TICK / 2);
        clock.refresh();
        assert!((49..=51).contains(&(clock.now() - verified)), "{}", clock.now() - verified);
    }

    #[test]
    fn a_suspension_before_the_start_of_the_clock_does_not_count() {
        let clock = Clock::new();
        let late = clock.precise() - clock.now();
        assert!(late < 5_000, "{late} ms");
    }
}
