//! Seeds that are executed twice, to compare their histories.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::{cores::on_all_cores, plan};
use crate::{report, run::run};

/// Runs the plans of `count` seeds from `first` on twice each, on all cores, and compares their traces and histories
/// byte by byte. Prints the first difference of each seed.
#[must_use]
pub fn twice(count: u64, first: u64) -> bool {
    let (next, different) = (AtomicU64::new(first), Mutex::new(0_u64));
    let bytes = AtomicU64::new(0);
    let work = || {
        loop {
            // Relaxed: only the numbers themselves are shared.
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return;
            }
            let [one, other] = [(); 2].map(|()| text(seed));
            bytes.fetch_add(one.len() as u64, Ordering::Relaxed);
            if one != other {
                let lines = one.lines().zip(other.lines()).find(|(one, other)| one != other);
                let (one, other) = lines.unwrap_or(("a shorter history", "a longer history"));
                println!("seed {seed}: the histories differ:\n  {one}\n  {other}");
                *different.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            }
        }
    };
    on_all_cores(work);
    let different = different.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{count} seeds twice, {} bytes compared, {different} seeds differ", bytes.into_inner());
    different == 0
}

/// Runs the plan of a seed. Returns its trace and its history.
fn text(seed: u64) -> String {
    let finished = run(&plan(seed));
    format!("{}{:#?}", report::table(finished.report(), &[]), finished.history)
}
