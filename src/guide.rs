//! The guide: prose, read on docs.rs or in the repository's `docs/`. Its examples are compiled with the tests.

/// How the pool is built, and why.
#[doc = include_str!("../docs/architecture.md")]
pub mod architecture {}

/// What else there is, and how it differs.
#[doc = include_str!("../docs/comparison.md")]
pub mod comparison {}

/// Where passwords come from, and what becomes of a new one.
#[doc = include_str!("../docs/credentials.md")]
pub mod credentials {}

/// Every fault, and what is seen of it.
#[doc = include_str!("../docs/failure-modes.md")]
pub mod failure_modes {}

/// What the pool does not do.
#[doc = include_str!("../docs/limits.md")]
pub mod limits {}

/// From deadpool-postgres, bb8, sqlx and pgxpool.
#[doc = include_str!("../docs/moving.md")]
pub mod moving {}

/// Log lines, spans, events and metrics, by name.
#[doc = include_str!("../docs/observability.md")]
pub mod observability {}

/// The headless Service that each Postgres operator needs.
#[doc = include_str!("../docs/operators.md")]
pub mod operators {}

/// What works in front of a PgBouncer.
#[doc = include_str!("../docs/pgbouncer.md")]
pub mod pgbouncer {}

/// Which mode, which name behind a Service, client certificates, and how to see that it works.
#[doc = include_str!("../docs/tls.md")]
pub mod tls {}

/// Sizes, policies, deadlines, and the arithmetic of `max_connections`.
#[doc = include_str!("../docs/tuning.md")]
pub mod tuning {}
