//! The one clock: tokio's, so that every reading obeys a test's paused time.

pub use std::time::Duration;
pub use tokio::time::Instant;
