//! A local StatefulSet for tests: real PostgreSQL servers behind a headless Service's name, without Kubernetes.
//!
//! Use it where a test or an example needs what a mock cannot tell: what a connection does when its server is killed,
//! stopped, paused or promoted, and when DNS answers late, wrong or not at all. It needs PostgreSQL's server programs
//! (13 or newer), found by `PG_BIN`, on `PATH`, or where packages put them; on Linux nothing else. On macOS the Pods'
//! addresses have to be added to the loopback interface first; the error says how.
//!
//! ```no_run
//! use podpool::testkit::{Cluster, Shutdown};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), podpool::testkit::Error> {
//! let cluster = Cluster::start(3).await?; // about two seconds
//! println!("DATABASE_URL={}", cluster.url());
//! cluster.kill(1).await?; // SIGKILL to postmaster and children
//! cluster.start_pod(1).await?;
//! cluster.stop(0, Shutdown::Fast).await?;
//! cluster.promote(2).await?; // Pod 1 follows it
//! cluster.reattach(0).await?; // the former primary comes back as a standby
//! cluster.scale(5).await?;
//! cluster.shutdown().await
//! # }
//! ```
//!
//! The servers keep nothing safe (`fsync` is off) and listen on loopback addresses only. Every cluster of a machine
//! has a port of its own, so tests can run side by side, in one process or in many. No process and no file is left
//! behind, also when a test panics or is killed: a watcher process at the end of a pipe cleans up. (Only the empty control
//! group of a Pod that was throttled when its test was killed stays, until a Pod is throttled again.)
//!
//! The order of Pods, names and addresses: Pod `i` is `postgresql-sfs-i`, on 127.0.0.2 and upwards, in the order in
//! which Pods were added or moved; all share one port. 127.0.0.1 is the name server's.

mod account;
mod builder;
mod certificate;
mod cluster;
mod command;
mod dns;
mod error;
pub mod fault_dns;
mod operations;
mod pod;
mod ports;
mod processes;
mod programs;
mod replication;
mod server;
mod site;
mod throttle;
mod watcher;

use std::sync::{Mutex, MutexGuard, PoisonError};

use account::Account;
pub use builder::ClusterBuilder;
pub use cluster::Cluster;
pub use dns::{DEFAULT_PORT_NAME, DnsServer, Queries, ResponseCode};
pub use error::Error;
pub use pod::{Pod, Role, Shutdown, State};
use programs::Programs;
pub use throttle::Throttle;

/// Locks, whether or not a thread panicked while it held the lock: every critical section here leaves its data whole.
/// The standard library's lock, also under loom, which the testkit has no part in.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
