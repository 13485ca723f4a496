//! Pod discovery: resolves a Service's name to the addresses of its Pods.
//!
//! A [`Resolve`] looks up the Pods, and each lookup returns a [`Resolution`]. [`Dns`] queries A and AAAA records, or
//! SRV records, which also contain each Pod's name and port. [`Fixed`] is a static list. [`Fallback`] and [`Union`]
//! combine several sources. To use any other source, implement [`Resolve`]:
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
//! /// A file that a sidecar keeps up to date, with one `name address:port` per line.
//! #[derive(Debug)]
//! struct FromFile(std::path::PathBuf);
//!
//! impl Resolve for FromFile {
//!     fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
//!         Box::pin(async move {
//!             let text = tokio::fs::read_to_string(&self.0).await.map_err(ResolveError::other)?;
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
//! A lookup of a single-stack Service sends one packet. Every tenth lookup sends a second packet, for the other address
//! family. A lookup of a dual-stack Service sends two packets, and a lookup of SRV records sends one. One thousand
//! clients that look up a single-stack Service every 10 s, which is the default maximum interval, send 110 queries per
//! second in total. With CoreDNS's default TTL of 5 s, they look up the Service every 5 s and send 220 queries per
//! second. Checkouts send no DNS queries.

// The parts of a DNS lookup, from the outside in:
//
// - `schedule` computes the start of the next lookup. `confirm` turns a lookup's result into the new set of Pods. Both
//   are pure: the time and the random numbers are arguments.
// - `dns` lets concurrent callers share one lookup (`single_flight`). `refresh` performs the lookup and keeps this
//   state between lookups: the names that need no DNS (`local_names`, `hosts_file`), `resolv_conf`, the candidate names
//   (`search`), and the last good addresses (`family` for A and AAAA records, `srv` for SRV records). `cluster_ip`
//   detects a Service that is not headless.
// - `fallback` and `union` combine other resolvers, which they call through `source`. `identities` gives a Pod that
//   several of them know a single identity.
// - `nameservers` chooses the name server for each query. `server` sends the query through hickory-resolver, over
//   sockets from `udp` that obey `rate_limit`. `records` filters the response.

mod authority;
mod cluster_ip;
pub(crate) mod confirm;
mod dns;
mod error;
mod fallback;
mod family;
mod fixed;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod hosts_file;
mod identities;
mod local_names;
pub(crate) mod losses;
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
mod source;
mod srv;
mod stats;
mod udp;
mod union;
mod watched_file;

#[cfg(all(test, not(feature = "testkit")))]
#[path = "../testkit/fault_dns/mod.rs"]
#[expect(dead_code, unreachable_pub, reason = "public in the testkit")]
mod fault_dns;
#[cfg(test)]
mod tests;

use std::{fmt, future::Future, pin::Pin};

pub use self::{
    authority::Authority,
    dns::Dns,
    error::{ResolveError, ResolveErrorKind, ServerError},
    fallback::Fallback,
    fixed::Fixed,
    options::DnsOptions,
    resolution::Resolution,
    stats::{DnsStats, ServerStats},
    union::Union,
};
pub(crate) use self::{confirm::Confirm, hosts_file::HostsFile, losses::Losses, schedule::Schedule};

/// A source of Pods.
///
/// An implementation needs no retries, cache, jitter or state, because the pool does the following:
///
/// - After a success, it looks up the Pods again at about [`valid_until`](Resolution::valid_until), but no earlier than
///   [`refresh_min`](crate::config::Limits::refresh_min) and no later than
///   [`refresh_max`](crate::config::Limits::refresh_max) after the previous lookup. After an error, it retries with
///   backoff. When a Pod fails or a requested role is missing, it looks up the Pods immediately and then about once per
///   second, and less often after a minute.
/// - It also looks up the Pods when the implementation announces a [change](Self::changed).
/// - It treats a lookup that takes longer than 15 s as failed.
/// - It keeps its current Pods while lookups fail. If a Pod is missing from a result, it removes the Pod after a
///   failed health check. It stops using a Pod that passes its health check only after a later result has confirmed
///   the absence, and while other Pods serve the roles that callers have requested. An implementation that knows
///   better sets the [`authority`](Resolution::authority) of its results.
pub trait Resolve: fmt::Debug + Send + Sync + 'static {
    /// Looks up all existing Pods.
    ///
    /// The pool calls this from one background task, never while another call is running, and never from a checkout.
    ///
    /// # Errors
    ///
    /// Return [`ResolveError::other`] if the lookup failed. The pool then keeps its current Pods.
    ///
    /// Return [`ResolveError::no_pods`] or an empty [`Resolution`] if there are no Pods. The pool removes its Pods only
    /// after several such results in a row, and never while any of its Pods passes its health check.
    ///
    /// # Cancel safety
    ///
    /// The pool may drop the future at any await point and call `resolve` again.
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>>;

    /// Waits until the next [`resolve`](Self::resolve) may return a different result. The pool then looks up the Pods
    /// immediately, in addition to its periodic lookups, but starts at most one such lookup every 50 ms. The default
    /// implementation never completes.
    ///
    /// A change while no future of this method exists, for example during a lookup, must complete the next future.
    /// `notify_one` and `notified` of [`tokio::sync::Notify`] have this property. Several changes may be announced as
    /// one.
    ///
    /// [`tokio::sync::Notify`]: https://docs.rs/tokio/latest/tokio/sync/struct.Notify.html
    ///
    /// The pool calls this from the task that calls `resolve`, never while another future of this method exists.
    ///
    /// # Cancel safety
    ///
    /// The pool drops the future before each lookup. A change that the dropped future has not announced must complete
    /// the next one.
    fn changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    /// Returns true if the source follows the Pods as they change. Returns false if its results may be stale, for
    /// example because a watch was interrupted. A [`Fallback`] then uses its second source. The default implementation
    /// returns true.
    ///
    /// A change of this value must be announced by [`changed`](Self::changed).
    fn is_in_sync(&self) -> bool {
        true
    }

    /// Returns a description of the source for logs and status pages, such as `A and AAAA records of db.example`.
    fn source(&self) -> String;
}
