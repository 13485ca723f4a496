use std::{io, time::Duration};

/// True if [`spawn`] can start a thread. A simulation has one thread. The crate's threads act while a task blocks the
/// runtime or while no thread drives it, and neither happens in a simulation.
pub(crate) const AVAILABLE: bool = false;

/// Returns an error.
pub(crate) fn spawn(_name: &str, _run: fn()) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "a simulation has one thread"))
}

/// Returns immediately, because simulated time does not pass while a thread is blocked.
pub(crate) fn sleep(_duration: Duration) {}
