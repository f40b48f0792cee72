//! How work is cut: whole units of a fixed number of rows go to shards, so that rows do not depend on the number of shards.

use rzero_io::layout::Shard;
use std::ops::Range;

/// The rows of one shard: a contiguous run of whole units. Shards in order give all rows in order, for any number of shards;
/// with more shards than units some are empty.
#[must_use]
pub fn shard_rows(num_rows: u64, unit_rows: u64, shard: Shard) -> Range<u64> {
    let num_units = u128::from(num_rows.div_ceil(unit_rows));
    let first_row = |index: u32| {
        let unit = num_units * u128::from(index) / u128::from(shard.num);
        u64::try_from(unit * u128::from(unit_rows)).map_or(num_rows, |row| row.min(num_rows))
    };
    first_row(shard.index)..first_row(shard.index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shards_are_whole_units_and_cover_every_row_once(num_rows in 0u64..5000, unit_rows in 1u64..300, num in 1u32..40) {
            let mut next = 0;
            for index in 0..num {
                let rows = shard_rows(num_rows, unit_rows, Shard { index, num });
                prop_assert_eq!(rows.start, next);
                prop_assert!(rows.start.is_multiple_of(unit_rows) || rows.is_empty());
                next = rows.end;
            }
            prop_assert_eq!(next, num_rows);
        }
    }
}
