//! Parquet files that others wrote, with whatever columns they have, as rows of JSON.
//!
//! Nothing is known of such a file beforehand: lists, structs, dictionaries and large text all come as the JSON they mean. What it may unfold
//! to is bounded, and the decoder's panics become errors as in [`crate::reader`].

use crate::error::{IoError, Result};
use crate::reader::{decode, open};
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use serde_json::Value;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 256;

/// Opens a Parquet file whose rows, written as JSON, take at most `max_bytes` bytes.
///
/// # Errors
/// When the file is damaged or announces more than that; each batch has its own errors.
pub fn stream_json_rows(path: &Path, max_bytes: u64) -> Result<JsonRows> {
    let damaged = |problem| IoError::ForeignParquet { path: path.to_owned(), problem };
    let builder = open(path).map_err(as_foreign)?;
    let groups = builder.metadata().row_groups().iter();
    let num_bytes = groups.map(|group| u64::try_from(group.total_byte_size()).unwrap_or(u64::MAX)).fold(0, u64::saturating_add);
    if num_bytes > max_bytes {
        return Err(damaged(format!("it unfolds to {num_bytes} bytes, at most {max_bytes} are read")));
    }
    let builder = builder.with_batch_size(BATCH_ROWS);
    let batches = decode(|| builder.build().map_err(|error| error.to_string())).map_err(damaged)?;
    Ok(JsonRows { path: path.to_owned(), batches, left_bytes: max_bytes, has_failed: false })
}

/// Batches of rows, each an object of JSON.
pub struct JsonRows {
    path: PathBuf,
    batches: ParquetRecordBatchReader,
    left_bytes: u64,
    has_failed: bool,
}

impl JsonRows {
    fn next_rows(&mut self) -> std::result::Result<Option<Vec<Value>>, String> {
        let (batches, left_bytes) = (&mut self.batches, self.left_bytes);
        let lines = decode(|| {
            let Some(batch) = batches.next().transpose().map_err(|error| error.to_string())? else { return Ok(None) };
            let lines = BoundedText { bytes: Vec::new(), max_bytes: left_bytes };
            let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(lines);
            writer.write(&batch).and_then(|()| writer.finish()).map_err(|error| error.to_string())?;
            Ok(Some(writer.into_inner().bytes))
        })?;
        let Some(lines) = lines else { return Ok(None) };
        self.left_bytes -= lines.len() as u64;
        let rows = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        rows.map(|line| serde_json::from_slice(line).map_err(|error| error.to_string()))
            .collect::<std::result::Result<_, _>>()
            .map(Some)
    }
}

impl Iterator for JsonRows {
    type Item = Result<Vec<Value>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let rows = self.next_rows().map_err(|problem| IoError::ForeignParquet { path: self.path.clone(), problem });
        self.has_failed = rows.is_err();
        rows.transpose()
    }
}

/// A damaged file is not one that a stage could write anew.
pub(crate) fn as_foreign(error: IoError) -> IoError {
    match error {
        IoError::Parquet { path, problem } => IoError::ForeignParquet { path, problem },
        other => other,
    }
}

/// Text that refuses to grow beyond a limit.
struct BoundedText {
    bytes: Vec<u8>,
    max_bytes: u64,
}

impl Write for BoundedText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() as u64 + bytes.len() as u64 > self.max_bytes {
            return Err(io::Error::other("its rows take more bytes than are read"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
