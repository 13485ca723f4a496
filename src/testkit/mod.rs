//! A local StatefulSet for tests: real PostgreSQL servers behind a headless Service's name, without Kubernetes.
//!
//! Use the testkit where a mock is not enough: to test an application while servers are killed, stopped, paused,
//! throttled or promoted, and while DNS is slow, wrong or down.
//!
//! - [`Cluster`] runs the servers and a DNS server that publishes them. Each fault and each change of the cluster is
//!   one method.
//! - [`DnsServer`] answers as CoreDNS does for headless Services. It can be stopped, paused, delayed, or made to return
//!   errors.
//! - [`PatroniCluster`] runs servers that Patroni manages, with etcd.
//! - [`fault_dns`] contains a second DNS server, which delays, drops, truncates or forges its responses.
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
//! The testkit requires PostgreSQL's server programs `initdb` and `postgres`, version 13 or newer. It looks for them in
//! the directory of [`ClusterBuilder::programs`], else in the directory of the environment variable `PG_BIN`, else on
//! `PATH` and in the directories where packages install PostgreSQL. If `pg_basebackup` or `pg_rewind` is missing, the
//! testkit copies the primary's files with PostgreSQL's low-level backup functions. Linux needs nothing else. On macOS,
//! the Pods' addresses must first be added to the loopback interface. The error text contains the command.
//! [`PatroniCluster`] also requires `pg_basebackup`, Patroni and etcd.
//!
//! # Addresses and names
//!
//! Pod `i` is named `postgresql-sfs-i`. Pods get the addresses from 127.0.0.2 upwards, in the order in which they are
//! added or moved, and share one port. The DNS server listens on 127.0.0.1. Every cluster reserves its own port, so
//! tests can run concurrently, in one process or in several.
//!
//! # Durability and cleanup
//!
//! The servers run with `fsync` off and listen on loopback addresses only. A watcher process kills the servers and
//! removes their files when the test process ends, even if it panics or is killed. One exception: if a test is killed
//! while a Pod is [throttled](Cluster::throttle), the Pod's empty control group remains until a Pod is throttled again.

mod account;
mod base_backup;
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
mod patroni;
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
pub use patroni::PatroniCluster;
pub use pod::{Pod, PodRole, PodState, Shutdown};
use programs::Programs;
pub use throttle::{CpuLimit, Throttle, limit_cpu};

/// Locks a mutex and ignores poisoning, because every critical section in the testkit leaves its data consistent.
///
/// Always uses the standard library's mutex, because loom does not model the testkit.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
