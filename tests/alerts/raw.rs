//! The result of one run of a scenario, before it is reduced to a recording.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::log::Line;

/// The values of one series at each scrape. `None` means that the series did not exist.
pub(crate) type Values = Vec<Option<f64>>;

/// Every series, log line and event of one run.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Raw {
    /// Major version of the servers.
    pub(crate) postgres: u32,
    /// Index of the last scrape before the fault, or 0 if the fault was present when the program started.
    pub(crate) injected: usize,
    /// The events after the fault, in the order of their first occurrence.
    pub(crate) events: Vec<String>,
    /// The log lines about events after the fault.
    pub(crate) lines: Vec<Line>,
    pub(crate) series: BTreeMap<String, Values>,
}

impl Raw {
    /// Returns the log line that a reader sees first: at `WARN`, else at `INFO`.
    pub(crate) fn first_line(&self) -> Option<&Line> {
        self.lines.iter().find(|line| line.level == "WARN").or(self.lines.first())
    }

    /// Returns the folder of the results. Cargo creates its parent.
    fn folder() -> PathBuf {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("alerts")
    }

    fn path(scenario: &str) -> PathBuf {
        Self::folder().join(format!("{scenario}.json"))
    }

    /// Returns the result of this scenario, if there is one.
    pub(crate) fn read(scenario: &str) -> Option<Self> {
        let text = fs::read_to_string(Self::path(scenario)).ok()?;
        Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{scenario}: {error}")))
    }

    /// Writes the result of this scenario to a file, for [`read`](Self::read).
    pub(crate) fn write(&self, scenario: &str) {
        fs::create_dir_all(Self::folder()).expect("the folder is created");
        let text = serde_json::to_string(self).expect("the result is encoded");
        fs::write(Self::path(scenario), text).expect("the result is written");
    }

    /// Removes the result of an earlier run of this scenario.
    pub(crate) fn remove(scenario: &str) {
        let _ = fs::remove_file(Self::path(scenario));
    }
}
