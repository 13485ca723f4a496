use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

/// The first use of [`since_start`] in this process.
#[allow(clippy::disallowed_methods, reason = "the start is used only as an offset; a paused clock does not apply")]
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Returns the time since the first call in this process, according to the system's monotonic clock.
pub(crate) fn since_start() -> Duration {
    START.elapsed()
}

/// Returns the total time for which the machine has been suspended since it was booted, plus the time between two reads
/// of the clock.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn suspended() -> Duration {
    use nix::time::{ClockId, clock_gettime};

    let read = |id| clock_gettime(id).map(Duration::from).unwrap_or_default();
    // Read in this order, so that the difference is never negative.
    let monotonic = read(ClockId::CLOCK_MONOTONIC);
    read(ClockId::CLOCK_BOOTTIME).saturating_sub(monotonic)
}

/// Returns zero: on this operating system, the time of a suspension is unknown, or tokio's clock includes it.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn suspended() -> Duration {
    Duration::ZERO
}
