//! The commands of the program. Each prints its results, and returns true if no property is violated.

mod corpus;
mod show;
mod simulate;
mod twice;

pub use self::{
    corpus::corpus,
    show::{show, show_file, shrink},
    simulate::{Amount, simulate},
    twice::twice,
};
use crate::adversary::{Plan, Shape};

/// Returns the plan of a seed.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    Plan::draw(seed, Shape::default())
}
