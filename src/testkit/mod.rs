//! A local StatefulSet for tests: real PostgreSQL servers behind a headless Service's name, without Kubernetes.
//!
//! Use the testkit where a mock is not enough: to test how an application behaves when a server is killed, stopped,
//! paused, throttled or promoted, and when DNS is slow, wrong or down.
//!
//! - [`Cluster`] runs the servers and a DNS server that publishes them. Each fault and each change is one method.
//! - [`DnsServer`] answers as CoreDNS does for headless Services. It can be stopped, paused, delayed, or made to return
//!   errors.
//! - [`fault_dns`] is a second DNS server that sends wrong responses: truncated, forged, delayed or dropped.
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
//! # Requirements
//!
//! PostgreSQL's server programs, version 13 or newer. The testkit looks for them in the directory named by `PG_BIN` if
//! that is set, otherwise on `PATH` and where packages install them. Linux needs nothing else. On macOS the Pods'
//! addresses must first be added to the loopback interface; the error message contains the command.
//!
//! # Addresses and names
//!
//! Pod `i` is named `postgresql-sfs-i`. Pods get the addresses from 127.0.0.2 upwards, in the order in which they are
//! added or moved, and share one port. The DNS server listens on 127.0.0.1. Every cluster reserves its own port, so
//! tests can run concurrently, in one process or in several.
//!
//! # Durability and cleanup
//!
//! The servers run with `fsync` off and listen on loopback addresses only. A watcher process at the other end of a pipe
//! ends the servers and removes their files, even if the test panics or is killed. One exception: if a test is killed
//! while a Pod is [throttled](Cluster::throttle), the Pod's empty control group stays until the next call that
//! throttles a Pod.

mod account;
mod builder;
mod certificate;
mod cluster;
mod cluster_config;
mod command;
mod credentials;
mod dns;
mod error;
pub mod fault_dns;
mod faults;
mod pod;
mod ports;
mod processes;
mod programs;
mod replication;
mod server;
mod throttle;
mod topology;
mod watcher;

use std::sync::{Mutex, MutexGuard, PoisonError};

use account::Account;
pub use builder::ClusterBuilder;
pub use cluster::Cluster;
pub use dns::{DEFAULT_PORT_NAME, DnsServer, Queries, ResponseCode};
pub use error::Error;
pub use pod::{Pod, PodRole, PodState, Shutdown};
use programs::Programs;
pub use throttle::Throttle;

/// Locks a mutex and ignores poisoning: every critical section in the testkit leaves its data consistent.
///
/// Uses the standard library's mutex, also under loom, which does not model the testkit.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
