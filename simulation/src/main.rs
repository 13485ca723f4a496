//! Runs one simulation and prints its trace: `podpool-simulation [SEED [SECONDS]]`.
//!
//! A pool with three Pods executes 20 statements per second. One Pod crashes after a third of the time, and starts
//! again after two thirds.

use std::{process::ExitCode, time::Duration};

use podpool::Target;
use podpool_simulation::{minimal::Scenario, world::World};
use tokio::time::sleep;

fn main() -> ExitCode {
    let numbers: Result<Vec<u64>, _> = std::env::args().skip(1).map(|argument| argument.parse()).collect();
    let (seed, seconds) = match numbers.as_deref() {
        Ok([]) => (1, 30),
        Ok([seed]) => (*seed, 30),
        Ok([seed, seconds]) => (*seed, *seconds),
        _ => {
            eprintln!("usage: podpool-simulation [SEED [SECONDS]]");
            return ExitCode::FAILURE;
        }
    };
    print!("{}", simulate(seed, Duration::from_secs(seconds)));
    ExitCode::SUCCESS
}

/// Returns the trace of one simulation.
fn simulate(seed: u64, duration: Duration) -> String {
    World::run(seed, async move |world| {
        let scenario = Scenario::start(&world, 3);
        let pool = scenario.pool("");
        let pod = world.rng("crash").usize(..3);
        let faults = async {
            sleep(duration / 3).await;
            scenario.pods[pod].event("crashes");
            scenario.pods[pod].crash();
            sleep(duration / 3).await;
            scenario.pods[pod].event("starts");
            scenario.boot(pod);
        };
        tokio::join!(scenario.workload(&pool, Target::Any, 20, duration), faults);
        world.trace().to_string()
    })
}
