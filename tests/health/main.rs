//! Faults on real servers under 500 requests a second, with every setting at its default: what callers notice of them,
//! and for how long. Each test prints what it measured.
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

#[path = "../common/mod.rs"]
mod common;
mod lag;
mod ledger;
#[path = "../common/namespace.rs"]
mod namespace;
mod proxy;
mod stage;

mod blackhole;
mod failover;
mod faults;
mod shares;
mod shutdown;
mod silence;
mod throttled;
