//! Which questions stand earlier among the candidates.
//!
//! Questions are known by the first 128 bits of their blake3 digest, 16 bytes each whatever their length. Two different questions of n
//! share them with a probability of at most n^2 / 2^129, which is 1.5e-25 for ten million, and nobody knows how to write two that do: that
//! would take 2^64 digests. A question that shares them with another one would be dropped as its duplicate.

use arrow::array::{Array, StringArray};
use rayon::prelude::*;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

/// A question's digest.
type Digest = [u64; 2];

/// Sets of digests, by their first bits, so that several threads can look at once.
pub(super) struct Seen {
    parts: Vec<HashSet<Digest, BuildHasherDefault<FirstBits>>>,
}

const NUM_PARTS: usize = 16;

impl Seen {
    /// Room for so many questions.
    pub(super) fn with_capacity(num: usize) -> Self {
        // The parts are as good as equal, as the bits of a digest are.
        let num_each = num / NUM_PARTS + num / (NUM_PARTS * 64) + 64;
        Self {
            parts: (0..NUM_PARTS).map(|_| HashSet::with_capacity_and_hasher(num_each, BuildHasherDefault::default())).collect(),
        }
    }

    /// Adds questions in their order; of each, whether it stood earlier. What is null is no question, and not repeated.
    pub(super) fn add(&mut self, texts: &[&StringArray]) -> Vec<Vec<bool>> {
        let digests: Vec<Vec<Option<Digest>>> =
            texts.par_iter().with_max_len(1).map(|texts| texts.iter().map(|text| text.map(digest)).collect()).collect();
        let found: Vec<Vec<(usize, usize)>> = self
            .parts
            .par_iter_mut()
            .enumerate()
            .with_max_len(1)
            .map(|(part, seen)| {
                let mut repeated = Vec::new();
                for (batch, digests) in digests.iter().enumerate() {
                    for (at, digest) in digests.iter().enumerate() {
                        if let Some(digest) = digest
                            && part_of(digest) == part
                            && !seen.insert(*digest)
                        {
                            repeated.push((batch, at));
                        }
                    }
                }
                repeated
            })
            .collect();
        let mut is_repeated: Vec<Vec<bool>> = texts.iter().map(|texts| vec![false; texts.len()]).collect();
        found.into_iter().flatten().for_each(|(batch, at)| is_repeated[batch][at] = true);
        is_repeated
    }
}

fn digest(text: &str) -> Digest {
    let digest = blake3::hash(text.as_bytes());
    let words: [u8; 32] = *digest.as_bytes();
    std::array::from_fn(|word| u64::from_le_bytes(std::array::from_fn(|byte| words[8 * word + byte])))
}

/// The last bits of the second word: tables use bits of the first.
fn part_of(digest: &Digest) -> usize {
    digest[1] as usize % NUM_PARTS
}

/// A digest is its own hash.
#[derive(Default)]
struct FirstBits(u64);

impl Hasher for FirstBits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_of_equal_questions_is_new() {
        let mut seen = Seen::with_capacity(4);
        let texts =
            [StringArray::from(vec![Some("a"), None, Some("b"), Some("a")]), StringArray::from(vec![None, Some("b"), Some("c")])];
        let found = seen.add(&[&texts[0], &texts[1]]);
        assert_eq!(found, [vec![false, false, false, true], vec![false, true, false]]);
        assert_eq!(seen.add(&[&texts[1]]), [vec![false, true, true]]);
    }
}
