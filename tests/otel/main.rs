//! Tests the metrics that reach OpenTelemetry, with an exporter that keeps them in memory and with real servers.

mod collection;
#[path = "../common/mod.rs"]
mod common;
mod names;
mod operations;
mod panics;
mod pods;
mod schema;
mod workload;

use std::time::Duration;

/// Time limit for each condition.
const LIMIT: Duration = Duration::from_secs(30);
