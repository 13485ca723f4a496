//! The clock of this crate: tokio's, which tests can pause.

pub(crate) use std::time::Duration;
pub(crate) use tokio::time::Instant;
