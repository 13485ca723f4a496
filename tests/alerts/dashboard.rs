//! Tests that the Grafana dashboard uses metrics and labels that exist.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{rules::names, text};

/// Metrics of single Pods, whose series stay when the Pod leaves. The sum of this one does not need the join.
const WITHOUT_JOIN: &str = "sum without (podpool_pod) (podpool_endpoint_up{";

fn list<'a>(value: &'a Value, name: &str) -> &'a Vec<Value> {
    value[name].as_array().unwrap_or_else(|| panic!("{name} is a list"))
}

#[test]
fn the_dashboard_uses_metrics_and_labels_that_exist() {
    let dashboard: Value = serde_json::from_str(&text("dashboard.json")).expect("the dashboard is JSON");
    let (mut ids, mut used) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard, "panels") {
        let title = panel["title"].as_str().expect("each panel has a title");
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title}");
        assert!(ids.insert(panel["id"].as_u64()), "{title}: the ids are unique");
        for target in list(panel, "targets") {
            let expr = target["expr"].as_str().expect("each target has an expression");
            let found = names(expr, &BTreeSet::new()).unwrap_or_else(|error| panic!("{title}: {error}"));
            assert!(!found.is_empty() || expr.contains("ALERTS{"), "{title}: {expr}");
            let is_of_pod = |name: &String| {
                let metric = podpool::metrics::ALL.iter().find(|metric| metric.name == *name);
                metric.is_some_and(|metric| metric.labels.contains(&"podpool_pod"))
            };
            let is_joined = expr.contains("podpool_pod_info == 1") || expr.contains(WITHOUT_JOIN);
            assert!(is_joined || !found.iter().any(is_of_pod), "{title}: {expr}");
            used.extend(found);
        }
    }
    assert!(used.len() >= 15, "{used:?}");
    // Each variable of an expression is defined, except those of Grafana.
    let variables = list(&dashboard["templating"], "list").iter().filter_map(|it| it["name"].as_str());
    assert_eq!(variables.collect::<BTreeSet<_>>(), BTreeSet::from(["datasource", "job", "pool"]));
}
