use std::fmt;

use super::{Candidates, Rng};

/// Chooses a Pod for a checkout.
///
/// The same value serves every thread at once; what it remembers must be atomic.
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// The place of the chosen Pod among the candidates, or `None` to refuse them all; of an empty list, always
    /// `None`. A place that is out of range counts as `None`.
    ///
    /// When the chosen Pod has no idle connection, the policy is asked again with that Pod left out, until a
    /// connection is found or no candidate is left.
    fn pick(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize>;
}
