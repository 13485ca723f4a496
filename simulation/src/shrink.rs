//! Shrinks a plan that violates a property to a smaller one that still does.
//!
//! The steps are: delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input") of the
//! faults and of the callers; shorter windows; smaller magnitudes; fewer Pods and clients; settings and properties of
//! the hosts back to their defaults; a shorter simulation. The steps are repeated until none of them has an effect, or
//! until the number of runs is used up. The result depends only on the plan and on the results of the runs.

mod steps;

use std::collections::BTreeSet;

use crate::adversary::Plan;

/// The result of [`shrink`].
#[derive(Clone, Debug, PartialEq)]
pub struct Shrunk {
    /// The smallest plan that was found.
    pub plan: Plan,
    /// Number of runs.
    pub runs: u32,
}

/// Shrinks a plan for which `fails` returns true, with at most `limit` further runs. `fails` must give the same result
/// for the same plan, and must return true only for a violation of the same property.
pub fn shrink(plan: &Plan, limit: u32, fails: impl FnMut(&Plan) -> bool) -> Shrunk {
    let mut search = Search { best: plan.clone(), runs: 0, limit, tried: BTreeSet::from([plan.to_string()]), fails };
    loop {
        let before = search.best.clone();
        search.minimize(|plan| &mut plan.faults);
        search.minimize(|plan| &mut plan.callers);
        for step in steps::ALL {
            search.repeat(*step);
        }
        if search.best == before {
            return Shrunk { plan: search.best, runs: search.runs };
        }
    }
}

struct Search<F> {
    /// The smallest plan that fails.
    best: Plan,
    runs: u32,
    limit: u32,
    /// The text forms of the plans that were run.
    tried: BTreeSet<String>,
    fails: F,
}

impl<F: FnMut(&Plan) -> bool> Search<F> {
    /// Runs a plan, unless it is invalid, was run before, or no run is left. Keeps it if it fails.
    fn attempt(&mut self, plan: Plan) -> bool {
        if self.runs == self.limit || plan.check().is_err() || !self.tried.insert(plan.to_string()) {
            return false;
        }
        self.runs += 1;
        let has_failed = (self.fails)(&plan);
        if has_failed {
            self.best = plan;
        }
        has_failed
    }

    /// Removes parts of a list that are not needed (ddmin): halves first, then ever smaller parts.
    fn minimize<T: Clone>(&mut self, list: fn(&mut Plan) -> &mut Vec<T>) {
        let mut parts = 2;
        loop {
            let length = list(&mut self.best).len();
            if length == 0 {
                return;
            }
            parts = parts.min(length);
            let removed = (0..parts).find(|part| {
                let (from, to) = (length * part / parts, length * (part + 1) / parts);
                let mut plan = self.best.clone();
                list(&mut plan).drain(from..to);
                self.attempt(plan)
            });
            match removed {
                // The other parts keep their size.
                Some(_) => parts = (parts - 1).max(2),
                None if parts == length => return,
                None => parts *= 2,
            }
        }
    }

    /// Tries the smaller plans of a step, until none of them fails.
    fn repeat(&mut self, step: fn(&Plan) -> Vec<Plan>) {
        while step(&self.best).into_iter().any(|plan| self.attempt(plan)) {}
    }
}

#[cfg(test)]
mod tests;
