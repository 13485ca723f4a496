//! Discovery of Pods: from a Service's name to the addresses of its Pods.
//!
//! A [`Resolve`] performs lookups, each of which returns a [`Resolution`]. [`Dns`] queries name servers for A and AAAA
//! records, or for SRV records, which carry the Pods' names and ports too. [`Fixed`] is a static list. Any other source
//! of Pods can implement [`Resolve`]:
//!
//! ```
//! use std::{future::Future, pin::Pin, time::Duration};
//!
//! use podpool::{
//!     Endpoint,
//!     discovery::{Resolution, Resolve, ResolveError},
//! };
//! use tokio::time::Instant;
//!
//! /// A file with one `name address:port` per line, such as a sidecar may write.
//! #[derive(Debug)]
//! struct FromFile(std::path::PathBuf);
//!
//! impl Resolve for FromFile {
//!     fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
//!         Box::pin(async move {
//!             let text = std::fs::read_to_string(&self.0).map_err(ResolveError::other)?;
//!             let mut endpoints = Vec::new();
//!             for line in text.lines() {
//!                 let invalid = || ResolveError::other("expected `name address:port`");
//!                 let (name, address) = line.split_once(' ').ok_or_else(invalid)?;
//!                 endpoints.push(Endpoint::named(name, address.parse().map_err(ResolveError::other)?));
//!             }
//!             Ok(Resolution::new(endpoints, Instant::now() + Duration::from_secs(5)))
//!         })
//!     }
//!
//!     fn source(&self) -> String {
//!         format!("the file {}", self.0.display())
//!     }
//! }
//! # let _: Box<dyn Resolve> = Box::new(FromFile("pods".into()));
//! ```
//!
//! # Load
//!
//! A lookup sends one packet for a single-stack Service (and, every tenth time, one more for the other address family),
//! two for a dual-stack Service, and one for SRV records. A thousand clients of one single-stack Service that look it
//! up every 10 s, the default maximum interval, send 110 queries per second. With CoreDNS's default TTL of 5 s they
//! send 220. Checkouts send none.

// How the parts of a DNS lookup work together, from the outside in:
//
// - `schedule` computes when the next lookup starts. `confirm` decides what its result means for the Pods already
//   known. Both are pure: the time and the random numbers are arguments.
// - `dns` lets concurrent callers share one lookup (`single_flight`). `refresh` performs it and keeps the state between
//   lookups: `resolv_conf`, the candidate names (`search`), and the last good addresses (`family` for A and AAAA
//   records, `srv` for SRV records). `cluster_ip` detects a Service that is not headless.
// - `nameservers` chooses the name server for each query. `server` sends it through hickory-resolver, over the sockets
//   of `udp`, which obey `rate_limit`. `records` filters the response.

mod cluster_ip;
mod confirm;
mod dns;
mod error;
mod family;
mod fixed;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod nameservers;
mod options;
mod query;
mod rate_limit;
mod records;
mod refresh;
mod resolution;
mod resolv_conf;
mod schedule;
mod search;
mod server;
mod single_flight;
mod srv;
mod stats;
mod udp;

#[cfg(all(test, not(feature = "testkit")))]
#[path = "../testkit/fault_dns/mod.rs"]
#[expect(dead_code, unreachable_pub, reason = "public in the testkit")]
mod fault_dns;
#[cfg(test)]
mod tests;

use std::{fmt, future::Future, pin::Pin};

pub(crate) use self::{confirm::Confirm, schedule::Schedule};
pub use self::{
    dns::Dns,
    error::{ResolveError, ResolveErrorKind, ServerError},
    fixed::Fixed,
    options::DnsOptions,
    resolution::Resolution,
    stats::{DnsStats, ServerStats},
};

/// A source of Pods.
///
/// An implementation needs no retries, cache, jitter or state. The pool looks up again at about
/// [`valid_until`](Resolution::valid_until), keeps the last good set of Pods through every error, and removes a Pod
/// only after its absence is confirmed.
pub trait Resolve: fmt::Debug + Send + Sync + 'static {
    /// Looks up all existing Pods, once.
    ///
    /// The pool calls this from one background task, never while another call is running, and never from a checkout.
    ///
    /// # Errors
    ///
    /// A [`ResolveError`] means that the set of Pods is unknown, and the pool keeps the set it has. An error that
    /// [`is_negative`](ResolveError::is_negative) means that there are no Pods, as does an empty [`Resolution`]. The
    /// pool accepts that only after several such results in a row, and never while a Pod passes its health check.
    ///
    /// # Cancel safety
    ///
    /// The pool may drop the future at any await point and call `resolve` again.
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>>;

    /// Describes the source for logs and status pages, such as `A and AAAA records of db.example from 10.0.0.10:53`.
    fn source(&self) -> String;
}
