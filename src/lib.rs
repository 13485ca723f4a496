//! A health-checked, load-balanced Postgres connection pool to every Pod behind one Kubernetes name.
//!
//! Give it the name of a headless Service. It resolves the name to every Pod's address and keeps resolving it, keeps a
//! warm pool (tokio-postgres through deadpool) to each Pod, watches who is well and who is primary, and hands out the
//! best connection in the time of a bare pool checkout.
//!
//! ```no_run
//! use podpool::{Pool, Target};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = Pool::connect("postgres://app:secret@postgresql-svc.k8s-training.svc.cluster.local/shop").await?;
//! let client = pool.get().await?;
//! let version: String = client.query_one("SELECT version()", &[]).await?.get(0);
//! println!("{} is {version}", client.endpoint());
//! # Ok(())
//! # }
//! ```
//!
//! # The main types
//!
//! - [`Pool`]: the handle that everybody clones. [`Pool::get`] gives a connection to the best Pod,
//!   [`Pool::get_for`] to the best one for a [`Target`], [`Pool::retry`] does work again on another Pod when its Pod
//!   dies under it.
//! - [`Client`]: a connection on loan. Every method of deadpool-postgres's `ClientWrapper` and of
//!   [`tokio_postgres::Client`] is there. Dropping it gives it back, clean or not at all.
//! - [`Config`]: everything that can be set, from a URL or by setters, with libpq's names where libpq has one.
//! - [`ProvideCredentials`]: passwords and tokens from anywhere, asked for at each connection.
//! - [`Error`]: what went wrong, with every Pod that was tried, and whether anything can have been [`Applied`].
//! - [`Status`] and [`Events`]: what the pool knows, and what happens to it.
//! - [`balance::Policy`] and [`discovery::Resolve`]: choose Pods, or find them, your own way.
//!
//! # Reads, writes, and doing it again
//!
//! ```no_run
//! # use podpool::{Applied, Pool, Target};
//! # async fn example(pool: Pool) -> Result<(), podpool::Error> {
//! // A read: safe to do twice, so it is done again whenever its connection fails under it.
//! let orders: i64 = pool
//!     .retry(Target::PreferStandby, |client| async move {
//!         let statement = client.prepare_cached("SELECT count(*) FROM orders").await?;
//!         client.query_one(&statement, &[]).await.map(|row| row.get(0))
//!     })
//!     .await?;
//!
//! // A write: done again only while it is certain that nothing was applied.
//! let written = pool
//!     .retry_unapplied(Target::Primary, |client| async move {
//!         client.execute("INSERT INTO orders (item) VALUES ($1)", &[&"lamp"]).await
//!     })
//!     .await;
//! match written {
//!     Err(error) if error.applied() == Applied::Unknown => println!("look before you send it again: {error}"),
//!     other => println!("{} row, and {orders} before", other?),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What a checkout does, and what it does not
//!
//! It reads its thread's copy of one snapshot, lets the policy pick among the Pods that fit, and takes an idle
//! connection. It never resolves, probes or dials. When no fitting Pod has an idle connection, it stands in a queue for
//! the first one that comes back or is opened, for `acquire_timeout` at most; connections are opened by tasks of the
//! pool. A connection that was idle for more than a second is pinged first; where the answer does not come at once, the
//! caller goes to another Pod.
//!
//! Prefer `prepare_cached` to giving a statement as text: the driver closes a statement given as text with one more
//! request when it is dropped, and the connection is lent out again only when that has been answered.
//!
//! # Who exists, and who serves
//!
//! DNS tells who exists. A Pod that is missing from an answer goes when the answer is confirmed; an error or an empty
//! answer removes nobody while a Pod serves. Health tells who serves: each Pod is probed on a connection of its own
//! every 5 s, and is out at once when a probe fails, a connection breaks, or the server says that it shuts down. While
//! no Pod passes, those that did are tried all the same.
//!
//! # What it tells
//!
//! [`Pool::status`] is the pool at one moment; [`Pool::events`] is a stream of what happens to the set of Pods, and
//! [`Builder::observer`] a call for each; log lines and spans go to `tracing`, and metrics, with the feature, to the
//! recorder that the application installs. All names are in [`metrics`] and [`trace`].
//!
//! ```
//! use podpool::{Config, Event, Observer, Pool};
//!
//! struct Print;
//!
//! impl Observer for Print {
//!     fn event(&mut self, event: &Event) {
//!         println!("{event}");
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config: Config = "postgres://app@postgresql-svc.k8s-training.svc.cluster.local/shop".parse()?;
//! let pool = Pool::builder(config).observer(Print).build()?; // touches no network
//! assert_eq!(pool.status().endpoints.len(), 0);
//! # Ok(())
//! # }
//! ```
//!
//! # The guide
//!
//! Prose, beside the repository's code in `docs/` and on docs.rs as the module [`guide`]:
//!
//! - [architecture](guide::architecture): how it is built, and why;
//! - [failure modes](guide::failure_modes): every fault, and what is seen of it;
//! - [tuning](guide::tuning): sizes, policies, deadlines, the arithmetic of `max_connections`;
//! - [TLS](guide::tls): which mode, which name behind a Service, client certificates, how to see that it works;
//! - [credentials](guide::credentials): where passwords come from, and what becomes of a new one;
//! - [observability](guide::observability): log lines, spans, events and metrics, by name;
//! - [operators](guide::operators): the headless Service that CloudNativePG, Zalando's and Crunchy's operators need;
//! - [PgBouncer](guide::pgbouncer): what works in front of one;
//! - [limits](guide::limits): what it does not do;
//! - [comparison](guide::comparison), and [moving](guide::moving) from deadpool-postgres, bb8, sqlx or pgxpool.
//!
//! # TLS
//!
//! libpq's parameters with libpq's meaning; see [`config::ssl`] for the modes, what each verifies, rotation of
//! certificates, and a recipe for Kubernetes, and [the guide](guide::tls) for what to choose. The default, `prefer`, is libpq's: it encrypts where the server offers it,
//! and protects from nobody who can change packets. `verify-full` does.
//!
//! # Runtime
//!
//! [`Builder::build`] is synchronous and touches no network; it succeeds with DNS and every Pod down. Every socket and
//! task of the pool lives on the tokio runtime it is built in (or is given); callers may be on any other. Dropping a
//! [`Client`] never blocks and never panics, wherever that happens. Dropping the last [`Pool`] closes everything.
//!
//! # Defaults
//!
//! Each is a constant of [`config::Limits`], where a table says when each stage ends: checkout within 5 s, dial within
//! 2 s, 8 connections a Pod and 1 kept idle, life 30 min less up to a tenth, idle 10 min, TCP user time-out 3 s, keepalive
//! 5 s/1 s/3, refresh by TTL within 1–10 s, drain 60 s, close 30 s.
//!
//! # Features
//!
//! | feature | meaning | default |
//! |---|---|---|
//! | `metrics` | the pool's counts and times for the recorder of the `metrics` facade, by the names in [`metrics`] | no |
//! | `rustls` | TLS by rustls with `ring`, see [`config::ssl`] | yes |
//! | `serde` | [`Config`] is read from a configuration file by way of serde | no |
//! | `testkit` | `podpool::testkit`: real local Pods and a name server that can be broken, for tests | no |
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout)]

pub mod balance;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
pub mod config;
pub mod discovery;
pub mod endpoint;
mod error;
mod event;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(any(doc, doctest))]
pub mod guide;
mod health;
pub mod metrics;
mod observer;
mod pool;
mod sync;
#[cfg(feature = "testkit")]
pub mod testkit;
mod time;
pub mod trace;
mod wire;

pub use config::{Config, Target};
pub use deadpool_postgres;
pub use endpoint::{Endpoint, Role};
pub use error::{Applied, Attempt, BoxError, ConfigError, Error, Kind, Phase, TlsError, TlsReason};
pub use event::{EVENT_CAPACITY, Event, Events, Lagged};
pub use health::State;
pub use observer::Observer;
pub use pool::{Builder, Client, CounterStatus, EndpointStatus, Pool, RETRIES, ResolveStatus, Status};
pub use tokio_postgres;
pub use wire::{
    CancelToken, Class, Credentials, CredentialsError, CredentialsRequest, ProvideCredentials, Verdict, classify,
};
