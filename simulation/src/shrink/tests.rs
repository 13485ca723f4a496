use std::time::Duration;

use super::*;
use crate::adversary::{Fault, Host, Percent, Settings, Shape, Target, Window, Work};

/// Returns the number of faults with a name.
fn count(plan: &Plan, name: &str) -> usize {
    plan.faults.iter().filter(|window| window.fault.name() == name).count()
}

/// Returns the first drawn plan for which `fails` is true, with many faults.
fn failing(fails: impl Fn(&Plan) -> bool) -> Plan {
    let mut plans = (0..200_000).map(|seed| Plan::draw(seed, Shape::default()));
    plans.find(|plan| plan.faults.len() >= 6 && fails(plan)).expect("no drawn plan fails")
}

#[test]
fn two_faults_that_fail_together_remain() {
    let fails = |plan: &Plan| count(plan, "server.crash") >= 1 && count(plan, "operator.failover") >= 1;
    // The number of a Pod does not shrink.
    let is_first = |window: &Window| matches!(window.fault, Fault::Crash { pod: Host::Pod(0), .. });
    let plan = failing(|plan| {
        fails(plan) && plan.faults.iter().all(|window| window.fault.name() != "server.crash" || is_first(window))
    });
    let shrunk = shrink(&plan, 1_000, fails);
    let mut names: Vec<_> = shrunk.plan.faults.iter().map(|window| window.fault.name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["operator.failover", "server.crash"]);
    assert_eq!((shrunk.plan.topology.pods, shrunk.plan.topology.clients), (1, 1));
    assert_eq!(shrunk.plan.callers, []);
    assert_eq!(shrunk.plan.settings, Settings::default());
    assert_eq!(shrunk.plan.tail, Duration::from_secs(1));
    assert_eq!(shrunk.plan.active, shrunk.plan.last_end());
    assert_eq!(shrunk.plan.check(), Ok(()));
    assert!(shrunk.runs < 200, "{} runs", shrunk.runs);
}

#[test]
fn needed_parts_remain() {
    let fails = |plan: &Plan| {
        let has_writer = plan.callers.iter().any(|caller| caller.work == Work::Transaction && caller.concurrency > 1);
        has_writer && plan.topology.pods >= 3 && plan.settings.pool_size < 8
    };
    let shrunk = shrink(&failing(fails), 1_000, fails).plan;
    assert_eq!((shrunk.faults.len(), shrunk.callers.len(), shrunk.topology.pods), (0, 1, 3));
    assert_eq!(shrunk.callers[0].target, Target::Any);
    assert_eq!(shrunk.settings, Settings { pool_size: shrunk.settings.pool_size, ..Settings::default() });
}

#[test]
fn windows_and_magnitudes_shrink() {
    let loss = |plan: &Plan| {
        plan.faults.iter().find_map(|window| match window.fault {
            Fault::Loss { share, .. } => Some((share, window.end - window.start)),
            _ => None,
        })
    };
    let fails = |plan: &Plan| {
        loss(plan).is_some_and(|(share, length)| share >= Percent(10) && length >= Duration::from_millis(500))
    };
    let plan = failing(|plan| fails(plan) && loss(plan).is_some_and(|(share, _)| share == Percent(50)));
    let (share, length) = loss(&shrink(&plan, 1_000, fails).plan).unwrap();
    assert_eq!(share, Percent(12));
    assert!(length < Duration::from_millis(1_001), "{length:?}");
}

#[test]
fn the_number_of_runs_is_bounded() {
    let plan = failing(|_| true);
    let mut runs = 0;
    let shrunk = shrink(&plan, 5, |_| {
        runs += 1;
        true
    });
    assert_eq!((runs, shrunk.runs), (5, 5));
    assert!(shrunk.plan.faults.len() < plan.faults.len());
}

#[test]
fn the_same_runs_give_the_same_result() {
    let fails = |plan: &Plan| plan.faults.len() >= 2 && plan.topology.clients >= 2;
    let plan = failing(fails);
    assert_eq!(shrink(&plan, 300, fails), shrink(&plan, 300, fails));
}

#[test]
fn a_plan_that_cannot_be_reduced_remains() {
    let plan = failing(|_| true);
    assert_eq!(shrink(&plan, 1_000, |_| false).plan, plan);
}
