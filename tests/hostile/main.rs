//! Servers that do what no server should: a caller gets an error by his deadline all the same, and the process keeps its
//! memory.
#![allow(unreachable_pub, reason = "a test binary has no outside")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/namespace.rs"]
mod namespace;
mod patient;
mod server;

mod deadline;
mod memory;
mod ramp;
mod silent_peer;
mod stages;
