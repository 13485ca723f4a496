//! Runs the scenarios and writes the recordings and the table. Nothing here runs in `make test`.

use std::{
    env,
    fs::File,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{common::until, expected::Expected, raw::Raw, recording::Recording, rules::Rules, scenarios, table};

/// Environment variable with the scenario of a child process.
const SCENARIO: &str = "PODPOOL_SCENARIO";
/// Environment variable with the names of the scenarios to run, separated by spaces. Default: all.
const SELECTED: &str = "PODPOOL_SCENARIOS";
/// Scenarios that run at the same time. They are idle most of the time.
const AT_ONCE: usize = 30;
/// Pause between the starts of two scenarios, so that starting clusters do not delay the probes of others.
const STAGGER: Duration = Duration::from_secs(6);
/// Time limit for one scenario.
const LIMIT: Duration = Duration::from_secs(900);

/// Starts a process that runs one scenario.
fn start(scenario: &str) -> Child {
    let path = format!("{}/{scenario}.log", env!("CARGO_TARGET_TMPDIR"));
    let output = File::create(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let errors = output.try_clone().expect("the file is open");
    Command::new(env::current_exe().expect("the path of this program is known"))
        .args(["--exact", "record::one_scenario", "--ignored", "--nocapture"])
        .env(SCENARIO, scenario)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .expect("the process starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "one scenario takes seven minutes; `make record-alerts` runs all of them"]
async fn one_scenario() {
    let scenario = env::var(SCENARIO).expect("the environment names a scenario");
    scenarios::run(&scenario).await.write(&scenario);
}

#[tokio::test]
#[ignore = "takes 15 minutes; `make record-alerts` runs it"]
async fn every_scenario() {
    let selected = env::var(SELECTED).unwrap_or_default();
    let is_selected = |name: &&&str| selected.is_empty() || selected.split_whitespace().any(|other| other == **name);
    let (mut running, mut failed): (Vec<(&str, Child)>, Vec<&str>) = (Vec::new(), Vec::new());
    for scenario in scenarios::NAMES.iter().filter(is_selected) {
        until(LIMIT, "a scenario ends", || reap(&mut running, &mut failed) < AT_ONCE).await;
        println!("{scenario} starts");
        Raw::remove(scenario);
        running.push((scenario, start(scenario)));
        tokio::time::sleep(STAGGER).await;
    }
    until(LIMIT, "the last scenarios end", || reap(&mut running, &mut failed) == 0).await;
    assert!(failed.is_empty(), "failed: {failed:?}; {}/NAME.log has the reasons", env!("CARGO_TARGET_TMPDIR"));
}

/// Removes the processes that have ended, and returns the number of the others.
fn reap<'a>(running: &mut Vec<(&'a str, Child)>, failed: &mut Vec<&'a str>) -> usize {
    running.retain_mut(|(scenario, child)| {
        let Some(status) = child.try_wait().expect("the process can be waited for") else { return true };
        println!("{scenario} ends: {status}");
        if !status.success() {
            failed.push(scenario);
        }
        false
    });
    running.len()
}

/// Writes the recordings of the scenarios that have been run, and the table if all of them have.
#[test]
#[ignore = "needs the results of a run; `make record-alerts` runs it"]
fn write() {
    let rules = Rules::read();
    let raws: Vec<_> = scenarios::NAMES.iter().filter_map(|name| Some((*name, Raw::read(name)?))).collect();
    for (name, raw) in &raws {
        Recording::of(raw, &rules).write(name, raw.postgres);
    }
    assert_eq!(raws.len(), scenarios::NAMES.len(), "the table needs the results of all scenarios");
    table::write(&raws, &Expected::read(), &rules);
}
