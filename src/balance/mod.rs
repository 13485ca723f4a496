//! Load-balancing policies, which choose the Pod for each checkout.
//!
//! A [`Policy`] chooses one of the [`Candidates`], which are the Pods that fit the [`Target`](crate::Target) of the
//! checkout. A policy runs in every checkout, so it must be fast: the built-in policies take no lock, allocate nothing
//! and read no clock. [`LeastCost`] is the default. The documentation of each other policy explains when to use it.
//!
//! ```
//! use podpool::balance::{Candidates, Policy, Rng};
//!
//! /// Chooses the Pod with the lowest latency, regardless of its load.
//! #[derive(Debug)]
//! struct Fastest;
//!
//! impl Policy for Fastest {
//!     fn pick(&self, candidates: &Candidates<'_>, _rng: &mut Rng) -> Option<usize> {
//!         (0..candidates.len()).min_by_key(|&i| candidates.latency(i))
//!     }
//! }
//! ```

mod candidates;
mod chooser;
mod least_cost;
mod least_in_flight;
mod peak_ewma;
mod policy;
mod random;
mod rng;
mod round_robin;
mod select;
pub(crate) mod subset;
#[cfg(test)]
mod tests;

pub use candidates::Candidates;
pub(crate) use chooser::Chooser;
pub use least_cost::LeastCost;
pub use least_in_flight::LeastInFlight;
pub use peak_ewma::PeakEwma;
pub use policy::Policy;
pub use random::Random;
pub use rng::Rng;
pub use round_robin::RoundRobin;
pub(crate) use select::{select, select_fast};
