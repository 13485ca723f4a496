//! The guide, as on docs.rs and in the repository's `docs/`. The examples are compiled with the tests.

/// The pool's design, and the reasons for it.
#[doc = include_str!("../docs/architecture.md")]
pub mod architecture {}

/// Measured costs of this pool, next to those of other pools and load balancers.
#[doc = include_str!("../docs/benchmarks.md")]
pub mod benchmarks {}

/// Alternatives to this pool, and their differences.
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

/// The headless Service for each Postgres operator.
#[doc = include_str!("../docs/operators.md")]
pub mod operators {}

/// Features that work with PgBouncer.
#[doc = include_str!("../docs/pgbouncer.md")]
pub mod pgbouncer {}

/// TLS modes, host names behind a Service, client certificates, and verification.
#[doc = include_str!("../docs/tls.md")]
pub mod tls {}

/// Pool sizes, policies, timeouts, and the arithmetic of `max_connections`.
#[doc = include_str!("../docs/tuning.md")]
pub mod tuning {}
