//! Tests the names of servers as users write them, with real servers: `localhost`, names in the hosts file, single
//! labels, lists of hosts, names with rotating answers, SRV records, and Unix sockets.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;
mod lists;
mod local;
mod new_user;
mod rotation;
mod shared;
mod sockets;
mod srv;

use std::time::Duration;

/// Maximum time for a pool to reach an expected state.
const SOON: Duration = Duration::from_secs(20);
