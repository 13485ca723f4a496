//! Tests that docs/observability.md and docs/failure-modes.md list exactly the events, spans and metrics that exist.

use std::collections::BTreeSet;

use podpool::{
    Event,
    metrics::{self, POD_LABELS},
    trace,
};

const OBSERVABILITY: &str = include_str!("../../docs/observability.md");
const FAILURE_MODES: &str = include_str!("../../docs/failure-modes.md");

/// Prefixes of all metric names.
const METRIC_PREFIXES: [&str; 2] = ["podpool_", "db_client_connection_"];

/// Events that other tests cover, because they need special certificates, passwords or addresses. Each entry has the
/// name of the event, the source of the other test, and the code in it that waits for the event.
pub(crate) const OTHER_TESTS: [(&str, &str, &str); 13] = [
    ("certificates_refused", include_str!("../tls/rotation.rs"), "wait_for(&mut events, \"certificates_refused\")"),
    ("certificates_reloaded", include_str!("../tls/rotation.rs"), "wait_for(&mut events, \"certificates_reloaded\")"),
    (
        "fencing_history_forgotten",
        include_str!("../health/fencing.rs"),
        "wait_for(&mut events, \"fencing_history_forgotten\")",
    ),
    ("listen_ignored", include_str!("../calls/listen.rs"), "event.name() == \"listen_ignored\""),
    ("login_failed", include_str!("../credentials.rs"), "Event::LoginFailed { endpoint, cause } => break"),
    ("endpoint_alternative", include_str!("../dual_stack.rs"), "Event::EndpointAlternative { .. }"),
    ("panicked", include_str!("../panics.rs"), "Some(Ok(Event::Panicked { source: \"tls_connector\", .. }))"),
    ("passfile_ignored", include_str!("../credentials.rs"), "Event::PassfileIgnored"),
    ("security_downgraded", include_str!("../tls/logins.rs"), "wait_for(&mut events, \"security_downgraded\")"),
    ("setup_failed", include_str!("../hooks.rs"), "Event::SetupFailed { endpoint, cause } =>"),
    ("standby_caught_up", include_str!("../health/lag.rs"), "events_of(&mut events, \"standby_caught_up\")"),
    ("standby_late", include_str!("../health/lag.rs"), "events_of(&mut events, \"standby_late\")"),
    ("tls_failed", include_str!("../tls/refusals.rs"), "if let Event::TlsFailed { endpoint, cause }"),
];

/// A reference to a metric: its name, and the label and value if the text contains them.
pub(crate) type MetricReference = (String, Option<(String, String)>);

/// Returns the names in the first column of the table under this heading of docs/observability.md.
pub(crate) fn documented(heading: &str) -> BTreeSet<&'static str> {
    let (_, section) = OBSERVABILITY.split_once(&format!("\n## {heading}\n")).expect("the page has the heading");
    let section = section.split("\n## ").next().expect("the section has a text");
    let names = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name));
    names.collect()
}

/// Returns the row of docs/observability.md that describes this name.
pub(crate) fn row(name: &str) -> &'static str {
    let start = format!("| `{name}` ");
    let row = OBSERVABILITY.lines().find(|line| line.starts_with(&start));
    row.unwrap_or_else(|| panic!("no table of docs/observability.md has a row for {name}"))
}

/// Returns the metrics that docs/failure-modes.md refers to.
pub(crate) fn metrics_of_failure_modes() -> BTreeSet<MetricReference> {
    let identifier = |text: &str| text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>();
    let code_spans = FAILURE_MODES.match_indices('`').map(|(at, _)| &FAILURE_MODES[at + 1..]);
    let metrics = code_spans.filter(|text| METRIC_PREFIXES.iter().any(|prefix| text.starts_with(prefix)));
    let parse = |text: &str| {
        let name = identifier(text);
        let label = text[name.len()..].strip_prefix('{').and_then(|rest| rest.split_once("=\""));
        (name, label.map(|(label, value)| (label.to_owned(), identifier(value))))
    };
    metrics.map(parse).collect()
}

fn set(names: impl IntoIterator<Item = &'static str>) -> BTreeSet<&'static str> {
    names.into_iter().collect()
}

fn metric_names() -> BTreeSet<&'static str> {
    set(metrics::ALL.iter().map(|metric| metric.name))
}

#[test]
fn observability_page_lists_exactly_the_names_that_exist() {
    assert_eq!(documented("Log lines and spans"), set(trace::ALL.iter().copied()));
    assert_eq!(documented("Events"), set(Event::NAMES.iter().copied()));
    assert_eq!(documented("Metrics"), metric_names());
}

#[test]
fn observability_page_lists_the_kind_and_labels_of_each_metric() {
    for metric in metrics::ALL {
        let columns: Vec<_> = row(metric.name).split(" | ").collect();
        let kind = format!("{:?}", metric.kind).to_lowercase();
        assert_eq!(columns[1], kind, "{}", metric.name);
        assert_eq!(columns[2].starts_with("Pod"), metric.labels.starts_with(POD_LABELS), "{}", metric.name);
        let mut labels = metric.labels.iter().filter(|label| !POD_LABELS.contains(label));
        assert!(labels.all(|label| columns[2].contains(&format!("`{label}`"))), "{}", metric.name);
    }
}

#[test]
fn failure_modes_page_refers_to_metrics_that_exist() {
    let known = metric_names();
    let references = metrics_of_failure_modes();
    assert!(references.len() > 15, "{references:?}");
    for prefix in METRIC_PREFIXES {
        assert!(references.iter().any(|(name, _)| name.starts_with(prefix)), "{prefix}: {references:?}");
    }
    for (name, label) in references {
        let metric = metrics::ALL.iter().find(|metric| metric.name == name);
        let metric = metric.unwrap_or_else(|| panic!("unknown metric {name}; expected one of {known:?}"));
        assert!(label.as_ref().is_none_or(|(label, _)| metric.labels.contains(&&**label)), "{name}: {label:?}");
    }
}

#[test]
fn failure_modes_page_lists_exactly_the_events_that_exist() {
    let is_row = |line: &&str| line.starts_with("| ") && line.split(" | ").count() == 4;
    let mut events = BTreeSet::new();
    // The first row is the table's header.
    for row in FAILURE_MODES.lines().filter(is_row).skip(1) {
        let column = row.split(" | ").nth(2).expect("the row has four columns");
        events.extend(
            column.split('`').skip(1).step_by(2).filter(|code| code.contains('_') || Event::NAMES.contains(code)),
        );
    }
    assert_eq!(events, set(Event::NAMES.iter().copied()));
}
