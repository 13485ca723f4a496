//! The table of faults in docs/monitoring/faults.md.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use podpool::Event;

use crate::{
    expected::{Expectation, Expected},
    log::Line,
    monitoring,
    raw::Raw,
    rules::Rules,
    scenarios,
    signals::changes,
    text,
};

/// The beginning of the path of a temporary folder.
const TEMPORARY: &str = "/tmp/.tmp";
/// The longest part of a log line in the table.
const LONGEST: usize = 160;

const INTRODUCTION: &str = "\
# Faults and their signals

For each row of [Failure modes](../failure-modes.md), this table has the events, the first log line, the metrics and the
alerts of one run on real servers. `make record-alerts` injects the faults, records the metrics, and generates this
page.

- The log line is the first one at `WARN`, else the first at `INFO`.
- The metrics are the most specific ones that changed, one series of each, with the value before the fault and the one
  farthest from it in the five minutes after. If the program was started with the fault, the first value is that at the
  start.
- The rules are those of [`rules.yml`](rules.yml), as [`expected.toml`](expected.toml) has them. `make alerts` replays
  the recordings.
- An entry in parentheses is the reason why there is none.

";

/// Returns text for a cell: one line, without the character that separates cells.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Returns entries separated by a character, or the reason why there are none.
fn or_reason(entries: &[String], reason: Option<&String>, scenario: &str, column: &str) -> String {
    match (entries, reason) {
        ([], Some(reason)) => format!("({reason})"),
        ([], None) => panic!("{scenario} has no {column}; expected.toml needs the reason"),
        (entries, _) => entries.join(", "),
    }
}

/// Returns the cell of the rules.
fn rule_cell(scenario: &str, expectation: &Expectation, rules: &Rules) -> String {
    let alerts = rules.alerts();
    let severity = |name: &str| if alerts[name].is_page() { "page" } else { "ticket" };
    let mut names: Vec<_> = expectation.rules().map(|name| format!("`{name}` ({})", severity(name))).collect();
    names.dedup();
    or_reason(&names, expectation.no_rule.as_ref(), scenario, "rule")
}

/// Returns the first log line. The folder of a file is replaced, because its name is random.
fn log_cell(raw: &Raw) -> Vec<String> {
    let shorten = |text: &str| match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{} …", &text[..at]),
        None => text.to_owned(),
    };
    let quote = |line: &Line| {
        let mut text = line.message.clone();
        if let Some(at) = text.find(TEMPORARY) {
            let end = text[at + TEMPORARY.len()..].find('/').map_or(text.len(), |length| at + TEMPORARY.len() + length);
            text.replace_range(at..end, "/secret");
        }
        let text = cell(&shorten(&text));
        // Two backticks around text that contains one.
        let fence = if text.contains('`') { ["`` ", " ``"] } else { ["`", "`"] };
        format!("`{}` {}{text}{}", line.level, fence[0], fence[1])
    };
    raw.first_line().map(quote).into_iter().collect()
}

/// Writes the page.
pub(crate) fn write(raws: &[(&str, Raw)], expected: &Expected, rules: &Rules) {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("| fault | recording | events | log line | metrics | rules |\n|---|---|---|---|---|---|\n");
    for (scenario, raw) in raws {
        let expectation = expected.of(scenario);
        let events: Vec<_> = raw.events.iter().map(|event| format!("`{event}`")).collect();
        let events = or_reason(&events, expectation.no_event.as_ref(), scenario, "event");
        let log = or_reason(&log_cell(raw), expectation.no_event.as_ref(), scenario, "log line");
        let metrics = or_reason(&changes(raw), expectation.no_metric.as_ref(), scenario, "metric");
        let rule = rule_cell(scenario, expectation, rules);
        let title = expectation.title();
        writeln!(
            page,
            "| {title} | [`{scenario}`](recordings/{scenario}.yml) | {events} | {log} | {metrics} | {rule} |"
        )
        .expect("a string is written");
    }
    fs::write(monitoring("faults.md"), page).expect("the page is written");
}

#[test]
fn each_fault_has_an_event_a_log_line_a_metric_and_a_rule_or_a_reason() {
    let (expected, rules) = (Expected::read(), Rules::read());
    let page = text("faults.md");
    assert!(page.starts_with(INTRODUCTION), "`make record-alerts` generates the page");
    let rows = page.lines().filter(|line| line.contains("](recordings/")).map(|line| {
        let cells: Vec<_> = line.trim_start_matches("| ").trim_end_matches(" |").split(" | ").collect();
        let scenario = cells[1].split('`').nth(1).expect("the cell names the recording");
        (scenario, cells)
    });
    let rows: BTreeMap<_, _> = rows.collect();
    assert_eq!(rows.len(), scenarios::NAMES.len());
    for scenario in scenarios::NAMES {
        let (cells, expectation) = (&rows[scenario], expected.of(scenario));
        assert_eq!(cells.len(), 6, "{scenario}: {cells:?}");
        assert!(cells.iter().all(|cell| !cell.trim().is_empty()), "{scenario}: {cells:?}");
        assert_eq!(cells[0], expectation.title());
        assert_eq!(cells[5], rule_cell(scenario, expectation, &rules), "{scenario}");
        for (cell, reason) in [(2, &expectation.no_event), (3, &expectation.no_event), (4, &expectation.no_metric)] {
            let is_reason = cells[cell].starts_with('(');
            assert!(!is_reason || reason.as_ref().is_some_and(|reason| cells[cell] == format!("({reason})")));
        }
        let events = cells[2].split('`').skip(1).step_by(2).filter(|_| !cells[2].starts_with('('));
        for event in events {
            assert!(Event::NAMES.contains(&event), "{scenario}: there is no event {event}");
        }
    }
}
