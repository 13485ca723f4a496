//! The rules in docs/monitoring/rules.yml, and the names in PromQL expressions.

use std::collections::{BTreeMap, BTreeSet};

use podpool::metrics::{self, POOL_LABELS};
use serde::Deserialize;

use crate::text;

/// Labels that Prometheus adds to each series of a scrape.
const SCRAPE_LABELS: [&str; 2] = ["instance", "job"];

/// A rule: an alert, or a recorded series that alerts use.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) alert: Option<String>,
    pub(crate) record: Option<String>,
    pub(crate) expr: String,
    #[serde(rename = "for")]
    pub(crate) lasts: Option<String>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Rule {
    /// Returns true if the rule sends a page, and false if it sends a ticket.
    pub(crate) fn is_page(&self) -> bool {
        self.labels["severity"] == "page"
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[allow(dead_code, reason = "the field is only allowed")]
    name: String,
    interval: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    groups: Vec<Group>,
}

/// All rules.
pub(crate) struct Rules {
    pub(crate) all: Vec<Rule>,
}

impl Rules {
    pub(crate) fn read() -> Self {
        let file: File = serde_saphyr::from_str(&text("rules.yml")).expect("the rules parse");
        assert!(file.groups.iter().all(|group| group.interval == "15s"), "the bounds assume an interval of 15 s");
        Self { all: file.groups.into_iter().flat_map(|group| group.rules).collect() }
    }

    /// Returns the alerts by name.
    pub(crate) fn alerts(&self) -> BTreeMap<&str, &Rule> {
        self.all.iter().filter_map(|rule| Some((rule.alert.as_deref()?, rule))).collect()
    }

    /// Returns the metrics that the rules use.
    pub(crate) fn metrics(&self) -> BTreeSet<String> {
        let recorded = self.recorded();
        let names =
            self.all.iter().flat_map(|rule| names(&rule.expr, &recorded).unwrap_or_else(|error| panic!("{error}")));
        names.collect()
    }

    /// Returns the names of the recorded series.
    pub(crate) fn recorded(&self) -> BTreeSet<&str> {
        self.all.iter().filter_map(|rule| rule.record.as_deref()).collect()
    }
}

/// Splits an expression into identifiers, each with the character before and after it. Strings are skipped.
fn identifiers(expr: &str) -> Vec<(usize, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let (mut found, mut start, mut is_quoted) = (Vec::new(), None, false);
    for (at, c) in expr.char_indices().chain([(expr.len(), ' ')]) {
        if c == '"' {
            is_quoted = !is_quoted;
        }
        match start {
            None if is_part(c) && !is_quoted => start = Some(at),
            Some(from) if !is_part(c) || is_quoted => {
                found.push((from, &expr[from..at]));
                start = None;
            }
            _ => {}
        }
    }
    found
}

/// Returns the library's metrics that an expression uses. Returns an error if it uses a name with one of the library's
/// prefixes that does not exist, or a label that the metric does not have.
pub(crate) fn names(expr: &str, recorded: &BTreeSet<&str>) -> Result<BTreeSet<String>, String> {
    let mut used = BTreeSet::new();
    let mut last: Option<&metrics::Metric> = None;
    let known_label = |name: &str| {
        let of_any = metrics::ALL.iter().any(|metric| metric.labels.contains(&name));
        of_any || POOL_LABELS.contains(&name) || SCRAPE_LABELS.contains(&name)
    };
    for (at, name) in identifiers(expr) {
        // A histogram has a series of buckets, whose label is `le`.
        let base = name.strip_suffix("_bucket").unwrap_or(name);
        if let Some(metric) = metrics::ALL.iter().find(|metric| metric.name == base) {
            last = Some(metric);
            used.insert(metric.name.to_owned());
        } else if expr[at + name.len()..].starts_with('{') && !name.starts_with("podpool_") {
            last = None;
        } else if expr[..at].matches('{').count() > expr[..at].matches('}').count() {
            // A series of Prometheus itself, such as `ALERTS`, or a recorded one.
            let Some(metric) = last else { continue };
            let is_common = POOL_LABELS.contains(&name) || SCRAPE_LABELS.contains(&name);
            if !is_common && !metric.labels.contains(&name) {
                return Err(format!("{expr}: {} has no label {name}", metric.name));
            }
        } else if ["podpool", "db_"].iter().any(|prefix| name.starts_with(prefix))
            && !known_label(name)
            && !recorded.contains(name)
        {
            return Err(format!("{expr}: there is no metric or label {name}"));
        }
    }
    Ok(used)
}

#[test]
fn unknown_names_in_expressions_are_found() {
    let recorded = BTreeSet::from(["podpool:known"]);
    let good = "sum without (podpool_pod) (podpool_endpoint_up{db_system_name=\"podpool_none\"}) > podpool:known";
    assert_eq!(names(good, &recorded), Ok(BTreeSet::from(["podpool_endpoint_up".to_owned()])));
    for bad in ["podpool_none > 0", "podpool:unknown", "podpool_endpoint_up{phase=\"wait\"}", "db_client_none"] {
        names(bad, &recorded).expect_err(bad);
    }
}
