//! The one clock: tokio's, so that every reading obeys a test's paused time.

pub(crate) use std::time::Duration;
pub(crate) use tokio::time::Instant;
