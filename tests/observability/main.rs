//! Tests the names of events, log lines, spans and metrics, and that the documentation lists all of them.
//!
//! - [`documentation`]: docs/observability.md and docs/failure-modes.md contain exactly the names that exist.
//! - [`life`]: a pool that is exposed to every kind of fault produces every documented name.
//! - [`names`]: every pool has its own name.
//! - [`start`]: the series of a pool exist before anything has succeeded, and callers that give up are counted.
//! - [`closing`]: the exported counters of a closed pool are complete.
#![allow(clippy::print_stdout, reason = "tests print their measurements")]

#[allow(dead_code, reason = "the TLS tests use the rest")]
#[path = "../tls/authority.rs"]
mod authority;
#[path = "../common/mod.rs"]
mod common;
mod recording;
mod totals;

mod closing;
mod documentation;
mod life;
mod names;
mod start;

use std::time::Duration;

/// Time limit for each condition that a test waits for.
const LIMIT: Duration = Duration::from_secs(30);
