//! The replication lag of one standby, as reported in the status and in metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{health::lag::Lag, time::Duration};

/// The last known replication lag. All accesses are relaxed, because the lag is only reported.
#[derive(Debug)]
pub(crate) struct LagGauge {
    /// Write-ahead log that the standby has not replayed, in bytes. `u64::MAX` if unknown.
    bytes: AtomicU64,
    /// Age of the standby's data, in microseconds. `u64::MAX` if unknown.
    micros: AtomicU64,
}

impl Default for LagGauge {
    fn default() -> Self {
        Self { bytes: AtomicU64::new(u64::MAX), micros: AtomicU64::new(u64::MAX) }
    }
}

impl LagGauge {
    pub(crate) fn set(&self, lag: &Lag) {
        self.bytes.store(lag.bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
        let micros = lag.time.and_then(|time| u64::try_from(time.as_micros()).ok());
        self.micros.store(micros.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns the lag in bytes, if known.
    pub(crate) fn bytes(&self) -> Option<u64> {
        Some(self.bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes != u64::MAX)
    }

    /// Returns the lag in time, if known.
    pub(crate) fn time(&self) -> Option<Duration> {
        let micros = self.micros.load(Ordering::Relaxed);
        (micros != u64::MAX).then(|| Duration::from_micros(micros))
    }
}
