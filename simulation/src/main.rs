//! Runs simulations: many seeds on all cores, one seed with its trace, the corpus; shrinks a plan that fails.

use std::{env, process::ExitCode};

use podpool_simulation::{
    adversary::Plan,
    tools::{self, Amount, Options},
};

const USAGE: &str = "usage: podpool-simulation simulate [COUNT | MINUTESm] [FIRST_SEED] [--stop] [--skip SEED,SEED...]
       podpool-simulation seed SEED [HOST...]
       podpool-simulation shrink SEED
       podpool-simulation plan FILE
       podpool-simulation corpus
       podpool-simulation twice [COUNT] [FIRST_SEED]
The plan of a seed takes 75 s of simulated time, or the time of the option --seconds SECONDS.";

fn main() -> ExitCode {
    // A reader such as `head` may close the pipe; Rust ignores the signal by default.
    // SAFETY: no other thread runs yet, and the default action is no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let words: Vec<String> = env::args().skip(1).collect();
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    match Options::take(&mut words).and_then(|options| execute(&words, &options)) {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => {
            eprintln!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}

/// Executes a command. Returns true if no property is violated, and `None` if the command is not valid.
fn execute(words: &[&str], options: &Options) -> Option<bool> {
    let plan = |seed: &str| seed.parse().ok().map(|seed| Plan::draw(seed, options.shape));
    match words {
        ["simulate"] => Some(tools::simulate(Amount::Seeds(100), 0, options)),
        ["simulate", amount] => Some(tools::simulate(amount.parse().ok()?, 0, options)),
        ["simulate", amount, first] => Some(tools::simulate(amount.parse().ok()?, first.parse().ok()?, options)),
        ["seed", seed, hosts @ ..] => Some(tools::show(&plan(seed)?, hosts)),
        ["shrink", seed] => Some(tools::shrink(&plan(seed)?)),
        ["plan", path] => Some(tools::show_file(path.as_ref())),
        ["corpus"] => Some(tools::corpus()),
        ["twice"] => Some(tools::twice(100, 0)),
        ["twice", count] => Some(tools::twice(count.parse().ok()?, 0)),
        ["twice", count, first] => Some(tools::twice(count.parse().ok()?, first.parse().ok()?)),
        _ => None,
    }
}
