//! The table.

use std::fmt::Write as _;

use crate::{
    run::{self, CHOICES, Choice, Outcome},
    scenario::{ALL, Scenario},
};

/// A scenario with what came out of it: the central queue first.
pub(crate) struct Table {
    pub(crate) scenario: Scenario,
    pub(crate) central: Outcome,
    pub(crate) outcomes: Vec<Outcome>,
}

const SEED: u64 = 1;

pub(crate) fn run_one(scenario: Scenario, choice: Choice) -> Outcome {
    run::run(scenario, choice, SEED)
}

pub(crate) fn all(filter: &str) -> Vec<Table> {
    let chosen = ALL.iter().filter(|scenario| scenario.name.contains(filter));
    chosen
        .map(|&scenario| {
            eprintln!("{}, {} clients, {} Pods, {} %", scenario.name, scenario.clients, scenario.pods, scenario.load);
            Table {
                scenario,
                central: run_one(scenario, Choice::Central),
                outcomes: CHOICES.map(|choice| run_one(scenario, choice)).into(),
            }
        })
        .collect()
}

pub(crate) fn text(tables: &[Table]) -> String {
    let mut out = String::from(
        "# The policies, simulated\n\n\
         Written by `cargo bench --all-features --bench simulate -- --write`; the same numbers come out each time. Each Pod\n\
         has four workers and one queue; a statement takes 1 ms on average (log-normal, sigma 1) and comes to a client at\n\
         random (Poisson). Each client is a pool of its own, with the library's own counts, probes, health and speeds, and\n\
         sees nothing of the others. Times in milliseconds, from the call to the answer, with the wait for a connection.\n\
         \"To a central queue\": the 99th percentile beside that of one queue before the workers of all Pods, which no\n\
         client can have. Shares: the most that a Pod got beside the mean, and what the first Pod, which has the fault, got\n\
         beside a fair share.\n\n\
         ![The 99th percentile beside a central queue's](simulation.svg)\n\n",
    );
    for table in tables {
        let Scenario { name, clients, pods, load, .. } = table.scenario;
        let _ = writeln!(out, "## {name}: {clients} clients, {pods} Pods, {load} %\n");
        let _ = writeln!(
            out,
            "| policy | p50 | p99 | p99.9 | to a central queue | max/mean share | first Pod's | errors |"
        );
        let _ = writeln!(out, "|---|---|---|---|---|---|---|---|");
        for outcome in std::iter::once(&table.central).chain(&table.outcomes) {
            let [p50, p99, p999] = [50.0, 99.0, 99.9].map(|percent| outcome.percentile(percent));
            let _ = writeln!(
                out,
                "| {} | {p50:.2} | {p99:.2} | {p999:.2} | {:.2} | {:.3} | {:.2} | {:.3} % |",
                outcome.choice.name(),
                p99 / table.central.percentile(99.0),
                outcome.max_to_mean(),
                outcome.first_share(),
                outcome.error_rate() * 100.0,
            );
        }
        out.push('\n');
    }
    out
}
