//! One plan: its trace, its timeline, and a smaller plan that fails too.

use std::{
    collections::BTreeMap,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use crate::{
    adversary::{CorpusEntry, Plan},
    properties::Violation,
    report::{self, Run},
    run::{Finished, run},
    shrink,
};

/// The folder of the timelines.
const FOLDER: &str = "target/simulation";
/// Maximum number of simulations in which a plan is shrunk.
const RUNS: u32 = 400;
/// Maximum number of violations of each property that are printed.
const PRINTED: usize = 3;

/// Runs a plan, prints the plan, the events of these hosts (or of all) side by side, and the violations. Writes a
/// timeline.
#[must_use]
pub fn show(plan: &Plan, hosts: &[&str]) -> bool {
    show_as(&format!("seed-{}", plan.seed), plan, hosts)
}

/// Shows a plan, and writes its timeline to a file with this name.
fn show_as(name: &str, plan: &Plan, hosts: &[&str]) -> bool {
    let finished = run(plan);
    let (violations, further) = first(&finished.violations);
    let shown = Run { violations: &violations, ..finished.report() };
    let known = report::hosts(&shown);
    if let Some(unknown) = hosts.iter().find(|host| !known.contains(host)) {
        eprintln!("expected a host with events ({}), received `{unknown}`", known.join(", "));
    }
    print!("{plan}\n{}\n{}", report::addresses(&finished.history), report::table(shown, hosts));
    match draw(name, &finished) {
        Ok(path) => println!("timeline: {path}"),
        Err(error) => eprintln!("the timeline cannot be written to {FOLDER}: {error}"),
    }
    let healed = finished.history.healed.map(|healed| format!("{:.3} s", healed.as_secs_f64()));
    println!("whole again at {}", healed.as_deref().unwrap_or("no time"));
    for violation in &violations {
        println!("{violation}");
    }
    for (property, number) in further {
        println!("{property}: {number} more");
    }
    print!("{}", report::calls(&finished.history, &violations));
    println!("{} violations", finished.violations.len());
    finished.violations.is_empty()
}

/// Returns the first violations of each property, and the number of the others.
fn first(violations: &[Violation]) -> (Vec<Violation>, BTreeMap<&'static str, usize>) {
    let (mut numbers, mut first) = (BTreeMap::new(), Vec::new());
    for violation in violations {
        let number: &mut usize = numbers.entry(violation.property).or_default();
        *number += 1;
        if *number <= PRINTED {
            first.push(violation.clone());
        }
    }
    let further = numbers.into_iter().filter(|(_, number)| *number > PRINTED);
    (first, further.map(|(property, number)| (property, number - PRINTED)).collect())
}

fn draw(name: &str, finished: &Finished) -> io::Result<String> {
    fs::create_dir_all(FOLDER)?;
    let path = format!("{FOLDER}/{name}.svg");
    fs::write(&path, report::timeline(finished.report()))?;
    Ok(path)
}

/// Runs the plan in a file, which may be an entry of the corpus or the output of [`shrink`](shrink()), like [`show`].
#[must_use]
pub fn show_file(path: &Path) -> bool {
    let text = fs::read_to_string(path).map_err(|error| error.to_string());
    match text.and_then(|text| CorpusEntry::plan_of(&text).map_err(|error| error.to_string())) {
        Ok(plan) => show_as(&path.file_stem().unwrap_or_default().to_string_lossy(), &plan, &[]),
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
        eprintln!("seed {} violates no property", plan.seed);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_violations_of_each_property_are_printed() {
        let violation = |property| Violation { property, at: Duration::ZERO, text: String::new() };
        let violations: Vec<_> = ["order", "order", "fair", "order", "order", "order"].map(violation).into();
        let (shown, further) = first(&violations);
        assert_eq!(shown.len(), 4);
        assert_eq!(further, BTreeMap::from([("order", 2)]));
    }
}
