//! Tests the effects of DNS changes and DNS failures on a pool with real Pods.
//!
//! - [`sets`]: Pods are added, removed and replaced, and records are reordered or repeated.
//! - [`srv`]: with SRV records, a Pod moves to another address, another Pod takes over an address, and a port changes.
//! - [`outages`]: the name server does not respond, in one test while Pods restart.
//! - [`failover`]: the first of two name servers does not respond or returns SERVFAIL.
//! - [`packets`]: the number of DNS packets at startup, in steady state, and while every lookup fails.

#[path = "../common/mod.rs"]
mod common;
mod failover;
mod outages;
mod packets;
mod sets;
mod site;
mod srv;
