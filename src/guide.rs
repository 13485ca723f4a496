//! The guide: prose, read on docs.rs or in the repository's `docs/`. Its examples are compiled with the tests.

/// How the pool is built, and why.
#[doc = include_str!("../docs/architecture.md")]
pub mod architecture {}

/// What else there is, and how it differs.
#[doc = include_str!("../docs/comparison.md")]
pub mod comparison {}

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

/// Sizes, deadlines, and the arithmetic of `max_connections`.
#[doc = include_str!("../docs/tuning.md")]
pub mod tuning {}
