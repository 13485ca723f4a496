//! The report: a table of measurements for each scenario.

use std::fmt::Write as _;

use crate::{
    outcome::Outcome,
    scenario::{ALL, Scenario},
    simulation,
    strategy::{POLICIES, Strategy},
};

/// The measurements of one scenario, for a central queue and for each policy.
pub(crate) struct Table {
    pub(crate) scenario: Scenario,
    pub(crate) central: Outcome,
    pub(crate) outcomes: Vec<Outcome>,
}

const SEED: u64 = 1;

pub(crate) fn run_one(scenario: Scenario, strategy: Strategy) -> Outcome {
    simulation::run(scenario, strategy, SEED)
}

/// Runs the scenarios whose names contain the filter.
pub(crate) fn all(filter: &str) -> Vec<Table> {
    let chosen = ALL.iter().filter(|scenario| scenario.name.contains(filter));
    chosen
        .map(|&scenario| {
            eprintln!("{}, {} clients, {} Pods, {} %", scenario.name, scenario.clients, scenario.pods, scenario.load);
            Table {
                scenario,
                central: run_one(scenario, Strategy::CentralQueue),
                outcomes: POLICIES.map(|policy| run_one(scenario, policy)).into(),
            }
        })
        .collect()
}

/// Returns the report in Markdown.
pub(crate) fn text(tables: &[Table]) -> String {
    let mut out = String::from(
        "# Simulation of the policies\n\n\
         Written by `cargo bench --all-features --bench simulate -- --write`. The simulation is seeded, so each\n\
         run has the same results. Each Pod has four workers and one FIFO queue. A statement takes 1 ms on\n\
         average (log-normal, sigma 1). Statements arrive at random (Poisson), each at a random client. Each\n\
         client has a pool of its own, with the library's own in-flight counts, probes, health states and latency\n\
         classes, and does not see the other clients.\n\n\
         Latencies are in milliseconds, from the call to the response, including the wait for a connection. \"p99\n\
         to central queue\" is the ratio of the 99th percentile to that of one queue in front of the workers of\n\
         all Pods, an ideal that no client can implement. \"Max/mean share\" is the ratio of the largest number\n\
         of statements on one Pod to the mean. \"First Pod's share\" is the ratio of the first Pod's number of\n\
         statements to the mean; in most scenarios with a fault, the first Pod has it.\n\n\
         ![99th percentile of the response time, relative to a single shared queue](simulation.svg)\n\n",
    );
    for table in tables {
        let Scenario { name, clients, pods, load, .. } = table.scenario;
        let _ = writeln!(out, "## {name}: {clients} clients, {pods} Pods, {load} %\n");
        let _ = writeln!(
            out,
            "| policy | p50 | p99 | p99.9 | p99 to central queue | max/mean share | first Pod's share | errors |"
        );
        let _ = writeln!(out, "|---|---|---|---|---|---|---|---|");
        for outcome in std::iter::once(&table.central).chain(&table.outcomes) {
            let [p50, p99, p999] = [50.0, 99.0, 99.9].map(|percent| outcome.percentile(percent));
            let _ = writeln!(
                out,
                "| {} | {p50:.2} | {p99:.2} | {p999:.2} | {:.2} | {:.3} | {:.2} | {:.3} % |",
                outcome.strategy.name(),
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
