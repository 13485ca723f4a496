//! The clocks of a simulation, by an override of the C library's `clock_gettime`: the monotonic clocks show simulated
//! time, and the wall clock shows simulated time plus the skew of the current host.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

/// The monotonic time at the start of every simulation.
const MONOTONIC_START: Duration = Duration::from_secs(1_000_000);
/// The wall-clock time at the start of every simulation: 2026-01-01 00:00:00 UTC.
const WALL_START: Duration = Duration::from_secs(1_767_225_600);

#[derive(Clone, Copy)]
enum State {
    /// The thread runs no simulation, and reads the kernel's clocks.
    Real,
    /// Simulated time stands still, before the runtime's clock exists.
    Stopped,
    /// Simulated time is that of the thread's runtime.
    Running { start: std::time::Instant },
}

thread_local! {
    static STATE: Cell<State> = const { Cell::new(State::Real) };
    /// The time since the start at the last reading.
    static LAST: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// True while tokio's clock is being read, which may read the system's clock.
    static IS_READING: Cell<bool> = const { Cell::new(false) };
    /// The skew of the current host's wall clock, in nanoseconds.
    static SKEW: Cell<i64> = const { Cell::new(0) };
}

/// Stops the clocks of this thread at the start of the simulation.
pub(super) fn stop() {
    STATE.set(State::Stopped);
    // The reference makes the linker include the override.
    std::hint::black_box(clock_gettime as unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> i32);
}

/// Makes the clocks of this thread follow its runtime, whose clock must be paused.
pub(super) fn run() {
    STATE.set(State::Running { start: Instant::now().into_std() });
}

/// Sets the skew of the wall clock, and returns the previous one.
pub(super) fn set_skew(nanos: i64) -> i64 {
    SKEW.replace(nanos)
}

/// Returns the time since the start of the simulation.
fn elapsed(start: std::time::Instant) -> Duration {
    if !IS_READING.replace(true) {
        let elapsed = Instant::now().into_std().saturating_duration_since(start);
        LAST.set(LAST.get().max(elapsed));
        IS_READING.set(false);
    }
    LAST.get()
}

/// Replaces the C library's function.
///
/// # Safety
///
/// `time` must be valid for a write.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> i32 {
    let elapsed = match STATE.get() {
        // SAFETY: the caller guarantees that `time` is valid for a write.
        State::Real => return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as i32 },
        State::Stopped => Duration::ZERO,
        State::Running { start } => elapsed(start),
    };
    let now = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => {
            let skew = SKEW.get();
            let magnitude = Duration::from_nanos(skew.unsigned_abs());
            let exact = WALL_START + elapsed;
            if skew < 0 { exact.saturating_sub(magnitude) } else { exact + magnitude }
        }
        _ => MONOTONIC_START + elapsed,
    };
    let value = libc::timespec { tv_sec: now.as_secs() as libc::time_t, tv_nsec: now.subsec_nanos().into() };
    // SAFETY: the caller guarantees that `time` is valid for a write.
    unsafe { time.write(value) };
    0
}

/// Returns the CPU time that the calling thread has used. Not simulated.
pub fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for a write, because it comes from a local variable.
    unsafe { libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
