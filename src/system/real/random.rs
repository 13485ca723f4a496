use std::ops::Range;

pub(crate) use rand::rng;
use rand::{TryRng as _, rngs::SysRng};

use super::unique;

/// Returns a random number in the range.
#[inline]
pub(crate) fn range(range: Range<f64>) -> f64 {
    rand::random_range(range)
}

/// Returns a seed from the operating system. If it provides no random numbers, a counter at least makes each seed a
/// different one.
///
/// Does not use [`rng`], whose thread-local state may already be destroyed while a thread exits.
#[inline]
pub(crate) fn seed() -> u64 {
    SysRng.try_next_u64().unwrap_or_else(|_| unique())
}
