use std::time::Duration;

use podpool::Target;
use podpool_simulation::{
    minimal::Scenario,
    world::{World, cpu_time},
};
use tokio::time::sleep;

/// Prints the simulated seconds per second of CPU time, with and without a workload.
#[test]
fn simulates_at_least_100_seconds_per_second_of_one_core() {
    for (seed, per_second, simulated) in [(1, 0, 1000), (2, 20, 1000)] {
        let (speed, packets) = World::run(seed, async move |world| {
            let scenario = Scenario::start(&world, 3);
            let pool = scenario.pool("");
            sleep(Duration::from_secs(10)).await;
            let (start, packets) = (cpu_time(), world.network().packets());
            let duration = Duration::from_secs(simulated);
            match per_second {
                0 => sleep(duration).await,
                _ => drop(scenario.workload(&pool, Target::Any, per_second, duration).await),
            }
            let used = cpu_time() - start;
            (simulated as f64 / used.as_secs_f64(), (world.network().packets() - packets) as f64 / simulated as f64)
        });
        println!("{per_second} statements/s: {speed:.0} simulated s per CPU s, {packets:.0} packets per simulated s");
        assert!(speed >= 100.0, "{speed:.0} simulated seconds per second");
    }
}
