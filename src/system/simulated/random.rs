use std::{convert::Infallible, ops::Range};

use rand::{RngExt as _, TryRng};

use crate::system::simulation::world;

/// The random numbers of the current world.
#[derive(Debug)]
pub(crate) struct Random;

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((world().random() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(world().random())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&world().random().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// Returns the world's random number generator.
pub(crate) fn rng() -> Random {
    Random
}

/// Returns a random number in the range.
pub(crate) fn range(range: Range<f64>) -> f64 {
    Random.random_range(range)
}

/// Returns a seed.
pub(crate) fn seed() -> u64 {
    world().random()
}
