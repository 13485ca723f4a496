//! Who exists: from a Service's name to the addresses of its Pods.
//!
//! [`Resolve`] is one lookup, [`Resolution`] its answer. [`Dns`] asks name servers for A and AAAA records, or for SRV
//! records, which tell the Pods' names and ports too; [`Fixed`] is a list. Anything else that knows the Pods of a
//! Service can implement [`Resolve`]:
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
//! /// Reads a file with one `name address:port` a line, as a sidecar may write it.
//! #[derive(Debug)]
//! struct FromFile(std::path::PathBuf);
//!
//! impl Resolve for FromFile {
//!     fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
//!         Box::pin(async move {
//!             let text = std::fs::read_to_string(&self.0).map_err(ResolveError::other)?;
//!             let mut endpoints = Vec::new();
//!             for line in text.lines() {
//!                 let (name, address) = line.split_once(' ').ok_or_else(|| ResolveError::other("a line without a name"))?;
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
//! A lookup costs a single-stack Service one packet (and one more at every tenth, for the other family), a dual-stack
//! Service two, and SRV one. A thousand clients of one Service that look up every 10 s, which is the longest they wait
//! unless told otherwise, ask 110 questions a second; with CoreDNS's own TTL of 5 s it is 220. Checkouts ask none.
//!
//! A lookup is one question asked once. When it is asked again is `schedule`'s business, what an answer means for the
//! Pods already known is `confirm`'s: neither reads a clock or draws a number of its own.

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

/// A source of Pods: one lookup, whenever it is asked.
///
/// An implementation need not repeat, cache, jitter or remember anything: the pool asks again by the answer's
/// [`valid_until`](Resolution::valid_until), keeps the last good answer through every error, and removes a Pod only
/// after its absence is confirmed.
pub trait Resolve: fmt::Debug + Send + Sync + 'static {
    /// Asks once for every Pod there is.
    ///
    /// The pool calls this from one background task, never while another call is running, and never from a checkout.
    ///
    /// # Errors
    ///
    /// A [`ResolveError`] says that nothing is known; the pool keeps what it has. An error that
    /// [`is_negative`](ResolveError::is_negative) says that there are no Pods, which the pool believes only after it
    /// was repeated, and never while a Pod passes its health check. So does an empty answer.
    ///
    /// # Cancel safety
    ///
    /// The pool may drop the future at any await, and must be able to ask again.
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>>;

    /// For people: what is asked and of whom.
    fn source(&self) -> String;
}
