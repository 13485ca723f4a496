use std::sync::Arc;

use super::{Candidates, LeastInFlight, Policy, Rng};

/// The policy in use: ours without a virtual call, a user's with one.
#[derive(Clone, Debug)]
pub(crate) enum Chooser {
    LeastInFlight(LeastInFlight),
    Custom(Arc<dyn Policy>),
}

impl Chooser {
    #[inline]
    pub(crate) fn pick(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        match self {
            Self::LeastInFlight(policy) => policy.pick(candidates, rng),
            Self::Custom(policy) => policy.pick(candidates, rng).filter(|&place| place < candidates.len()),
        }
    }
}

impl Default for Chooser {
    fn default() -> Self {
        Self::LeastInFlight(LeastInFlight::new())
    }
}
