//! Random numbers for choosing Pods.
//!
//! The generator is wyrand from `fastrand`. `SmallRng` of `rand` was considered, but takes three times as many
//! instructions as wyrand, which matters in a checkout. `rand` is used only for the seeds.
//!
//! [`Rng::below`] is used instead of `fastrand`'s own function, which rejects some numbers in a loop to avoid a bias
//! that is far too small to matter here, and which panics if the bound is 0.

use crate::system::random;

/// A small and fast random number generator. Not for cryptography.
#[derive(Clone, Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// Creates a generator that returns the same sequence for the same seed, for tests and simulations.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Creates a generator with a seed from the operating system.
    pub(crate) fn from_os() -> Self {
        Self::seeded(random::seed())
    }

    /// Returns a uniformly distributed number below `bound`, or 0 if `bound` is 0.
    #[inline]
    #[must_use]
    pub fn below(&mut self, bound: usize) -> usize {
        // Uses Lemire's multiplication method without rejection. The bias is 2^-64 times the bound.
        ((u128::from(self.0.u64(..)) * bound as u128) >> 64) as usize
    }

    /// Returns a uniformly distributed number below each of two bounds, computed from a single random number. The
    /// bounds must be less than 2^32.
    #[inline]
    pub(crate) fn below_two(&mut self, bounds: [usize; 2]) -> [usize; 2] {
        let drawn = self.0.u64(..);
        let halves = [drawn & u64::from(u32::MAX), drawn >> 32];
        [0, 1].map(|i| ((halves[i] * bounds[i] as u64) >> 32) as usize)
    }

    /// Returns a uniformly distributed number from 0.0 up to but not including 1.0.
    #[inline]
    #[must_use]
    pub fn unit(&mut self) -> f64 {
        self.0.f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_uniform_and_below_their_bound() {
        let mut rng = Rng::seeded(1);
        let mut seen = [0; 7];
        (0..70_000).for_each(|_| seen[rng.below(7)] += 1);
        assert!(seen.iter().all(|&n| (9_500..10_500).contains(&n)), "{seen:?}");
        assert_eq!((rng.below(0), rng.below(1)), (0, 0));
        let mut pairs = [[0; 7]; 5];
        (0..350_000).map(|_| rng.below_two([5, 7])).for_each(|[a, b]| pairs[a][b] += 1);
        assert!(pairs.as_flattened().iter().all(|&n| (9_500..10_500).contains(&n)), "{pairs:?}");
    }

    #[test]
    fn the_same_seed_produces_the_same_numbers() {
        let (mut a, mut b) = (Rng::seeded(7), Rng::seeded(7));
        assert!((0..100).all(|_| a.below(1000) == b.below(1000)));
    }
}
