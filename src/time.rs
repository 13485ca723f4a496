//! The clock of this crate: tokio's, which tests can pause.

pub(crate) use std::time::Duration;
pub(crate) use tokio::time::Instant;

/// The system's monotonic clock, for threads that belong to no runtime. A test's paused clock has no effect on it.
pub(crate) use std::time::Instant as SystemInstant;
