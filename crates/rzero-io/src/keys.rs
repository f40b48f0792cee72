//! Whether the keys of a table name their rows: streamed, 16 bytes held for each row.

use crate::error::{IoError, Result};
use crate::scan::Piece;
use crate::set::StageOutput;
use arrow::row::{RowConverter, SortField};
use rayon::prelude::*;
use rzero_schema::table::Table;

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 8192;

/// The first key that stands in two rows of a table, with the later of the two rows, counted from 0; `None` where there is none.
///
/// # Errors
/// When a file of the table is damaged.
pub fn repeated_key<T: Table>(output: &StageOutput) -> Result<Option<(u64, String)>> {
    let pieces = output.scan::<T>(T::KEY)?;
    let digests: Vec<Vec<u128>> = pieces.par_iter().map(digests).collect::<Result<_>>()?;
    let mut sorted: Vec<u128> = digests.iter().flatten().copied().collect();
    sorted.par_sort_unstable();
    let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]) else { return Ok(None) };
    let mut rows = (0u64..).zip(digests.iter().flatten()).filter(|(_, digest)| **digest == twice).map(|(row, _)| row);
    let row = rows.nth(1).unwrap_or_default();
    Ok(Some((row, T::KEY.join(", "))))
}

fn digests<T: Table>(piece: &Piece<T>) -> Result<Vec<u128>> {
    let mut digests = Vec::new();
    for columns in piece.open(BATCH_ROWS)? {
        let columns = columns?;
        let batch = columns.batch();
        let failed = |error: arrow::error::ArrowError| IoError::Encode {
            path: T::NAME.into(),
            table: T::NAME,
            problem: error.to_string(),
        };
        let fields = batch.schema().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let rows = RowConverter::new(fields).and_then(|converter| converter.convert_columns(batch.columns())).map_err(failed)?;
        digests.extend(rows.iter().map(|row| {
            let digest = blake3::hash(row.as_ref());
            u128::from_le_bytes(std::array::from_fn(|at| digest.as_bytes()[at]))
        }));
    }
    Ok(digests)
}
