use rand::{TryRng as _, rngs::SysRng};

use crate::sync::unique;

/// The random numbers of a pick: small, fast, a generator a thread, not for secrets.
#[derive(Clone, Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// A generator that always gives the same numbers, for tests and simulations.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A generator that begins somewhere at random.
    pub(crate) fn from_os() -> Self {
        // From the system itself: what `rand` keeps for a thread is gone when the thread is ending. Where the system has
        // none, this thread's numbers are at least not those of another.
        Self::seeded(SysRng.try_next_u64().unwrap_or_else(|_| unique()))
    }

    /// A number under `bound`, each as likely as the others; 0 where `bound` is 0 or 1.
    #[inline]
    #[must_use]
    pub fn below(&mut self, bound: usize) -> usize {
        // Lemire's multiplication: the bias of 2^-64 times the bound is far under what a pick can show.
        ((u128::from(self.0.u64(..)) * bound as u128) >> 64) as usize
    }

    /// A number under each of two bounds, as [`below`](Rng::below) gives them, for one draw.
    #[inline]
    pub(crate) fn below_two(&mut self, bounds: [usize; 2]) -> [usize; 2] {
        let drawn = self.0.u64(..);
        let halves = [drawn & u64::from(u32::MAX), drawn >> 32];
        [0, 1].map(|i| ((halves[i] * bounds[i] as u64) >> 32) as usize)
    }

    /// A number from 0.0 up to but not including 1.0.
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
    fn stays_below_its_bound_and_reaches_every_number() {
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
    fn the_same_seed_gives_the_same_numbers() {
        let (mut a, mut b) = (Rng::seeded(7), Rng::seeded(7));
        assert!((0..100).all(|_| a.below(1000) == b.below(1000)));
    }
}
