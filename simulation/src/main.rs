//! Runs simulations: many seeds on all cores, one seed with its trace, the corpus; shrinks a plan that fails.

use std::{env, process::ExitCode};

use podpool_simulation::tools::{self, Amount};

const USAGE: &str = "usage: podpool-simulation simulate [COUNT | MINUTESm] [FIRST_SEED]
       podpool-simulation seed SEED [HOST...]
       podpool-simulation shrink SEED
       podpool-simulation plan FILE
       podpool-simulation corpus
       podpool-simulation twice [COUNT] [FIRST_SEED]";

fn main() -> ExitCode {
    // A reader such as `head` may close the pipe; Rust ignores the signal by default.
    // SAFETY: no other thread runs yet, and the default action is no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let is_clean = match words.as_slice() {
        ["simulate"] => Some(tools::simulate(Amount::Seeds(100), 0)),
        ["simulate", amount] => amount.parse().ok().map(|amount| tools::simulate(amount, 0)),
        ["simulate", amount, first] => {
            amount.parse().ok().zip(first.parse().ok()).map(|(amount, first)| tools::simulate(amount, first))
        }
        ["seed", seed, hosts @ ..] => seed.parse().ok().map(|seed| tools::show(&tools::plan(seed), hosts)),
        ["shrink", seed] => seed.parse().ok().map(|seed| tools::shrink(&tools::plan(seed))),
        ["plan", path] => Some(tools::show_file(path.as_ref())),
        ["corpus"] => Some(tools::corpus()),
        ["twice"] => Some(tools::twice(100, 0)),
        ["twice", count] => count.parse().ok().map(|count| tools::twice(count, 0)),
        ["twice", count, first] => {
            count.parse().ok().zip(first.parse().ok()).map(|(count, first)| tools::twice(count, first))
        }
        _ => None,
    };
    match is_clean {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => {
            eprintln!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}
