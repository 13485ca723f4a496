//! The clock of this crate: tokio's clock, which tests can pause.

pub(crate) use std::time::Duration;
pub(crate) use tokio::time::Instant;

/// The system's monotonic clock, for threads that belong to no runtime. Pausing tokio's clock in a test does not affect
/// it.
pub(crate) use std::time::Instant as SystemInstant;
