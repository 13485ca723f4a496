//! Tests isolation between successive callers that get the same pooled connection, on real servers.
//!
//! [`leftovers`] covers open transactions, running statements and dropped futures. [`misuse`] covers mistakes that are
//! easy to make with the driver and the protocol. [`refused_copy`] covers a COPY that the server refuses. [`handover`]
//! interrupts every kind of work at every poll.

mod actions;
#[path = "../common/mod.rs"]
mod common;
mod handover;
mod interruption;
mod leftovers;
mod misuse;
mod refused_copy;
mod server_view;
