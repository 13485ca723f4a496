//! Tests `Applied`: work that is reported as not applied has left no row, and no work is applied twice.
//!
//! [`judgement`] covers single failures. [`load`] writes under faults and compares the reported outcomes with the rows
//! on the server. `PODPOOL_WRITES` sets its number of writes.

#![allow(clippy::print_stdout, reason = "tests print their measurements")]
#![allow(unreachable_pub, reason = "a test binary has no public API")]

#[path = "../common/mod.rs"]
mod common;
mod cutting_proxy;
mod forms;
mod judgement;
mod load;
