//! Tests the options of single calls (deadlines and limits on replication lag), transactions that are repeated after
//! conflicts and losses, and listeners.

#![allow(clippy::print_stdout, reason = "tests print their measurements")]
#![allow(unreachable_pub, reason = "a test binary has no public API")]

#[path = "../common/mod.rs"]
mod common;
mod deadlines;
mod lag_limits;
mod listen;
mod transactions;

use podpool::Pool;

/// Returns true if every open connection is idle and no caller waits.
fn at_rest(pool: &Pool) -> bool {
    pool.status().endpoints.iter().all(|pod| pod.in_use == 0 && pod.waiting == 0 && pod.idle == pod.open)
}
