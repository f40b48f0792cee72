//! Random streams by name and place: the same coordinates give the same numbers, whichever process, shard or thread asks.
//!
//! A stream is ChaCha8 seeded with a blake3 hash of its purpose and its coordinates. The draws built on it are written here and
//! not taken from a library, so that a new version of a dependency cannot change the rows of a run.

use rand::{RngCore, SeedableRng};
use rzero_schema::vocab::Phase;

/// Separates these hashes from every other use of blake3; a change of the layout below needs a new number.
const HASH_CONTEXT: &str = "rzero random stream, version 1";

/// Where in a run a random stream lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamKey {
    /// Seed of the run, from the profile.
    pub run_seed: u64,
    /// Iteration, from 1.
    pub iteration: u32,
    /// Phase of the iteration.
    pub phase: Phase,
    /// Step of the phase.
    pub step: u32,
    /// Row of the set, independent of shards.
    pub row: u64,
    /// Sample of the row.
    pub sample: u32,
}

/// The generator behind every stream.
pub type RandomStream = rand_chacha::ChaCha8Rng;

/// The stream of a purpose at a place in the run.
///
/// Hashed are, little endian: the purpose's length in bytes (u64) and its bytes, run seed (u64), iteration (u32), the length of
/// the phase's word (u64) and the word, step (u32), row (u64), sample (u32). Every part has a fixed or a written length, so two
/// different keys never hash the same bytes.
#[must_use]
pub fn random_stream(purpose: &str, key: &StreamKey) -> RandomStream {
    let phase = key.phase.as_str();
    let mut material = Vec::with_capacity(purpose.len() + phase.len() + 44);
    material.extend_from_slice(&(purpose.len() as u64).to_le_bytes());
    material.extend_from_slice(purpose.as_bytes());
    material.extend_from_slice(&key.run_seed.to_le_bytes());
    material.extend_from_slice(&key.iteration.to_le_bytes());
    material.extend_from_slice(&(phase.len() as u64).to_le_bytes());
    material.extend_from_slice(phase.as_bytes());
    material.extend_from_slice(&key.step.to_le_bytes());
    material.extend_from_slice(&key.row.to_le_bytes());
    material.extend_from_slice(&key.sample.to_le_bytes());
    RandomStream::from_seed(blake3::derive_key(HASH_CONTEXT, &material))
}

/// A number in [0, 1), uniform over the multiples of 2^-53.
#[must_use]
pub fn uniform_f64(stream: &mut RandomStream) -> f64 {
    (stream.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// A whole number in `0..bound`, each equally likely; 0 where `bound` is 0.
///
/// The high half of a 128-bit product, with the few low halves that would favour some results drawn again (Lemire, "Fast random
/// integer generation in an interval", 2019).
#[must_use]
pub fn uniform_below(stream: &mut RandomStream, bound: u64) -> u64 {
    if bound <= 1 {
        return 0;
    }
    // 2^64 mod bound: how many low halves to refuse.
    let refused = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(stream.next_u64()) * u128::from(bound);
        if product as u64 >= refused {
            return (product >> 64) as u64;
        }
    }
}

/// A random order of `0..length`, every order equally likely (Fisher and Yates).
#[must_use]
pub fn permutation(length: usize, stream: &mut RandomStream) -> Vec<usize> {
    let mut order: Vec<usize> = (0..length).collect();
    for last in (1..length).rev() {
        let chosen = uniform_below(stream, last as u64 + 1) as usize;
        order.swap(last, chosen);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::{StreamKey, permutation, random_stream, uniform_below, uniform_f64};
    use proptest::prelude::*;
    use rand::RngCore as _;
    use rzero_schema::vocab::Phase;

    const KEY: StreamKey = StreamKey { run_seed: 7, iteration: 1, phase: Phase::Solver, step: 2, row: 3, sample: 4 };

    #[test]
    fn every_coordinate_and_the_purpose_change_the_stream() {
        let keys = [
            KEY,
            StreamKey { run_seed: 8, ..KEY },
            StreamKey { iteration: 2, ..KEY },
            StreamKey { phase: Phase::Eval, ..KEY },
            StreamKey { step: 3, ..KEY },
            StreamKey { row: 4, ..KEY },
            StreamKey { sample: 5, ..KEY },
        ];
        let mut first_draws: Vec<u64> = keys.iter().map(|key| random_stream("a", key).next_u64()).collect();
        first_draws.push(random_stream("b", &KEY).next_u64());
        let mut distinct = first_draws.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), first_draws.len());
        assert_eq!(first_draws[0], random_stream("a", &KEY).next_u64());
    }

    #[test]
    fn draws_stay_what_they_were() {
        // Frozen: a change here changes the rows of every run.
        let mut stream = random_stream("frozen", &KEY);
        assert_eq!(stream.next_u64(), 10_893_906_406_667_481_087);
        assert_eq!(uniform_below(&mut stream, 1_000_003), 957_614);
        assert_eq!(uniform_f64(&mut stream), 0.202_177_845_744_305_2);
        assert_eq!(permutation(8, &mut stream), [4, 0, 1, 5, 2, 6, 3, 7]);
    }

    #[test]
    fn small_bounds_are_evenly_hit() {
        let mut stream = random_stream("even", &KEY);
        let mut counts = [0_u32; 6];
        for _ in 0..60_000 {
            counts[uniform_below(&mut stream, 6) as usize] += 1;
        }
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 450), "{counts:?}");
    }

    proptest! {
        #[test]
        fn draws_keep_their_range(seed: u64, bound: u64) {
            let mut stream = random_stream("range", &StreamKey { run_seed: seed, ..KEY });
            let below = uniform_below(&mut stream, bound);
            prop_assert!(below < bound.max(1));
            let unit = uniform_f64(&mut stream);
            prop_assert!((0.0..1.0).contains(&unit));
        }

        #[test]
        fn a_permutation_holds_each_index_once(seed: u64, length in 0_usize..200) {
            let mut stream = random_stream("order", &StreamKey { run_seed: seed, ..KEY });
            let mut order = permutation(length, &mut stream);
            order.sort_unstable();
            prop_assert_eq!(order, (0..length).collect::<Vec<_>>());
        }
    }
}
