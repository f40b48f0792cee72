//! Where two tables of one kind differ first, as people read it.

use arrow::array::{Array, RecordBatch};
use arrow::util::display::array_value_to_string;
use rzero_io::error::Result;
use rzero_io::reader::stream_table;
use rzero_schema::table::Table;
use std::path::Path;

/// Rows that are compared at a time.
const BATCH_ROWS: usize = 8192;

/// Longest value that is shown, in characters.
const SHOWN: usize = 60;

/// Where rows differ from those that were expected; `None` where they do not.
pub(super) fn rows<T: Table>(expected: &[T], actual: &[T]) -> Option<String> {
    rows_from(0, expected, actual)
}

/// The same of rows that begin with row `first` of their table.
pub(super) fn rows_from<T: Table>(first: usize, expected: &[T], actual: &[T]) -> Option<String> {
    let part = |rows: &[T], start: usize| T::to_batch(&rows[start.min(rows.len())..(start + BATCH_ROWS).min(rows.len())]);
    let mut starts = (0..expected.len().max(actual.len())).step_by(BATCH_ROWS);
    starts.find_map(|start| batches::<T>(&part(expected, start), &part(actual, start), first + start))
}

/// Where a file differs from the one that was expected.
///
/// # Errors
/// When one of them cannot be read.
pub(super) fn files<T: Table>(expected: &Path, actual: &Path) -> Result<Option<String>> {
    let (mut expected, mut actual) = (stream_table::<T>(expected, BATCH_ROWS)?, stream_table::<T>(actual, BATCH_ROWS)?);
    let mut first = 0;
    loop {
        let (one, other) = (expected.next().transpose()?, actual.next().transpose()?);
        if one.is_none() && other.is_none() {
            return Ok(None);
        }
        let batch = |rows: Option<Vec<T>>| T::to_batch(&rows.unwrap_or_default());
        if let Some(difference) = batches::<T>(&batch(one), &batch(other), first) {
            return Ok(Some(difference));
        }
        first += BATCH_ROWS;
    }
}

fn batches<T: Table>(expected: &RecordBatch, actual: &RecordBatch, first: usize) -> Option<String> {
    let common = expected.num_rows().min(actual.num_rows());
    let differs = |row: usize, column: usize| {
        expected.column(column).slice(row, 1).to_data() != actual.column(column).slice(row, 1).to_data()
    };
    let columns = 0..expected.num_columns();
    let unequal: Vec<usize> = columns
        .filter(|at| expected.column(*at).slice(0, common).to_data() != actual.column(*at).slice(0, common).to_data())
        .collect();
    let at = (0..common).find_map(|row| unequal.iter().copied().find(|column| differs(row, *column)).map(|column| (row, column)));
    match at {
        Some((row, column)) => {
            let name = expected.schema().field(column).name().clone();
            let (said, follows) = (shown(actual.column(column), row), shown(expected.column(column), row));
            let key = T::KEY
                .iter()
                .filter_map(|key| expected.column_by_name(key))
                .map(|key| shown(key, row))
                .collect::<Vec<_>>()
                .join(", ");
            Some(format!("row {} ({key}) says {name} {said}, which follows as {follows}", first + row))
        }
        None if expected.num_rows() != actual.num_rows() => {
            let (actual, expected) = (first + actual.num_rows(), first + expected.num_rows());
            Some(
                format!("has {actual} rows where {expected} or more follow")
                    .replace(" or more", if actual < expected { " or more" } else { "" }),
            )
        }
        None => None,
    }
}

fn shown(column: &dyn Array, row: usize) -> String {
    if column.is_null(row) {
        return "nothing".to_owned();
    }
    let text = array_value_to_string(column, row).unwrap_or_else(|error| error.to_string());
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{:?}...", &text[..at]),
        None if text.parse::<f64>().is_ok() => text,
        None => format!("{text:?}"),
    }
}
