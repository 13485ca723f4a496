//! The guide: the pages of the repository's folder `docs/`, published on docs.rs. Their examples are compiled as
//! doctests.
//!
//! The links of a page are references. The page ends with the targets for a repository page. Before each page, this
//! file defines the targets for rustdoc, which take precedence because the first definition of a label is used.

/// The pool's design, and its rationale.
///
/// [`Builder::resolver`]: crate::Builder::resolver
/// [`Client`]: crate::Client
/// [`discovery/rate_limit.rs`]: ../../../src/podpool/discovery/rate_limit.rs.html
/// [`discovery/single_flight.rs`]: ../../../src/podpool/discovery/single_flight.rs.html
/// [`endpoint/publish.rs`]: ../../../src/podpool/endpoint/publish.rs.html
/// [`LeastCost`]: crate::balance::LeastCost
/// [`Target`]: crate::Target
/// [`testkit/throttle/cgroup.rs`]: ../../../src/podpool/testkit/throttle/cgroup.rs.html
/// [`wire/backend.rs`]: ../../../src/podpool/wire/backend.rs.html
/// [tuning]: crate::guide::tuning
///
#[doc = include_str!("../docs/architecture.md")]
pub mod architecture {}

/// Measured costs of this pool, compared with other pools and load balancers.
///
/// [`Pool::shared`]: crate::Pool::shared
///
#[doc = include_str!("../docs/benchmarks.md")]
pub mod benchmarks {}

/// Alternatives to this pool, and how they differ from it.
///
/// [Benchmarks]: crate::guide::benchmarks
///
#[doc = include_str!("../docs/comparison.md")]
pub mod comparison {}

/// Sources of passwords, and password rotation.
///
/// [`Attempt`]: crate::Attempt
/// [`AuthError`]: crate::AuthError
/// [`Builder::credentials`]: crate::Builder::credentials
/// [`Config::from_env`]: crate::Config::from_env
/// [`config`]: crate::config#passwords
/// [`Credentials`]: crate::Credentials
/// [`CredentialsError::Missing`]: crate::CredentialsError::Missing
/// [`CredentialsRequest`]: crate::CredentialsRequest
/// [`EndpointStatus`]: crate::EndpointStatus
/// [`login_failed`]: crate::Event::LoginFailed
/// [`parse_with_env`]: crate::Config::parse_with_env
/// [`ProvideCredentials`]: crate::ProvideCredentials
/// [`refused`]: crate::CredentialsRequest::refused
/// [`require_auth`]: crate::config::RequireAuth
/// [`security=strict`]: crate::config::Security
/// [`tls_connector`]: crate::Builder::tls_connector
/// [TLS]: crate::guide::tls
/// [verified name]: crate::guide::tls#verified-name
///
#[doc = include_str!("../docs/credentials.md")]
pub mod credentials {}

/// Local servers for development, and fast connections in debug builds.
///
/// [credentials]: crate::guide::credentials
/// [TLS]: crate::guide::tls
///
#[doc = include_str!("../docs/development-laptop.md")]
pub mod development_laptop {}

/// Faults, and their effects on callers, events and metrics.
///
/// [`Applied::No`]: crate::Applied::No
/// [`Applied::Unknown`]: crate::Applied::Unknown
/// [`classify`]: crate::classify()
/// [`Client::classify_work`]: crate::Client::classify_work
/// [`Client::declare_commits_inside`]: crate::Client::declare_commits_inside
/// [deadline]: crate::Checkout::deadline
/// [`EndpointStatus`]: crate::EndpointStatus
/// [`Error::applied`]: crate::Error::applied
/// [`max_lag`]: crate::Checkout::max_lag
/// [Observability]: crate::guide::observability
/// [`Pool::forget_history`]: crate::Pool::forget_history
/// [`Pool::listen`]: crate::Pool::listen
/// [`Pool::retry`]: crate::Pool::retry
/// [`Pool::retry_unapplied`]: crate::Pool::retry_unapplied
/// [`Pool::status`]: crate::Pool::status
/// [`Pool::transaction`]: crate::Pool::transaction
///
#[doc = include_str!("../docs/failure-modes.md")]
pub mod failure_modes {}

/// Limitations of the pool.
///
/// [Operators]: crate::guide::operators
/// [`Pool::listen`]: crate::Pool::listen
/// [`Reset`]: crate::config::Reset
/// [`Target::Primary`]: crate::Target::Primary
///
#[doc = include_str!("../docs/limits.md")]
pub mod limits {}

/// Migration from deadpool-postgres, bb8, sqlx and pgxpool.
///
/// [`after_checkin`]: crate::Builder::after_checkin
/// [`after_connect`]: crate::Builder::after_connect
/// [`before_checkout`]: crate::Builder::before_checkout
/// [`Checkout::deadline`]: crate::Checkout::deadline
/// [`Client`]: crate::Client
/// [`client.raw_mut()`]: crate::Client::raw_mut
/// [`Config`]: crate::Config
/// [credentials]: crate::guide::credentials#authentication-methods
/// [failure modes]: crate::guide::failure_modes
/// [operators]: crate::guide::operators
/// [`Pool::builder`]: crate::Pool::builder
/// [`Pool::close`]: crate::Pool::close
/// [`Pool::connect`]: crate::Pool::connect
/// [`Pool::connect_owned`]: crate::Pool::connect_owned
/// [`Pool::get_for`]: crate::Pool::get_for
/// [`Pool::listen`]: crate::Pool::listen
/// [`Pool::status`]: crate::Pool::status
/// [`Pool::transaction`]: crate::Pool::transaction
/// [`Reset`]: crate::config::Reset
/// [`Target::Primary`]: crate::Target::Primary
///
#[doc = include_str!("../docs/moving.md")]
pub mod moving {}

/// Log lines, spans, events and metrics, by name.
///
/// [`after_connect`]: crate::Builder::after_connect
/// [`BUCKETS`]: crate::metrics::BUCKETS
/// [`Builder::meter_provider`]: crate::Builder::meter_provider
/// [`Builder::name`]: crate::Builder::name
/// [`Builder::observer`]: crate::Builder::observer
/// [`connect_owned`]: crate::Pool::connect_owned
/// [`Error::pool`]: crate::Error::pool
/// [`Event`]: crate::Event
/// [`EVENT_CAPACITY`]: crate::EVENT_CAPACITY
/// [`Metric::otel_name`]: crate::metrics::Metric::otel_name
/// [`Metric::unit`]: crate::metrics::Metric::unit
/// [`OPERATION_BUCKETS`]: crate::metrics::OPERATION_BUCKETS
/// [`podpool::metrics`]: crate::metrics
/// [`Pool::close`]: crate::Pool::close
/// [`Pool::events`]: crate::Pool::events
/// [`Pool::forget_history`]: crate::Pool::forget_history
/// [`Pool::listen`]: crate::Pool::listen
/// [`Pool::status`]: crate::Pool::status
/// [`SEMCONV_VERSION`]: crate::metrics::SEMCONV_VERSION
/// [share_with]: crate::Builder::share_with
/// [`Status::name`]: crate::Status::name
/// [tuning]: crate::guide::tuning
///
#[doc = include_str!("../docs/observability.md")]
pub mod observability {}

/// The headless Service to connect to, for each Postgres operator.
///
/// [`Pool::forget_history`]: crate::Pool::forget_history
/// [TLS]: crate::guide::tls
///
#[doc = include_str!("../docs/operators.md")]
pub mod operators {}

/// Every parameter, and every setting of libpq, with the differences between the two.
///
/// [`Config::from_env`]: crate::Config::from_env
/// [`Config::parse_with_env`]: crate::Config::parse_with_env
/// [`config`]: crate::config
///
#[doc = include_str!("../docs/parameters.md")]
pub mod parameters {}

/// Use with PgBouncer, and the features that work through it.
///
/// [`classify`]: crate::classify
/// [`EndpointStatus`]: crate::EndpointStatus
/// [credentials]: crate::guide::credentials#authentication-methods
///
#[doc = include_str!("../docs/pgbouncer.md")]
pub mod pgbouncer {}

/// Symptoms, and their causes and remedies, with the command-line tool.
///
/// [credentials]: crate::guide::credentials
/// [`max_lag`]: crate::Checkout::max_lag
/// [PgBouncer]: crate::guide::pgbouncer
/// [`Pool::forget_history`]: crate::Pool::forget_history
/// [TLS]: crate::guide::tls
/// [tuning]: crate::guide::tuning
///
#[doc = include_str!("../docs/runbook.md")]
pub mod runbook {}

/// TLS modes, host names behind a Service, client certificates, and verification.
///
/// [`Builder::tls_connector`]: crate::Builder::tls_connector
/// [`channel_binding`]: crate::config::ssl::ChannelBinding
/// [`config::ssl`]: crate::config::ssl
/// [`NotRequested`]: crate::TlsReason::NotRequested
/// [`Protocol`]: crate::TlsReason::Protocol
/// [`Refused`]: crate::TlsReason::Refused
/// [`Revoked`]: crate::TlsReason::Revoked
/// [`security=strict`]: crate::config::Security
/// [`security_changed`]: crate::Event::SecurityChanged
/// [`security_downgraded`]: crate::Event::SecurityDowngraded
/// [`sslnegotiation=direct`]: crate::config::ssl::SslNegotiation
/// [`tls_failed`]: crate::Event::TlsFailed
/// [`TlsError`]: crate::TlsError
/// [`UnknownRevocation`]: crate::TlsReason::UnknownRevocation
/// [credentials]: crate::guide::credentials#authentication-methods
/// [observability]: crate::guide::observability
/// [reason]: crate::TlsReason
/// [Rotation]: crate::config::ssl#rotation
///
#[doc = include_str!("../docs/tls.md")]
pub mod tls {}

/// Pool sizes, policies and timeouts, and how to stay within the servers' `max_connections`.
///
/// [`balance`]: crate::balance
/// [`Builder::policy`]: crate::Builder::policy
/// [`Builder::share_with`]: crate::Builder::share_with
/// [`Endpoint::with_weight`]: crate::Endpoint::with_weight
/// [`EndpointStatus`]: crate::EndpointStatus
/// [`least-cost`]: crate::balance::LeastCost
/// [`least-in-flight`]: crate::balance::LeastInFlight
/// [`Limits`]: crate::config::Limits
/// [`peak-ewma`]: crate::balance::PeakEwma
/// [`Pool::shared`]: crate::Pool::shared
/// [`random`]: crate::balance::Random
/// [`round-robin`]: crate::balance::RoundRobin
///
#[doc = include_str!("../docs/tuning.md")]
pub mod tuning {}

/// The pool's decisions as JSON, for clients in other languages.
#[doc = include_str!("../docs/vectors.md")]
pub mod vectors {}
