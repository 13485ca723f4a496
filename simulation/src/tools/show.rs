//! One plan: its trace, its timeline, and a smaller plan that fails too.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use crate::{
    adversary::{CorpusEntry, Plan},
    report,
    run::{Finished, run},
    shrink,
};

/// The folder of the timelines.
const FOLDER: &str = "target/simulation";
/// Maximum number of simulations in which a plan is shrunk.
const RUNS: u32 = 400;

/// Runs a plan, prints the plan, the events of these hosts (or of all) side by side, and the violations. Writes a
/// timeline.
#[must_use]
pub fn show(plan: &Plan, hosts: &[&str]) -> bool {
    let finished = run(plan);
    print!("{plan}\n{}\n{}", report::addresses(&finished.history), report::table(finished.report(), hosts));
    match draw(&finished) {
        Ok(path) => println!("timeline: {path}"),
        Err(error) => eprintln!("the timeline cannot be written to {FOLDER}: {error}"),
    }
    let healed = finished.history.healed.map(|healed| format!("{:.3} s", healed.as_secs_f64()));
    println!("whole again at {}", healed.as_deref().unwrap_or("no time"));
    for violation in &finished.violations {
        println!("{violation}");
    }
    print!("{}", report::calls(&finished.history, &finished.violations));
    println!("{} violations", finished.violations.len());
    finished.violations.is_empty()
}

fn draw(finished: &Finished) -> io::Result<String> {
    fs::create_dir_all(FOLDER)?;
    let path = format!("{FOLDER}/seed-{}.svg", finished.plan.seed);
    fs::write(&path, report::timeline(finished.report()))?;
    Ok(path)
}

/// Runs the plan in a file, which may be an entry of the corpus or the output of [`shrink`](shrink()), like [`show`].
#[must_use]
pub fn show_file(path: &Path) -> bool {
    let text = fs::read_to_string(path).map_err(|error| error.to_string());
    match text.and_then(|text| CorpusEntry::plan_of(&text).map_err(|error| error.to_string())) {
        Ok(plan) => show(&plan, &[]),
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            false
        }
    }
}

/// Shrinks a plan that violates a property, and prints the result as an entry of the corpus without its cause.
#[must_use]
pub fn shrink(plan: &Plan) -> bool {
    let Some(violation) = run(plan).violations.into_iter().next() else {
        println!("seed {} violates no property", plan.seed);
        return true;
    };
    let property = violation.property;
    println!("# {violation}");
    let fails = |plan: &Plan| {
        // A smaller plan that cannot be run is none that violates the property.
        let finished = catch_unwind(AssertUnwindSafe(|| run(plan)));
        finished.is_ok_and(|finished| finished.violations.iter().any(|violation| violation.property == property))
    };
    let shrunk = shrink::shrink(plan, RUNS, fails);
    println!("# shrunk in {} runs\nproperty {property}\n{}", shrunk.runs, shrunk.plan);
    false
}
