//! The guide: the pages of the repository's folder `docs/`, published on docs.rs. Their examples are compiled as
//! doctests.

/// The pool's design, and its rationale.
#[doc = include_str!("../docs/architecture.md")]
pub mod architecture {}

/// Measured costs of this pool, compared with other pools and load balancers.
#[doc = include_str!("../docs/benchmarks.md")]
pub mod benchmarks {}

/// Alternatives to this pool, and how they differ from it.
#[doc = include_str!("../docs/comparison.md")]
pub mod comparison {}

/// Sources of passwords, and password rotation.
#[doc = include_str!("../docs/credentials.md")]
pub mod credentials {}

/// Faults, and their effects on callers, events and metrics.
#[doc = include_str!("../docs/failure-modes.md")]
pub mod failure_modes {}

/// Limitations of the pool.
#[doc = include_str!("../docs/limits.md")]
pub mod limits {}

/// Migration from deadpool-postgres, bb8, sqlx and pgxpool.
#[doc = include_str!("../docs/moving.md")]
pub mod moving {}

/// Log lines, spans, events and metrics, by name.
#[doc = include_str!("../docs/observability.md")]
pub mod observability {}

/// The headless Service to connect to, for each Postgres operator.
#[doc = include_str!("../docs/operators.md")]
pub mod operators {}

/// Every parameter, and every setting of libpq, with the differences between the two.
#[doc = include_str!("../docs/parameters.md")]
pub mod parameters {}

/// Use with PgBouncer, and the features that work through it.
#[doc = include_str!("../docs/pgbouncer.md")]
pub mod pgbouncer {}

/// TLS modes, host names behind a Service, client certificates, and verification.
#[doc = include_str!("../docs/tls.md")]
pub mod tls {}

/// Pool sizes, policies and timeouts, and how to stay within the servers' `max_connections`.
#[doc = include_str!("../docs/tuning.md")]
pub mod tuning {}

/// The pool's decisions as JSON, for clients in other languages.
#[doc = include_str!("../docs/vectors.md")]
pub mod vectors {}
