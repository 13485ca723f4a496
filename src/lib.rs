//! A health-checked, load-balanced Postgres connection pool to every Pod behind one Kubernetes name.
//!
//! Pass the name of a headless Service. The pool resolves the name to the addresses of all Pods and keeps resolving it.
//! It keeps connections to each Pod open (tokio-postgres connections in one deadpool per Pod), checks the Pods' health,
//! and tracks which Pod is the primary. A checkout returns a connection to the best Pod in about the time of a checkout
//! from a plain deadpool. Pods can be killed, moved, added or promoted without a restart of the application.
//!
//! ```no_run
//! use podpool::Pool;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let url = "postgres://app@postgresql-svc.k8s-training.svc.cluster.local/shop\
//!     ?password_file=/run/secrets/postgresql/password&sslmode=verify-full&sslrootcert=/run/secrets/tls/ca.crt";
//! let pool = Pool::connect(url).await?;
//! let client = pool.get().await?;
//! let version: String = client.query_one("SELECT version()", &[]).await?.get(0);
//! println!("{} runs {version}", client.endpoint());
//! # Ok(())
//! # }
//! ```
//!
//! # Main types
//!
//! - [`Pool`]: a handle that is cheap to clone. [`Pool::get`] checks out a connection to the best Pod, and
//!   [`Pool::get_for`] one to the best Pod for a [`Target`]. [`Pool::retry`] retries work on another Pod if the
//!   connection fails, and [`Pool::transaction`] repeats a transaction after conflicts. [`Pool::connect_owned`] opens a
//!   connection for other libraries.
//! - [`Checkout`]: the options of one call, such as a deadline, accepted wherever a [`Target`] is.
//! - [`Client`]: a checked-out connection, with all methods of deadpool-postgres's `ClientWrapper` and of
//!   [`tokio_postgres::Client`]. Dropping it returns the connection, which is cleaned up before it is reused.
//! - [`Listener`]: a stream of notifications on a connection of its own, which follows the primary.
//! - [`Config`]: all settings, from a URL or through setters. Parameters that libpq also has are named as in libpq.
//! - [`ProvideCredentials`]: a source of passwords and tokens, called for each new connection.
//! - [`Error`]: the kind of failure, every Pod that was tried, and whether the database may have [`Applied`] the work.
//! - [`Status`], [`Events`]: a snapshot of the pool's state, and a stream of the changes to it.
//! - [`Builder::after_connect`], [`Builder::before_checkout`], [`Builder::after_checkin`]: hooks that set up sessions
//!   or reject connections.
//! - [`balance::Policy`], [`discovery::Resolve`]: extension points for choosing Pods and for discovering them.
//!
//! # What the pool does
//!
//! **Discovery.** DNS determines which Pods exist. A Pod that is missing from a response is removed immediately if it
//! also fails its health check. If it passes, a later response must confirm its absence. The Pod is then no longer used
//! if other Pods serve the roles that callers have requested, and its connections are closed 30 s later
//! (`detach_linger`), or as soon as its server refuses new connections. DNS errors never remove a Pod, and neither do
//! empty responses while any Pod passes its health check.
//!
//! **Health.** Health checks determine which Pods receive traffic. Each Pod is probed every 5 s on a dedicated
//! connection. A Pod is ejected if a probe fails conclusively or two probes in a row fail, if a connection breaks, or
//! if the server announces its shutdown. While every Pod is ejected, the pool uses the ejected Pods.
//!
//! **Checkout.** A checkout reads a snapshot of the Pods that is cached per thread, lets the policy pick a Pod that
//! fits the target, and takes an idle connection. It never resolves a name, probes a Pod or opens a connection. If no
//! fitting Pod has an idle connection, the caller waits in a FIFO queue, for at most `acquire_timeout`, until a
//! connection is returned or a task of the pool opens one. A connection that was idle for more than a second, or whose
//! last known role does not fit the target, is pinged first. If the response to the ping is late, the caller gets a
//! connection to another Pod.
//!
//! **TLS.** Parameters have the same names and meanings as in libpq. The default, `sslmode=prefer`, is also libpq's: it
//! encrypts if the server supports TLS, but does not protect against an attacker who can modify the traffic.
//! `verify-full` does. See [`config::ssl`] for the modes and for certificate rotation.
//!
//! **Runtime.** [`Builder::build`] is synchronous, uses no network, and succeeds even while DNS and all Pods are down.
//! All sockets and tasks of the pool run on the tokio runtime on which the pool is built, or on the one passed to the
//! builder. Callers can run on any other runtime. Dropping a [`Client`] never blocks and never panics. Dropping the
//! last [`Pool`] closes idle connections immediately and checked-out ones when they are returned.
//!
//! **Observability.** [`Pool::status`] returns a snapshot. [`Pool::events`] is a stream of changes to the set of Pods,
//! and [`Builder::observer`] registers a callback for them. Logs and spans use `tracing`; the features `metrics` and
//! `otel` export metrics. [`trace`] and [`metrics`] list the names of all spans and metrics.
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
//! let pool = Pool::builder(config).observer(Print).build()?; // uses no network
//! assert_eq!(pool.status().endpoints.len(), 0);
//! # Ok(())
//! # }
//! ```
//!
//! # What the pool does not do
//!
//! - It does not promote Pods. That is the task of an operator; the pool detects the new primary.
//! - It does not route by SQL. The [`Target`] of a checkout decides whether a primary or a standby gets the work.
//! - It balances checkouts, not statements. A connection that is held for an hour stays on one Pod for an hour.
//! - It does not guarantee that a standby has replayed the caller's own writes. Read them with [`Target::Primary`].
//! - It does not guarantee by default that session state is reset. A returned connection is reset if the pool notices
//!   that `SET`, `LISTEN`, temporary tables or advisory locks may have changed its session; a function can hide such a
//!   change. `reset=discard` resets the session after each use. An open transaction is always rolled back.
//! - It cannot balance load behind a Service with a cluster IP: the name resolves to a single address, so the pool
//!   finds only one Pod.
//!
//! The guide has [the full list](guide::limits).
//!
//! # Reads, writes and retries
//!
//! ```no_run
//! # use podpool::{Applied, Pool, Target};
//! # async fn example(pool: Pool) -> Result<(), podpool::Error> {
//! // A read is safe to repeat, so it is retried whenever its connection fails.
//! let orders: i64 = pool
//!     .retry(Target::PreferStandby, |client| async move {
//!         let statement = client.prepare_cached("SELECT count(*) FROM orders").await?;
//!         client.query_one(&statement, &[]).await.map(|row| row.get(0))
//!     })
//!     .await?;
//!
//! // A write is retried only if it is known not to have been applied.
//! let written = pool
//!     .retry_unapplied(Target::Primary, |client| async move {
//!         client.execute("INSERT INTO orders (item) VALUES ($1)", &[&"lamp"]).await
//!     })
//!     .await;
//! match written {
//!     Err(error) if error.applied() == Applied::Unknown => println!("check before you send it again: {error}"),
//!     other => println!("{} row added to {orders}", other?),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Prefer `prepare_cached` to passing a statement as text. For text, the driver prepares a named statement, and sends
//! one more request to close it when the statement is dropped. The connection is not reused before the server has
//! responded to that request.
//!
//! # Defaults
//!
//! Each default is a constant of [`config::Limits`], which also lists the deadline of every stage.
//!
//! | setting | default |
//! |---|---|
//! | checkout, including the wait (`acquire_timeout`) | 5 s |
//! | dial: TCP, TLS and authentication (`connect_timeout`) | 2 s |
//! | connections per Pod (`pool_size`), kept idle (`min_idle`) | 8, 1 |
//! | maximum age (`max_lifetime`, minus up to 10 % jitter), maximum idle time (`idle_timeout`) | 30 min, 10 min |
//! | health check: interval, timeout (`probe_interval`, `probe_timeout`) | 5 s, 1 s |
//! | DNS refresh: by TTL, within (`refresh_min`, `refresh_max`) | 1 s to 10 s |
//! | TCP user timeout; keepalive idle time, interval, count | 3 s; 5 s, 1 s, 3 |
//! | drain a removed Pod (`drain_timeout`), close the pool (`close_timeout`) | 60 s, 30 s |
//!
//! # Features
//!
//! | feature | effect | default |
//! |---|---|---|
//! | `aws-lc-rs` | TLS by rustls with `aws-lc-rs` instead of `ring`, see [TLS](guide::tls#cryptography) | no |
//! | `cli` | the [command-line tool](guide::runbook) `podpool`, with 4 more crates; not for applications | no |
//! | `encrypted-keys` | encrypted private keys of client certificates: `sslpassword` | no |
//! | `keylog` | writes the secrets of TLS sessions to a file, for debugging: `sslkeylogfile` | no |
//! | `metrics` | exports metrics to the recorder of the `metrics` facade, see [`metrics`] | no |
//! | `otel` | exports metrics through OpenTelemetry's API, see [`metrics`](metrics#opentelemetry) | no |
//! | `rustls` | TLS by rustls with `ring`, see [`config::ssl`] | yes |
//! | `serde` | deserializes [`Config`] from configuration files | no |
//! | `testkit` | `podpool::testkit`: real local Pods and a DNS server with fault injection, for tests | no |
//!
//! # Guide
//!
//! The module [`guide`] contains the pages of the repository's folder `docs/`: [architecture](guide::architecture),
//! [failure modes](guide::failure_modes), [runbook](guide::runbook), [parameters](guide::parameters),
//! [tuning](guide::tuning), [TLS](guide::tls), [credentials](guide::credentials),
//! [observability](guide::observability), [Postgres operators](guide::operators), [PgBouncer](guide::pgbouncer),
//! [limits](guide::limits), [benchmarks](guide::benchmarks), [comparison](guide::comparison),
//! [conformance vectors](guide::vectors) for clients in other languages, and [migration](guide::moving) from
//! deadpool-postgres, bb8, sqlx or pgxpool.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout)]

mod address;
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
mod system;
#[cfg(feature = "testkit")]
pub mod testkit;
#[cfg(test)]
mod tests;
mod time;
pub mod trace;
mod unwind;
mod wire;

pub use address::Address;
pub use config::{Checkout, Config, Target};
pub use deadpool_postgres;
pub use endpoint::{Endpoint, Role};
pub use error::{Applied, Attempt, BoxError, ConfigError, Error, Kind, Phase, TlsError, TlsReason};
pub use event::{EVENT_CAPACITY, Event, Events, Lagged};
pub use health::State;
pub use observer::Observer;
#[cfg(feature = "otel")]
pub use opentelemetry;
pub use pool::{
    Builder, Client, CounterStatus, EndpointStatus, HookClient, HookFuture, LISTENER_CAPACITY, Listener, ListenerEvent,
    MAX_POOL_NAME, OwnedConnection, Pool, RETRIES, ResolveStatus, SharedClient, SharedResponse, Status, Transaction,
    TransactionOptions,
};
#[cfg(podpool_simulation)]
pub use system::simulation;
pub use tokio_postgres;
pub use wire::{
    AuthError, AuthRefusal, CancelToken, Class, Credentials, CredentialsError, CredentialsRequest, Notification,
    ProvideCredentials, Verdict, classify,
};
