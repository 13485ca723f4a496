//! Recordings: the series of one run that the rules use, in the notation of promtool.

use std::{fmt::Write as _, fs};

use serde::{Deserialize, Serialize};

use crate::{
    monitoring,
    raw::{Raw, Values},
    rules::Rules,
};

/// The labels that tell kinds of events, Pods and failures apart.
const KINDS: [&str; 5] = ["event=\"", "phase=\"", "source=\"", "state=\"", "role=\""];

/// A series in promtool's notation.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Series {
    pub(crate) series: String,
    pub(crate) values: String,
}

/// A recording.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recording {
    /// Time between two values of a series.
    pub(crate) interval: String,
    /// Index of the last value before the fault, or 0 if the fault was present when the program started.
    pub(crate) injected: usize,
    /// The number of values of each series.
    pub(crate) scrapes: usize,
    pub(crate) input_series: Vec<Series>,
}

impl Recording {
    /// Returns the part of a run that the rules use.
    pub(crate) fn of(raw: &Raw, rules: &Rules) -> Self {
        let (metrics, text) = (rules.metrics(), crate::text("rules.yml"));
        let is_used = |series: &str| series.split_once('{').is_some_and(|(name, _)| metrics.contains(name));
        // A counter that stays 0 changes no rule, unless a rule selects its label.
        let is_zero = |values: &Values| values.iter().all(|value| *value == Some(0.0));
        let is_selected = |series: &str| {
            KINDS.iter().all(|kind| match series.split_once(kind) {
                Some((_, rest)) => rest.split('"').next().is_some_and(|value| text.contains(value)),
                None => true,
            })
        };
        let series =
            raw.series.iter().filter(|(series, values)| is_used(series) && (is_selected(series) || !is_zero(values)));
        let input_series =
            series.map(|(series, values)| Series { series: series.clone(), values: encode(values) }).collect();
        let scrapes = raw.series.values().next().map_or(0, Vec::len);
        Self { interval: "15s".to_owned(), injected: raw.injected, scrapes, input_series }
    }

    pub(crate) fn read(scenario: &str) -> Self {
        let text = crate::text(&format!("recordings/{scenario}.yml"));
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{scenario}: {error}"))
    }

    pub(crate) fn write(&self, scenario: &str, postgres: u32) {
        let Self { interval, injected, scrapes, input_series } = self;
        let mut text = format!(
            "# The scenario `{scenario}`, recorded in real time on PostgreSQL {postgres} by `make record-alerts`.\n\
             # Only the series that the rules use, without those that are always 0 and that no rule selects. The\n\
             # port of the servers is replaced with 5432.\n\
             interval: {interval}\ninjected: {injected}\nscrapes: {scrapes}\ninput_series:\n"
        );
        for Series { series, values } in input_series {
            writeln!(text, "  - series: '{series}'\n    values: '{values}'").expect("a string is written");
        }
        fs::create_dir_all(monitoring("recordings")).expect("the folder is created");
        fs::write(monitoring(&format!("recordings/{scenario}.yml")), text).expect("the recording is written");
    }
}

/// Returns values in promtool's notation: `4+0x2` stands for `4 4 4`, and `_` for a missing value.
fn encode(values: &Values) -> String {
    // Milliseconds are enough, and keep the files short.
    let rounded = values.iter().map(|value| value.map(|value| (value * 1000.0).round() / 1000.0));
    let mut runs: Vec<(Option<f64>, usize)> = Vec::new();
    for value in rounded {
        match runs.last_mut() {
            Some((last, count)) if *last == value && value.is_some() => *count += 1,
            _ => runs.push((value, 1)),
        }
    }
    let texts = runs.iter().map(|(value, count)| match (value, count) {
        (None, _) => "_".to_owned(),
        (Some(value), 1) => value.to_string(),
        (Some(value), count) => format!("{value}+0x{}", count - 1),
    });
    texts.collect::<Vec<_>>().join(" ")
}

#[test]
fn values_are_encoded_in_the_notation_of_promtool() {
    let values = [None, None, Some(1.0), Some(1.0), Some(1.0), Some(0.0), Some(15.000_49)];
    assert_eq!(encode(&values.to_vec()), "_ _ 1+0x2 0 15");
}
