//! Tests that the policy table in docs/tuning.md matches the results in docs/simulation.md.

use std::{collections::BTreeMap, fs};

/// The columns of the policy table. Each entry has the scenario in docs/simulation.md and the index of the column in
/// that scenario's table: column 2 is the 99th percentile, and column 6 is the share of the first Pod.
const COLUMNS: [(&str, usize); 4] = [
    ("equal Pods: 10 clients, 3 Pods, 80 %", 2),
    ("one Pod 5 times slow: 10 clients, 3 Pods, 80 %", 2),
    ("one Pod 5 times slow: 500 clients, 20 Pods, 75 %", 2),
    ("a slow Pod that has healed 5 s ago: 10 clients, 3 Pods, 60 %", 6),
];
/// The rows of the policy table. Each entry has the text at the start of the row and the name of the strategy in
/// docs/simulation.md.
const ROWS: [(&str, &str); 6] = [
    ("one queue for all", "central queue"),
    ("[`least-cost`]", "LeastCost"),
    ("[`least-in-flight`]", "LeastInFlight"),
    ("[`peak-ewma`]", "PeakEwma"),
    ("[`round-robin`]", "RoundRobin"),
    ("[`random`]", "Random"),
];

fn page(name: &str) -> String {
    fs::read_to_string(format!("{}/docs/{name}.md", env!("CARGO_MANIFEST_DIR"))).expect("the page is readable")
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn policy_table_matches_the_simulation_results() {
    let simulation = page("simulation");
    let scenarios: BTreeMap<_, _> = simulation.split("\n## ").filter_map(|part| part.split_once('\n')).collect();
    let tuning = page("tuning");
    let table = tuning.split("\n## ").find(|part| part.starts_with("Which policy")).expect("the page has the section");
    for (start, name) in ROWS {
        let row = table.lines().map(cells).find(|row| row[0].starts_with(start)).expect("the table has the row");
        let simulated = COLUMNS.map(|(scenario, column)| {
            let text = scenarios.get(scenario).unwrap_or_else(|| panic!("no scenario `{scenario}`"));
            text.lines().map(cells).find(|row| row[0] == name).expect("the scenario has a row for the strategy")[column]
        });
        assert_eq!(row[1..], simulated, "{name}");
    }
}
