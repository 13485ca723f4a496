use std::{io, thread};

pub(crate) use std::thread::sleep;

/// True if [`spawn`] can start a thread.
pub(crate) const AVAILABLE: bool = true;

/// Starts a thread.
pub(crate) fn spawn(name: &str, run: fn()) -> io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(run).map(drop)
}
