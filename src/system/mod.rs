//! All access of this crate to the operating system and to the runtime's scheduler: sockets, tasks, threads, files,
//! random numbers, and the clocks that a paused runtime does not replace.
//!
//! `real` re-exports the functions of tokio, rand and the standard library, so that a call costs nothing. With
//! `--cfg podpool_simulation`, `simulated` replaces `real` and passes each call to the [`simulation::World`] of the
//! current thread, so that the same code runs on simulated hosts in simulated time. This module is the only one that
//! depends on the cfg.

#[cfg(any(podpool_simulation, not(unix)))]
mod no_unix;
pub(crate) mod platform;
#[cfg(not(podpool_simulation))]
mod real;
#[cfg(podpool_simulation)]
mod simulated;
#[cfg(podpool_simulation)]
pub mod simulation;
mod socket_options;
#[cfg(test)]
mod tests;

#[cfg(not(podpool_simulation))]
pub(crate) use self::real::*;
#[cfg(podpool_simulation)]
pub(crate) use self::simulated::*;
pub(crate) use self::socket_options::{Keepalive, SocketOptions};
