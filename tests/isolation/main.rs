//! Isolation between the successive users of one pooled connection, on real servers.
//!
//! [`leftovers`] covers open transactions, running statements and dropped futures, [`misuse`] covers uses that the driver
//! and the protocol make easy to get wrong, and [`cut_short`] cancels every kind of work at every poll.

#[path = "../common/mod.rs"]
mod common;
mod cut_short;
mod leftovers;
mod misuse;
