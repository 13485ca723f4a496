//! What must hold of the default policy. The figures are exact for the seed, so a change of one is a change of the code.

use std::ops::RangeInclusive;

use crate::{
    report::run_one,
    run::{Choice, Outcome, run},
    scenario::{
        BREAKS, EQUAL, HEALED, MANY_BREAKS, MANY_HEALED, MANY_NEW, MANY_SLOW, NEW, ONE_SLOW_60, ONE_SLOW_80, Scenario,
    },
};

/// The seeds of the runs whose mean counts, where one is not enough.
const RUNS: RangeInclusive<u64> = 1..=16;

struct Claims(Vec<String>);

impl Claims {
    fn at_most(&mut self, what: &str, is: f64, limit: f64) {
        let verdict = if is <= limit { "holds" } else { "DOES NOT HOLD" };
        println!("{what}: {is:.4}, at most {limit}: {verdict}");
        if is > limit {
            self.0.push(format!("{what}: {is:.4}, more than {limit}"));
        }
    }
}

fn ours(scenario: Scenario) -> Outcome {
    run_one(scenario, Choice::LeastCost)
}

fn to_central(scenario: Scenario, outcome: &Outcome) -> f64 {
    outcome.percentile(99.0) / run_one(scenario, Choice::Central).percentile(99.0)
}

/// The mean of the 99.9th percentiles of many runs: that of one is chance to a fiftieth.
fn tail(scenario: Scenario) -> f64 {
    let one = |seed| run(scenario, Choice::LeastCost, seed).percentile(99.9);
    RUNS.map(one).sum::<f64>() / RUNS.count() as f64
}

pub(crate) fn check() {
    let mut claims = Claims(Vec::new());
    let equal = ours(EQUAL);
    claims.at_most("equal Pods, p99 to a central queue", to_central(EQUAL, &equal), 1.10);
    claims.at_most("equal Pods, max/mean share", equal.max_to_mean(), 1.05);
    for scenario in [ONE_SLOW_60, ONE_SLOW_80] {
        let slow = to_central(scenario, &ours(scenario));
        claims.at_most(&format!("one Pod 5 times slow, {} %, p99 to a central queue", scenario.load), slow, 1.2);
    }
    let many = tail(MANY_SLOW);
    let least = run_one(MANY_SLOW, Choice::LeastInFlight).percentile(99.9);
    claims.at_most(
        "500 clients, one of 20 slow, p99.9 to that without it",
        many / tail(MANY_SLOW.without_fault()),
        1.15,
    );
    claims.at_most("500 clients, one of 20 slow, p99.9 to that of LeastInFlight", many / least, 0.05);
    claims.at_most("10 clients, one Pod breaks every connection, errors", ours(BREAKS).error_rate(), 0.0005);
    claims.at_most("500 clients, one Pod breaks every connection, errors", ours(MANY_BREAKS).error_rate(), 0.0005);
    for scenario in [HEALED, MANY_HEALED] {
        let share = ours(scenario).first_share();
        claims.at_most(&format!("{} clients, share lost 5 s after healing", scenario.clients), 1.0 - share, 0.1);
    }
    for scenario in [NEW, MANY_NEW] {
        // The same Pods and the same calls, without the new one.
        let before = Scenario { pods: scenario.pods - 1, ..scenario.without_fault() };
        let moved = ours(scenario).percentile(99.0) / ours(before).percentile(99.0);
        claims.at_most(
            &format!("{} clients, p99 when a cold Pod joins to that without it", scenario.clients),
            moved,
            1.1,
        );
    }
    let again = ours(EQUAL);
    claims.at_most("the same run twice, difference", (again.percentile(99.9) - equal.percentile(99.9)).abs(), 0.0);
    assert!(claims.0.is_empty(), "what must hold does not:\n{}", claims.0.join("\n"));
}
