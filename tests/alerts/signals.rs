//! The metrics that show a fault: those that differ after the fault from their value before it.

use crate::raw::{Raw, Values};

/// The metrics that can show a fault, the most specific first. Others change in normal operation.
const SIGNALS: &[&str] = &[
    "podpool_no_primary_seconds",
    "podpool_resolve_failures_total",
    "podpool_connections_failed_total",
    "podpool_endpoint_fenced",
    "podpool_endpoint_late",
    "podpool_ejections_total",
    "podpool_endpoint_up",
    "podpool_endpoint_state",
    "podpool_panics_total",
    "podpool_abandoned_total",
    "db_client_connection_timeouts_total",
    "podpool_connections_closed_total",
    "podpool_connections_recycled_total",
    "podpool_pod_info",
    WAITS,
];
const WAITS: &str = "podpool_waits_total";
const EVENTS: &str = "podpool_events_total";
/// Changes in a cell of the table, in addition to that of the event.
const MOST: usize = 3;
/// Labels of series whose change says nothing that another series does not.
const NORMAL: [&str; 3] = ["reason=\"lifetime\"", "reason=\"idle\"", "state=\"healthy\""];

/// Returns the value that is farthest from the first one.
fn peak(values: &[Option<f64>], before: f64) -> f64 {
    let distance = |value: &f64| (value - before).abs();
    let values = values.iter().flatten().copied();
    values.max_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(before)
}

/// Returns a change of a series as text, without the labels that all series of the pool have.
fn describe(series: &str, before: f64, after: f64) -> String {
    let (name, labels) = series.split_once('{').expect("every series has labels");
    let common = ["instance=", "job=", "db_client_connection_pool_name=", "db_system_name=", "server_"];
    let labels = labels.trim_end_matches('}').split(',');
    let labels: Vec<_> = labels.filter(|label| !common.iter().any(|prefix| label.starts_with(prefix))).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    // Counters and ages depend on chance beyond their first digits.
    format!("`{name}{labels}` {} → {}", before.round(), after.round())
}

fn change(series: &str, values: &Values, injected: usize) -> Option<String> {
    // A counter that does not exist yet is 0.
    let before = values[injected].unwrap_or(0.0);
    let after = peak(&values[injected + 1..], before);
    let is_normal = NORMAL.iter().any(|label| series.contains(label));
    ((after - before).abs() >= 1.0 && !is_normal).then(|| describe(series, before, after))
}

/// Returns true if the counter has increased at least three times as fast after the fault as before it.
fn is_faster(values: &Values, injected: usize) -> bool {
    let speed = |from: usize, to: usize| {
        let increase = values[to].unwrap_or(0.0) - values[from].unwrap_or(0.0);
        increase / (to - from).max(1) as f64
    };
    speed(injected, values.len() - 1) > 3.0 * speed(0, injected)
}

/// Returns the changes of a run: for each metric, that of its first series that changed, the most specific first.
pub(crate) fn changes(raw: &Raw) -> Vec<String> {
    let series_of =
        |metric: &'static str| raw.series.iter().filter(move |(series, _)| series.split('{').next() == Some(metric));
    let of = |(series, values): (&String, &Values)| change(series, values, raw.injected);
    let first = |metric: &&'static str| {
        let of_fault = |values: &Values| *metric != WAITS || is_faster(values, raw.injected);
        series_of(metric).filter(|(_, values)| of_fault(values)).find_map(of)
    };
    let mut found: Vec<_> = SIGNALS.iter().filter_map(first).take(MOST).collect();
    // The event whose log line the table has.
    if let Some(line) = raw.first_line() {
        let label = format!("event=\"{}\"", line.event);
        found.extend(series_of(EVENTS).filter(|(series, _)| series.contains(&label)).find_map(of));
    }
    found
}
