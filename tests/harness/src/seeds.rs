//! Numbers from seeds that are printed.

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// So many numbers below a bound, ascending, from a seed that is printed, so that a failing one can be run again.
#[must_use]
pub fn seeded(seed: u64, count: usize, bound: u64) -> Vec<u64> {
    println!("seed {seed}");
    let mut random = SplitMix64::seed_from_u64(seed);
    let mut numbers: Vec<u64> = (0..count).map(|_| random.next_u64() % bound).collect();
    numbers.sort_unstable();
    numbers
}
