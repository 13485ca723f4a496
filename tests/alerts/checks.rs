//! Tests that the rules, the expectations and the documentation agree with each other and with the library.

use std::collections::BTreeSet;

use crate::{
    expected::{Expected, rows},
    rules::{Rules, names},
    scenarios,
};

const RUNBOOK: &str = include_str!("../../docs/runbook.md");

/// Returns the anchor of each heading of a page.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter_map(|line| line.strip_prefix("## "));
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-'].contains(c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn rules_use_metrics_and_labels_that_exist() {
    let rules = Rules::read();
    for rule in &rules.all {
        names(&rule.expr, &rules.recorded()).unwrap_or_else(|error| panic!("{error}"));
        // The facade cannot remove the series of a Pod that has left. `podpool_endpoint_up` is 0 then.
        let is_about_a_pod = rule.expr.contains("podpool_endpoint_") && !rule.expr.contains("without (podpool_pod)");
        let joins = ["podpool_pod_info == 1", "podpool_endpoint_up == 1"].iter().any(|join| rule.expr.contains(join));
        assert!(!is_about_a_pod || joins, "{}", rule.expr);
    }
}

#[test]
fn alerts_have_a_severity_and_runbook_text() {
    let rules = Rules::read();
    let anchors = anchors(RUNBOOK);
    for (name, rule) in rules.alerts() {
        assert!(["page", "ticket"].contains(&&*rule.labels["severity"]), "{name}");
        for annotation in ["summary", "description", "runbook"] {
            let text = rule.annotations.get(annotation).unwrap_or_else(|| panic!("{name} has no {annotation}"));
            assert!(text.ends_with('.') && !text.contains("$value"), "{name}: {text}");
        }
        let page = &rule.annotations["runbook_page"];
        let anchor = page.strip_prefix("docs/runbook.md#").unwrap_or_else(|| panic!("{name}: {page}"));
        assert!(anchors.contains(anchor), "{name}: {page} does not exist; expected one of {anchors:?}");
        // A page must fire within two minutes, of which a scrape and an evaluation take half a minute.
        let longest = if rule.is_page() { 60 } else { 180 };
        let seconds = rule.lasts.as_deref().map_or(0, |lasts| match lasts.split_at(lasts.len() - 1) {
            (number, "m") => number.parse::<u32>().expect("a number") * 60,
            (number, _) => number.parse().expect("a number of seconds"),
        });
        assert!(seconds <= longest, "{name}: {seconds} s");
    }
}

#[test]
fn each_row_of_the_failure_modes_has_a_rule_or_a_reason() {
    let (expected, rules) = (Expected::read(), Rules::read());
    let scenarios: BTreeSet<_> = scenarios::NAMES.iter().copied().collect();
    assert_eq!(expected.0.keys().map(|name| &**name).collect::<BTreeSet<_>>(), scenarios);
    let rows: BTreeSet<_> = rows().into_iter().collect();
    assert_eq!(expected.0.values().map(|it| &*it.row).collect::<BTreeSet<_>>(), rows);
    let alerts = rules.alerts();
    for (scenario, expectation) in &expected.0 {
        assert_eq!(expectation.fires.is_empty(), expectation.no_rule.is_some(), "{scenario}: rules, or a reason");
        let all = || expectation.rules().chain(expectation.may.iter().map(|name| &**name));
        assert!(all().all(|name| alerts.contains_key(name)), "{scenario}: {expectation:?}");
        let pages = all().filter(|name| alerts[name].is_page()).count();
        assert!(pages <= 1, "{scenario}: a fault sends at most one page: {expectation:?}");
    }
    let fired: BTreeSet<_> = expected.0.values().flat_map(|expectation| expectation.rules()).collect();
    assert_eq!(fired, alerts.keys().copied().collect(), "each rule fires in a recording");
    let faults = expected.0.values().filter(|expectation| !expectation.fires.is_empty()).count();
    println!("{faults} faults with rules, {} without", expected.0.len() - faults);
    assert!(faults >= 20 && expected.0.len() - faults >= 6);
}
