//! Checks the guarantees of the default policy. Each run is seeded, so a measurement changes only if the code changes.

use std::ops::RangeInclusive;

use crate::{
    outcome::Outcome,
    report::run_one,
    scenario::{
        BREAKS, COLD, EQUAL, FAR, FAR_SHORT, HEALED, MANY_BREAKS, MANY_COLD, MANY_HEALED, MANY_NEW, MANY_RETURN,
        MANY_SLOW, NEW, ONE_SLOW_60, ONE_SLOW_80, RETURN, Scenario, VERY_SLOW,
    },
    simulation::run,
    strategy::Strategy,
};

/// Random seeds of the runs whose results [`tail`] averages.
const RUNS: RangeInclusive<u64> = 1..=16;

/// The claims that did not hold.
struct Claims(Vec<String>);

impl Claims {
    fn at_most(&mut self, name: &str, value: f64, limit: f64) {
        let verdict = if value <= limit { "holds" } else { "DOES NOT HOLD" };
        println!("{name}: {value:.4}, at most {limit}: {verdict}");
        if value > limit {
            self.0.push(format!("{name}: expected at most {limit}, got {value:.4}"));
        }
    }
}

/// Runs a scenario with the default policy.
fn ours(scenario: Scenario) -> Outcome {
    run_one(scenario, Strategy::LeastCost)
}

/// Returns the 99th percentile of the latency in `outcome`, divided by the 99th percentile with a central queue.
fn to_central(scenario: Scenario, outcome: &Outcome) -> f64 {
    outcome.percentile(99.0) / run_one(scenario, Strategy::CentralQueue).percentile(99.0)
}

/// Returns the 99.9th percentile of the latency with the default policy, in milliseconds. The result is the mean of
/// several runs, because the percentile varies by 2 % with the seed.
fn tail(scenario: Scenario) -> f64 {
    let one = |seed| run(scenario, Strategy::LeastCost, seed).percentile(99.9);
    RUNS.map(one).sum::<f64>() / RUNS.count() as f64
}

pub(crate) fn check() {
    let mut claims = Claims(Vec::new());
    let equal = ours(EQUAL);
    claims.at_most("equal Pods, p99 relative to a central queue", to_central(EQUAL, &equal), 1.10);
    claims.at_most("equal Pods, largest share relative to the mean", equal.max_to_mean(), 1.05);
    for scenario in [ONE_SLOW_60, ONE_SLOW_80].into_iter().chain(VERY_SLOW) {
        let slow = to_central(scenario, &ours(scenario));
        claims.at_most(&format!("{}, {} %, p99 relative to a central queue", scenario.name, scenario.load), slow, 1.2);
    }
    shares(&mut claims);
    let many = tail(MANY_SLOW);
    let least = run_one(MANY_SLOW, Strategy::LeastInFlight).percentile(99.9);
    claims.at_most(
        "500 clients, one of 20 Pods slow, p99.9 relative to equal Pods",
        many / tail(MANY_SLOW.without_fault()),
        1.15,
    );
    claims.at_most("500 clients, one of 20 Pods slow, p99.9 relative to LeastInFlight", many / least, 0.05);
    claims.at_most("10 clients, one Pod breaks every connection, error rate", ours(BREAKS).error_rate(), 0.0005);
    claims.at_most("500 clients, one Pod breaks every connection, error rate", ours(MANY_BREAKS).error_rate(), 0.0005);
    for scenario in [HEALED, MANY_HEALED] {
        let share = ours(scenario).first_share();
        claims.at_most(
            &format!("{} clients, missing share of a slow Pod 5 s after it recovered", scenario.clients),
            1.0 - share,
            0.1,
        );
    }
    for scenario in [NEW, MANY_NEW] {
        // Compare with a run of the same statements on the same Pods, without the Pod that joins.
        let before = Scenario { pods: scenario.pods - 1, ..scenario.without_fault() };
        let moved = ours(scenario).percentile(99.0) / ours(before).percentile(99.0);
        claims.at_most(
            &format!("{} clients, p99 while a cold Pod joins relative to that without it", scenario.clients),
            moved,
            1.1,
        );
    }
    let again = ours(EQUAL);
    claims.at_most(
        "difference between two runs with the same seed",
        (again.percentile(99.9) - equal.percentile(99.9)).abs(),
        0.0,
    );
    assert!(claims.0.is_empty(), "claims that do not hold:\n{}", claims.0.join("\n"));
}

/// Checks the shares of cold Pods and of a Pod that is farther away.
fn shares(claims: &mut Claims) {
    // A share of about 300 statements varies by 8 % by chance.
    let largest = |seed| run(COLD, Strategy::LeastCost, seed).max_to_mean();
    let largest = RUNS.map(largest).fold(0.0, f64::max);
    claims.at_most(
        "cold start of 3 Pods, largest share of the first 300 statements relative to the mean",
        largest,
        1.3,
    );
    claims.at_most("cold start of 20 Pods, largest share relative to the mean", ours(MANY_COLD).max_to_mean(), 1.1);
    for scenario in [RETURN, MANY_RETURN] {
        claims.at_most(
            &format!("{} clients, deviation of a returned Pod's share from the mean", scenario.clients),
            (1.0 - ours(scenario).first_share()).abs(),
            0.2,
        );
    }
    // A share of the mean share is a third of this share of all statements on three Pods.
    let far = ours(FAR).first_share() / 3.0;
    claims.at_most("statements of 1 ms, share of a Pod 1 ms farther away", far, 0.33);
    claims.at_most("statements of 1 ms, missing share of a Pod 1 ms farther away", 0.333 - far, 0.183);
    let far = ours(FAR_SHORT).first_share() / 3.0;
    claims.at_most("statements of 0.1 ms, missing share of a Pod 1 ms farther away", 0.333 - far, 0.233);
}
