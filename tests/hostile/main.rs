//! Tests that misbehaving servers cannot block callers or exhaust memory.
//!
//! - [`deadline`]: checkouts return by their deadline if the server refuses connections, stalls in any phase, sends one
//!   byte at a time, sends random data, floods the client, or hangs, or if all packets are dropped.
//! - [`memory`]: a server that floods the client with data does not exhaust its memory.
//! - [`stages`]: name resolution, recycling, closing and draining time out if the server does not respond.
//! - [`unresponsive_peer`]: a lost connection is detected within 8 s, whether it is idle or has a query running.
//! - [`pool_size`]: the pool keeps its limits with slow servers, full servers and many concurrent callers, and closes
//!   old and idle connections.
//! - [`drained`]: a waiter never receives a connection to a Pod that is being drained.
//! - [`saturation`]: with more callers than connections, each waiter is served in order, by any Pod that can serve it,
//!   and a fleet of clients does not overload a server that is down.
#![allow(unreachable_pub, reason = "a test binary has no public API")]

#[path = "../common/mod.rs"]
mod common;
mod counting_server;
#[path = "../common/namespace.rs"]
mod namespace;
mod server;

mod deadline;
mod drained;
mod memory;
mod pool_size;
mod saturation;
mod stages;
mod unresponsive_peer;
