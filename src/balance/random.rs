use super::{Candidates, Policy, Rng};

/// Any Pod, as likely as its weight says.
///
/// Use it to compare with, or where the Pods' shares must not depend on load at all. It knows nothing of load: in the
/// simulation (docs/simulation.md) its 99th percentile is 1.4 times that of one central queue with three equal Pods at
/// 80 %, and 70 times with one of ten five times slow. It is libpq's `load_balance_hosts=random`, for each checkout instead of each connection.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Random;

impl Random {
    /// The policy.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Policy for Random {
    #[inline]
    fn pick(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        candidates.draw(rng)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::Pods;

    #[test]
    fn shares_go_by_weight_whatever_the_load() {
        let weights = [1, 2, 100, 1];
        let pods = Pods::weighted(&weights);
        pods.slot(1).checkout();
        let shares = pods.shares(&Random, 1_040_000);
        for (share, weight) in shares.iter().zip(weights) {
            assert!((9_500..10_500).contains(&(share / weight as usize)), "{shares:?}");
        }
    }
}
