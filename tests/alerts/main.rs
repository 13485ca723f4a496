//! Tests the alerting rules and the dashboard in docs/monitoring.
//!
//! - [`replay`]: the rules fire as docs/monitoring/expected.toml has them, on recordings of real servers.
//! - [`checks`]: rules, dashboard, expectations and documentation refer to names that exist.
//! - [`table`]: docs/monitoring/faults.md has a complete row for each fault.
//! - [`record`]: makes the recordings and the table. `make record-alerts` runs it; `make test` does not.
//!
//! Each of the [`scenarios`] is one fault, or one change that is no fault, on a local cluster of real servers.
#![allow(clippy::print_stdout, reason = "the recorder prints its progress")]

#[allow(dead_code, reason = "the TLS tests use the rest")]
#[path = "../tls/authority.rs"]
mod authority;
#[path = "../common/mod.rs"]
mod common;

mod checks;
mod dashboard;
mod expected;
mod log;
mod raw;
mod record;
mod recording;
mod replay;
mod rules;
mod scenarios;
mod scene;
mod signals;
mod table;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Time between two scrapes, and between two evaluations of the rules. `interval` in docs/monitoring/rules.yml states
/// the latter.
const SCRAPE: Duration = Duration::from_secs(15);

/// Returns the path of a file in docs/monitoring.
fn monitoring(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring").join(name)
}

/// Returns the text of a file in docs/monitoring.
fn text(name: &str) -> String {
    std::fs::read_to_string(monitoring(name)).unwrap_or_else(|error| panic!("docs/monitoring/{name}: {error}"))
}
