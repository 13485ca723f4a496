use std::fmt;

use super::{Candidates, Rng};

/// A load-balancing policy, which chooses the Pod for each checkout.
///
/// All threads use the same instance concurrently, so any mutable state must be atomic.
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// Returns the index of the chosen Pod among the candidates, or `None` to reject all of them.
    ///
    /// Must return `None` if there are no candidates. An index that is out of range counts as `None`.
    ///
    /// If the chosen Pod has no idle connection, the policy is called again without that Pod, until a connection is
    /// found or no candidate is left.
    fn pick(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize>;
}
