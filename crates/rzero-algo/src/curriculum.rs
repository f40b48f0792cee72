//! Which questions the Solver trains on, and in what order: the gates of the filter, and the rows of each step.
//!
//! The filter stage asks these gates as one query over a table. The functions here ask the same of one row in plain Rust; a
//! test holds the two against each other.

use crate::seed::{StreamKey, permutation, random_stream};
use rzero_schema::vocab::DropReason;

/// Room for rounding at the edges of a band, so that 0.6 computed as 6 / 10 lies in a band that ends at 0.6.
pub const BAND_SLACK: f64 = 1e-9;

/// One version of the numbers that the gates compare with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// Version, recorded with every row.
    pub version: u32,
    /// Least vote share kept.
    pub low: f64,
    /// Greatest vote share kept.
    pub high: f64,
    /// Least margin kept.
    pub min_margin: f64,
}

/// The first gate that refuses a candidate, in the order of [`DropReason`]; nothing where it is kept.
///
/// The band is inclusive at both ends, with [`BAND_SLACK`] to spare; the margin as well. A share or margin that is not a number
/// is refused.
#[must_use]
pub fn gate(
    status_ok: bool,
    is_duplicate: bool,
    has_label: bool,
    is_disagreed: bool,
    vote_share: f64,
    margin: f64,
    gate: &Gate,
) -> Option<DropReason> {
    let reaches = |value: f64, bound: f64| value >= bound - BAND_SLACK;
    if !status_ok {
        Some(DropReason::Malformed)
    } else if is_duplicate {
        Some(DropReason::Duplicate)
    } else if !has_label {
        Some(DropReason::NoLabel)
    } else if is_disagreed {
        Some(DropReason::Disagreement)
    } else if !reaches(vote_share, gate.low) {
        Some(DropReason::TooHard)
    } else if !reaches(gate.high, vote_share) {
        Some(DropReason::TooEasy)
    } else if !reaches(margin, gate.min_margin) {
        Some(DropReason::NarrowMargin)
    } else {
        None
    }
}

/// Curriculum rows of a training step, counted from 1.
///
/// Epochs of independently shuffled rows are laid end to end, and step s takes positions `(s - 1) * batch .. s * batch`: every row
/// is used once before any is used twice, and a step can be computed without the steps before it. A batch larger than the
/// curriculum runs on into the next epoch. The key's step, row and sample are replaced, so that all steps see the same epochs. Empty
/// where there is nothing to train on, or for step 0.
#[must_use]
pub fn step_batch(num_kept: usize, batch: usize, step: u32, key: &StreamKey) -> Vec<usize> {
    let mut rows = Vec::new();
    if num_kept == 0 || step == 0 {
        return rows;
    }
    let start = u128::from(step - 1) * batch as u128;
    let mut epoch = start / num_kept as u128;
    let mut offset = (start % num_kept as u128) as usize;
    while rows.len() < batch {
        // The epoch's number stands in the key's row, the widest of its coordinates.
        let epoch_key = StreamKey { step: 0, sample: 0, row: epoch as u64, ..*key };
        let order = permutation(num_kept, &mut random_stream("curriculum epoch", &epoch_key));
        let taken = (batch - rows.len()).min(num_kept - offset);
        rows.extend_from_slice(&order[offset..offset + taken]);
        epoch += 1;
        offset = 0;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rzero_schema::vocab::Phase;

    const BAND: Gate = Gate { version: 1, low: 0.3, high: 0.6, min_margin: 0.2 };
    const KEY: StreamKey = StreamKey { run_seed: 1, iteration: 1, phase: Phase::Solver, step: 9, row: 0, sample: 0 };

    #[test]
    fn gates_are_asked_in_order_and_the_band_is_inclusive() {
        let decide = |share, margin| gate(true, false, true, false, share, margin, &BAND);
        assert_eq!(gate(false, true, false, true, 0.5, 0.5, &BAND), Some(DropReason::Malformed));
        assert_eq!(gate(true, true, false, true, 0.5, 0.5, &BAND), Some(DropReason::Duplicate));
        assert_eq!(gate(true, false, false, true, 0.0, 0.0, &BAND), Some(DropReason::NoLabel));
        assert_eq!(gate(true, false, true, true, 0.0, 0.0, &BAND), Some(DropReason::Disagreement));
        assert_eq!(decide(0.2, 0.2), Some(DropReason::TooHard));
        assert_eq!(decide(0.7, 0.5), Some(DropReason::TooEasy));
        assert_eq!(decide(0.5, 0.1), Some(DropReason::NarrowMargin));
        assert_eq!(decide(0.5, f64::NAN), Some(DropReason::NarrowMargin));
        assert_eq!(decide(f64::NAN, 0.5), Some(DropReason::TooHard));
        // Shares as a vote computes them; 0.1 + 0.2 and 0.1 * 6 are a little past the edge.
        for kept in [3.0 / 10.0, 6.0 / 10.0, 0.1 + 0.2, 0.1 * 6.0] {
            assert_eq!(decide(kept, 0.2), None, "{kept}");
        }
    }

    #[test]
    fn nothing_kept_gives_nothing() {
        assert!(step_batch(0, 32, 1, &KEY).is_empty());
        assert!(step_batch(5, 0, 1, &KEY).is_empty());
        assert!(step_batch(5, 4, 0, &KEY).is_empty());
    }

    #[test]
    fn the_steps_own_number_in_the_key_changes_nothing() {
        assert_eq!(step_batch(50, 8, 3, &KEY), step_batch(50, 8, 3, &StreamKey { step: 3, sample: 1, ..KEY }));
        assert_ne!(step_batch(50, 8, 3, &KEY), step_batch(50, 8, 3, &StreamKey { iteration: 2, ..KEY }));
    }

    proptest! {
        #[test]
        fn steps_use_every_row_evenly(num_kept in 1_usize..30, batch in 1_usize..40, num_steps in 1_u32..8) {
            let used: Vec<usize> = (1..=num_steps).flat_map(|step| step_batch(num_kept, batch, step, &KEY)).collect();
            prop_assert_eq!(used.len(), batch * num_steps as usize);
            for epoch in used.chunks(num_kept) {
                let mut rows = epoch.to_vec();
                rows.sort_unstable();
                rows.dedup();
                prop_assert_eq!(rows.len(), epoch.len());
                prop_assert!(rows.iter().all(|row| *row < num_kept));
            }
        }
    }
}
