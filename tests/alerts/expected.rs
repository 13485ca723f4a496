//! The expectations in docs/monitoring/expected.toml: for each scenario, the rules that fire and those that may.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::text;

const FAILURE_MODES: &str = include_str!("../../docs/failure-modes.md");

/// The expectation for one scenario.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expectation {
    /// The first column of the row of docs/failure-modes.md.
    pub(crate) row: String,
    /// How the scenario differs from others of the same row.
    pub(crate) variant: Option<String>,
    /// The rules that fire, each with the labels that the alert has in addition to those of the pool.
    #[serde(default)]
    pub(crate) fires: Vec<BTreeMap<String, String>>,
    /// The rules that may fire too.
    #[serde(default)]
    pub(crate) may: Vec<String>,
    /// Why no rule fires.
    pub(crate) no_rule: Option<String>,
    /// Why there is no event, and therefore no log line about one.
    pub(crate) no_event: Option<String>,
    /// Why no metric shows the fault.
    pub(crate) no_metric: Option<String>,
}

impl Expectation {
    /// Returns the names of the rules that fire.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &str> {
        self.fires.iter().map(|alert| &*alert["rule"])
    }

    /// Returns the name of the fault for the table.
    pub(crate) fn title(&self) -> String {
        // The row may have links to definitions of its page.
        let row = self.row.replace("[`", "`").replace("`]", "`");
        match &self.variant {
            Some(variant) => format!("{row}: {variant}"),
            None => row,
        }
    }
}

/// All expectations by scenario.
pub(crate) struct Expected(pub(crate) BTreeMap<String, Expectation>);

impl Expected {
    pub(crate) fn read() -> Self {
        Self(toml::from_str(&text("expected.toml")).expect("the expectations parse"))
    }

    pub(crate) fn of(&self, scenario: &str) -> &Expectation {
        self.0.get(scenario).unwrap_or_else(|| panic!("expected.toml has no table {scenario}"))
    }
}

/// Returns the first column of each row of the table in docs/failure-modes.md.
pub(crate) fn rows() -> Vec<&'static str> {
    let is_row = |line: &&str| line.starts_with("| ") && line.split(" | ").count() == 4;
    let rows = FAILURE_MODES.lines().filter(is_row).skip(1);
    rows.map(|row| row[2..].split(" | ").next().expect("the row has columns")).collect()
}
