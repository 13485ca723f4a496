//! The figures of the guide's table of policies are those of the simulation.

use std::{collections::BTreeMap, fs};

/// The scenarios of the table's columns, and the column of each that is quoted there: the 99th percentile, or the share.
const COLUMNS: [(&str, usize); 4] = [
    ("equal Pods: 10 clients, 3 Pods, 80 %", 2),
    ("one Pod 5 times slow: 10 clients, 3 Pods, 80 %", 2),
    ("one Pod 5 times slow: 500 clients, 20 Pods, 75 %", 2),
    ("a slow Pod that has healed 5 s ago: 10 clients, 3 Pods, 60 %", 6),
];
/// The table's rows, by what each begins with, and who that is in the simulation.
const ROWS: [(&str, &str); 6] = [
    ("one queue for all", "central queue"),
    ("[`least-cost`]", "LeastCost"),
    ("[`least-in-flight`]", "LeastInFlight"),
    ("[`peak-ewma`]", "PeakEwma"),
    ("[`round-robin`]", "RoundRobin"),
    ("[`random`]", "Random"),
];

fn page(name: &str) -> String {
    fs::read_to_string(format!("{}/docs/{name}.md", env!("CARGO_MANIFEST_DIR"))).expect("a page")
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn the_table_of_policies_says_what_the_simulation_gave() {
    let simulation = page("simulation");
    let scenarios: BTreeMap<_, _> = simulation.split("\n## ").filter_map(|part| part.split_once('\n')).collect();
    let tuning = page("tuning");
    let table = tuning.split("\n## ").find(|part| part.starts_with("Which policy")).expect("the section");
    for (begins, name) in ROWS {
        let row = table.lines().map(cells).find(|row| row[0].starts_with(begins)).expect("the row");
        let simulated = COLUMNS.map(|(scenario, column)| {
            let text = scenarios.get(scenario).unwrap_or_else(|| panic!("no scenario `{scenario}`"));
            text.lines().map(cells).find(|row| row[0] == name).expect("the policy")[column]
        });
        assert_eq!(row[1..], simulated, "{name}");
    }
}
