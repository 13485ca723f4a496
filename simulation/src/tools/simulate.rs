//! Many seeds on all cores.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    str::FromStr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Options, cores::on_all_cores};
use crate::{
    adversary::Plan,
    run::{Finished, run},
};

/// The amount of simulations.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Amount {
    /// So many seeds.
    Seeds(u64),
    /// As many seeds as end within this time.
    Time(Duration),
}

impl FromStr for Amount {
    type Err = std::num::ParseIntError;

    /// Parses a number of seeds, such as `100`, or of minutes, such as `5m`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_suffix('m') {
            Some(minutes) => Ok(Self::Time(Duration::from_secs(60 * minutes.parse::<u64>()?))),
            None => Ok(Self::Seeds(text.parse()?)),
        }
    }
}

/// The sums over all simulations.
#[derive(Debug, Default)]
struct Totals {
    seeds: u64,
    simulated: Duration,
    cpu: Duration,
    /// Simulations in which the world was whole long enough before the end, so that recoveries were judged.
    healed: u64,
    /// Number of violating seeds, by property.
    violating: BTreeMap<&'static str, u64>,
    failed: u64,
}

impl Totals {
    fn add(&mut self, finished: &Finished) {
        self.seeds += 1;
        self.simulated += finished.simulated;
        self.cpu += finished.cpu;
        self.healed += u64::from(finished.history.healed.is_some());
        let mut properties: Vec<_> = finished.violations.iter().map(|violation| violation.property).collect();
        properties.sort_unstable();
        properties.dedup();
        self.failed += u64::from(!properties.is_empty());
        properties.into_iter().for_each(|property| *self.violating.entry(property).or_default() += 1);
    }
}

/// Runs the plans of the seeds from `first` on, on all cores, and prints the violations. The seeds are begun in their
/// order and run to their end, so that with [`Options::stops`], the lowest seed with a violation is always the same.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "the duration of the program is real, not simulated")]
pub fn simulate(amount: Amount, first: u64, options: &Options) -> bool {
    let (began, next, totals) = (Instant::now(), AtomicU64::new(first), Mutex::new(Totals::default()));
    let has_failed = AtomicBool::new(false);
    let work = || {
        loop {
            // Relaxed: only the flag itself is shared. A late value lets a thread run another seed.
            if options.stops && has_failed.load(Ordering::Relaxed) {
                return;
            }
            // Relaxed: only the number itself is shared.
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let is_over = match amount {
                Amount::Seeds(count) => seed >= first + count,
                Amount::Time(limit) => began.elapsed() >= limit,
            };
            if is_over {
                return;
            }
            if options.skipped.contains(&seed) {
                continue;
            }
            let finished = catch_unwind(AssertUnwindSafe(|| run(&Plan::draw(seed, options.shape))));
            let failed = finished.as_ref().map_or(true, |finished| !finished.violations.is_empty());
            has_failed.fetch_or(failed, Ordering::Relaxed);
            let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
            match finished {
                Ok(finished) => {
                    totals.add(&finished);
                    for violation in finished.violations.iter().take(3) {
                        println!("seed {seed}: {violation}");
                    }
                }
                Err(_) => {
                    totals.failed += 1;
                    println!("seed {seed}: panicked");
                }
            }
        }
    };
    on_all_cores(work);
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    print(&totals, began.elapsed());
    totals.failed == 0
}

fn print(totals: &Totals, took: Duration) {
    let Totals { seeds, simulated, cpu, healed, violating, failed } = totals;
    let speed = simulated.as_secs_f64() / cpu.as_secs_f64().max(1e-9);
    println!(
        "{seeds} seeds, {} simulated s in {:.1} s; {speed:.0} simulated s per CPU s; {healed} became whole again",
        simulated.as_secs(),
        took.as_secs_f64()
    );
    for (property, count) in violating {
        println!("{property}: violated by {count} seeds");
    }
    println!("{failed} seeds failed");
}
