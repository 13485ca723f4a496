//! Which Pod gets the next checkout.
//!
//! A [`Policy`] looks at the [`Candidates`] of the wanted target and names one of them. It runs inside every checkout:
//! no lock, no allocation, no clock, nothing asynchronous. [`LeastInFlight`] is the default.
//!
//! ```
//! use podpool::balance::{Candidates, Policy, Rng};
//!
//! /// The Pod that answers fastest, whatever else it is doing.
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
mod least_in_flight;
mod policy;
mod rng;
mod select;
pub(crate) mod subset;

pub use candidates::Candidates;
pub(crate) use chooser::Chooser;
pub use least_in_flight::LeastInFlight;
pub use policy::Policy;
pub use rng::Rng;
pub(crate) use select::select;
