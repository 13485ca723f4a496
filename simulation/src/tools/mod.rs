//! The commands of the program. Each prints its results, and returns true if no property is violated.

mod cores;
mod corpus;
mod options;
mod show;
mod simulate;
mod twice;

pub use self::{
    corpus::corpus,
    options::Options,
    show::{show, show_file, shrink},
    simulate::{Amount, simulate},
    twice::twice,
};
use crate::adversary::{Plan, Shape};

/// Returns the plan of a seed, with the default time frame.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    Plan::draw(seed, Shape::default())
}
