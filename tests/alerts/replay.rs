//! Replays the recordings with `promtool test rules`.
//!
//! For each scenario, a rule that is expected must fire within its bound after the fault, with exactly the expected
//! labels and annotations, and must not fire before the fault. A rule that is neither expected nor allowed must not
//! fire at any time of the recording.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::{
    SCRAPE,
    common::programs::programs,
    expected::{Expectation, Expected},
    monitoring,
    recording::Recording,
    rules::{Rule, Rules},
    scenarios,
};

/// Bounds in seconds after the fault.
const PAGE: u64 = 120;
const TICKET: u64 = 600;

/// The labels that every alert of a recording has.
const LABELS: [(&str, &str); 4] = [
    ("db_client_connection_pool_name", "app"),
    ("db_system_name", "postgresql"),
    ("instance", "app-0:9000"),
    ("job", "app"),
];

/// Returns an alert as promtool expects it.
fn alert(rule: &Rule, labels: &BTreeMap<String, String>) -> Value {
    let mut all: BTreeMap<&str, &str> = LABELS.into();
    all.extend(labels.iter().map(|(name, value)| (&**name, &**value)).filter(|(name, _)| *name != "rule"));
    all.extend(rule.labels.iter().map(|(name, value)| (&**name, &**value)));
    let fill = |text: &String| {
        let parts = all.iter().map(|(name, value)| (format!("{{{{ $labels.{name} }}}}"), value));
        parts.fold(text.clone(), |text, (from, to)| text.replace(&from, to))
    };
    let annotations: BTreeMap<_, _> = rule.annotations.iter().map(|(name, text)| (name, fill(text))).collect();
    json!({ "exp_labels": all, "exp_annotations": annotations })
}

/// Returns the tests of one rule.
fn tests_of(name: &str, rule: &Rule, expected: &Expectation, recording: &Recording) -> Vec<Value> {
    let at = |scrape: usize| scrape as u64 * SCRAPE.as_secs();
    let test = |seconds: u64, alerts: &[Value]| {
        let at = format!("{seconds}s");
        json!({ "eval_time": at, "alertname": name, "exp_alerts": alerts })
    };
    let fires: Vec<_> = expected.fires.iter().filter(|alert| alert["rule"] == name).collect();
    if fires.is_empty() {
        let end = if expected.may.iter().any(|other| other == name) { 0 } else { recording.scrapes };
        return (0..end).map(|scrape| test(at(scrape), &[])).collect();
    }
    let bound = at(recording.injected) + if rule.is_page() { PAGE } else { TICKET };
    let alerts: Vec<_> = fires.iter().map(|labels| alert(rule, labels)).collect();
    let mut tests: Vec<_> = (0..=recording.injected).map(|scrape| test(at(scrape), &[])).collect();
    if recording.injected == 0 {
        // The fault is as old as the series. An alert without `for` may fire at the first scrape.
        tests.clear();
    }
    tests.push(test(bound.min(at(recording.scrapes - 1)), &alerts));
    tests
}

/// Returns promtool's input for one scenario.
fn input(scenario: &str, expected: &Expectation, rules: &Rules) -> Value {
    let recording = Recording::read(scenario);
    assert_eq!(recording.interval, "15s", "{scenario}");
    let tests: Vec<_> =
        rules.alerts().into_iter().flat_map(|(name, rule)| tests_of(name, rule, expected, &recording)).collect();
    json!({
        "rule_files": [monitoring("rules.yml")],
        "evaluation_interval": "15s",
        "tests": [{ "interval": "15s", "input_series": recording.input_series, "alert_rule_test": tests }],
    })
}

fn run(promtool: &Path, arguments: &[&str], files: &[std::path::PathBuf]) -> Output {
    Command::new(promtool).args(arguments).args(files).output().expect("promtool runs")
}

fn assert_success(output: &Output) {
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{errors}");
}

#[test]
fn promtool_accepts_the_rules() {
    let Some([promtool]) = programs(["promtool"]) else { return };
    assert_success(&run(&promtool, &["check", "rules"], &[monitoring("rules.yml")]));
}

#[test]
fn each_fault_fires_its_rules_in_time_and_no_other() {
    let Some([promtool]) = programs(["promtool"]) else { return };
    let (rules, expected) = (Rules::read(), Expected::read());
    let folder = tempfile::tempdir().expect("the folder is created");
    let mut files = Vec::new();
    for scenario in scenarios::NAMES {
        let path = folder.path().join(format!("{scenario}.yml"));
        fs::write(&path, input(scenario, expected.of(scenario), &rules).to_string()).expect("the file is written");
        files.push(path);
    }
    assert_success(&run(&promtool, &["test", "rules"], &files));
}

/// A replay that could not fail would prove nothing.
#[test]
fn the_replay_finds_a_missing_alert_a_late_one_and_a_false_alarm() {
    let Some([promtool]) = programs(["promtool"]) else { return };
    let rules = Rules::read();
    let folder = tempfile::tempdir().expect("the folder is created");
    let replay = |scenario: &str, expected: &Expectation, rules: &Rules| {
        let path = folder.path().join("test.yml");
        fs::write(&path, input(scenario, expected, rules).to_string()).expect("the file is written");
        run(&promtool, &["test", "rules"], &[path])
    };
    let mut expected = Expected::read().0;
    let mut down = expected.remove("every_pod_killed").expect("the table exists");
    assert_success(&replay("every_pod_killed", &down, &rules));
    assert!(!replay("pod_moved", &down, &rules).status.success(), "a missing alert");
    let mut slow = Rules::read();
    let rule = slow.all.iter_mut().find(|rule| rule.alert.as_deref() == Some("PodpoolNoPodServes"));
    rule.expect("the rule exists").labels.insert("severity".to_owned(), "none".to_owned());
    assert!(!replay("every_pod_killed", &down, &slow).status.success(), "another label");
    down.fires.clear();
    assert!(!replay("every_pod_killed", &down, &rules).status.success(), "a false alarm");
}
