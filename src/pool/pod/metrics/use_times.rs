//! The use times of connections: how long callers hold them.

use std::mem;

use crate::{
    sync::{Mutex, lock},
    time::{Duration, Instant},
};

/// Maximum number of use times that one Pod keeps until the next export. Further use times are dropped.
const USE_TIMES: usize = 1024;

/// The use times of one Pod's connections that have not been exported yet.
#[derive(Debug)]
pub(crate) struct UseTimes(Mutex<Vec<Duration>>);

impl UseTimes {
    /// Allocates capacity for one second's use times, so that returning a connection never allocates.
    pub(crate) fn new(pool_size: usize) -> Self {
        Self(Mutex::new(Vec::with_capacity((10 * pool_size).min(USE_TIMES))))
    }

    fn add(&self, time: Duration) {
        let mut times = lock(&self.0);
        if times.len() < times.capacity() {
            times.push(time);
        }
    }

    /// Removes and returns the collected use times. Swaps in a new buffer, so that the lock is not held while they are
    /// exported.
    pub(crate) fn drain(&self) -> Vec<Duration> {
        let mut times = lock(&self.0);
        let empty = Vec::with_capacity(times.capacity());
        mem::replace(&mut times, empty)
    }
}

/// Measures the use time of one connection. To keep checkouts cheap, measures at most one use per tick of the pool's
/// clock.
#[derive(Debug, Default)]
pub(crate) struct UseTimer {
    /// The pool's clock at the start of the last measured use.
    tick: u64,
    /// Start of the current use, if it is measured.
    since: Option<Instant>,
}

impl UseTimer {
    /// Begins a use. `tick` is the current value of the pool's clock.
    #[inline]
    pub(crate) fn begin(&mut self, tick: u64) {
        if self.tick != tick {
            self.tick = tick;
            self.since = Some(Instant::now());
        }
    }

    /// Ends a use, and stores its duration if the use was measured.
    #[inline]
    pub(crate) fn end(&mut self, times: &UseTimes) {
        if let Some(since) = self.since.take() {
            times.add(since.elapsed());
        }
    }
}
