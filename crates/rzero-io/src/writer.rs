//! Rows to Parquet. The bytes follow from the rows and the footer alone: no clock, no host, no dependence on how rows were handed in or on
//! the number of threads.
//!
//! Rows wait as Arrow columns until a row group is whole; then its columns are encoded side by side, each by one thread, and written one
//! after the other. What waits is bounded by [`ROW_GROUP_ROWS`] and [`ROW_GROUP_BYTES`].

use crate::atomic::{AtomicFile, FileDigest, Unsynced};
use crate::error::{IoError, Result};
use crate::layout::Shard;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use rayon::prelude::*;
use rzero_schema::ids::Place;
use rzero_schema::table::Table;
use rzero_schema::vocab::Stage;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

/// What a stray file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FooterMetadata {
    /// Stage that writes it.
    pub stage: Stage,
    /// Where in the run.
    pub place: Place,
    /// Which shard.
    pub shard: Shard,
    /// Seed of the run.
    pub seed: u64,
    /// Digest of the run's profile.
    pub profile_digest: String,
}

/// A finished table file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenTable {
    /// Where it lies.
    pub path: PathBuf,
    /// blake3 of its bytes, hexadecimal.
    pub digest: String,
    /// Its size.
    pub num_bytes: u64,
    /// Its rows.
    pub num_rows: u64,
}

/// Writes one table file; nothing appears under its name before [`TableWriter::finish`].
pub struct TableWriter<T: Table> {
    path: PathBuf,
    schema: SchemaRef,
    parquet: SerializedFileWriter<AtomicFile>,
    encoders: ArrowRowGroupWriterFactory,
    /// Fewer rows than a batch.
    waiting: Vec<RecordBatch>,
    /// Whole batches of the row group to come.
    group: Vec<RecordBatch>,
    group_bytes: usize,
    num_rows: u64,
    rows: PhantomData<T>,
}

/// Rows that are encoded at a time: a fixed number, so that the bytes do not depend on how rows arrive.
const BATCH_ROWS: usize = 1024;
/// Most rows of a row group.
pub const ROW_GROUP_ROWS: usize = 64 * 1024;
/// A row group ends with the batch that brings its values to this size, before they are encoded. So a reader knows what it unfolds to.
pub const ROW_GROUP_BYTES: usize = 64 << 20;

impl<T: Table> TableWriter<T> {
    /// Opens the table file.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path, footer: &FooterMetadata) -> Result<Self> {
        let level = ZstdLevel::try_new(1).map_err(|error| encode::<T>(path, error))?;
        let properties = WriterProperties::builder()
            .set_created_by("rzero".to_owned())
            .set_compression(Compression::ZSTD(level))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_key_value_metadata(Some(key_values::<T>(footer)))
            .build();
        let schema = T::arrow_schema();
        let (parquet, encoders) = ArrowWriter::try_new(AtomicFile::create(path)?, SchemaRef::clone(&schema), Some(properties))
            .and_then(ArrowWriter::into_serialized_writer)
            .map_err(|error| encode::<T>(path, error))?;
        Ok(Self {
            path: path.to_owned(),
            schema,
            parquet,
            encoders,
            waiting: Vec::new(),
            group: Vec::new(),
            group_bytes: 0,
            num_rows: 0,
            rows: PhantomData,
        })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// When they cannot be encoded or written.
    pub fn write(&mut self, rows: &[T]) -> Result<()> {
        rows.chunks(BATCH_ROWS).try_for_each(|rows| self.add(&T::to_batch(rows)))
    }

    /// Adds rows that are columns already: those of the table, in its order.
    ///
    /// # Errors
    /// When they are not the table's columns, or cannot be encoded or written.
    pub fn write_columns(&mut self, columns: &RecordBatch) -> Result<()> {
        let batch = RecordBatch::try_new(SchemaRef::clone(&self.schema), columns.columns().to_vec())
            .map_err(|error| encode::<T>(&self.path, error))?;
        self.add(&batch)
    }

    /// Publishes the file.
    ///
    /// # Errors
    /// When anything could not be made durable; nothing appears then.
    pub fn finish(self) -> Result<WrittenTable> {
        self.finish_with(AtomicFile::finish)
    }

    /// Gives the file its name, and leaves to `unsynced` that it becomes durable.
    ///
    /// # Errors
    /// When it could not be written; nothing appears then.
    pub fn finish_into(self, unsynced: &mut Unsynced) -> Result<WrittenTable> {
        self.finish_with(|file| file.finish_into(unsynced))
    }

    fn finish_with(mut self, finish: impl FnOnce(AtomicFile) -> Result<FileDigest>) -> Result<WrittenTable> {
        self.end_batch()?;
        self.end_group()?;
        let file = self.parquet.into_inner().map_err(|error| encode::<T>(&self.path, error))?;
        let written = finish(file)?;
        Ok(WrittenTable { path: self.path, digest: written.digest, num_bytes: written.num_bytes, num_rows: self.num_rows })
    }

    fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        self.num_rows += rows.num_rows() as u64;
        let mut start = 0;
        while start < rows.num_rows() {
            let num_waiting: usize = self.waiting.iter().map(RecordBatch::num_rows).sum();
            let taken = (BATCH_ROWS - num_waiting).min(rows.num_rows() - start);
            self.waiting.push(rows.slice(start, taken));
            start += taken;
            if num_waiting + taken == BATCH_ROWS {
                self.end_batch()?;
            }
        }
        Ok(())
    }

    /// Makes one batch of what waits.
    fn end_batch(&mut self) -> Result<()> {
        let batch = match self.waiting.as_slice() {
            [] => return Ok(()),
            [batch] => batch.clone(),
            parts => concat_batches(&self.schema, parts).map_err(|error| encode::<T>(&self.path, error))?,
        };
        self.waiting.clear();
        self.group_bytes += batch.columns().iter().map(|column| num_bytes(column)).sum::<usize>();
        self.group.push(batch);
        if self.group.len() * BATCH_ROWS >= ROW_GROUP_ROWS || self.group_bytes >= ROW_GROUP_BYTES {
            self.end_group()?;
        }
        Ok(())
    }

    /// Encodes and writes the row group that waits.
    fn end_group(&mut self) -> Result<()> {
        let group = std::mem::take(&mut self.group);
        self.group_bytes = 0;
        if group.is_empty() {
            return Ok(());
        }
        self.write_group(&group).map_err(|error| encode::<T>(&self.path, error))
    }

    fn write_group(&mut self, group: &[RecordBatch]) -> std::result::Result<(), ParquetError> {
        let encoders = self.encoders.create_column_writers(self.parquet.flushed_row_groups().len())?;
        let fields = self.schema.fields();
        if encoders.len() != fields.len() {
            return Err(ParquetError::NYI("a column of several leaves".to_owned()));
        }
        let encoded: Vec<ArrowColumnChunk> = encoders
            .into_par_iter()
            .enumerate()
            .with_max_len(1)
            .map(|(column, mut encoder)| {
                for batch in group {
                    for leaf in compute_leaves(&fields[column], batch.column(column))? {
                        encoder.write(&leaf)?;
                    }
                }
                encoder.close()
            })
            .collect::<std::result::Result<_, _>>()?;
        let mut written = self.parquet.next_row_group()?;
        for column in encoded {
            column.append_to_row_group(&mut written)?;
        }
        written.close().map(drop)
    }
}

/// What the values of a column take: of texts and lists also their lengths. Follows from the values alone.
fn num_bytes(column: &dyn Array) -> usize {
    const LENGTH: usize = 4;
    match column.data_type() {
        DataType::Utf8 => {
            let offsets = column.as_string::<i32>().value_offsets();
            usize::try_from(offsets[column.len()] - offsets[0]).unwrap_or(0) + LENGTH * column.len()
        }
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            let offsets = list.value_offsets();
            let bounds = [offsets[0], offsets[list.len()]].map(|offset| usize::try_from(offset).unwrap_or(0));
            num_bytes(&list.values().slice(bounds[0], bounds[1] - bounds[0])) + LENGTH * list.len()
        }
        other => other.primitive_width().unwrap_or(1) * column.len(),
    }
}

fn encode<T: Table>(path: &Path, error: impl std::fmt::Display) -> IoError {
    IoError::Encode { path: path.to_owned(), table: T::NAME, problem: error.to_string() }
}

fn key_values<T: Table>(footer: &FooterMetadata) -> Vec<KeyValue> {
    [
        ("rzero.table", T::NAME.to_owned()),
        ("rzero.version", T::VERSION.to_string()),
        ("rzero.stage", footer.stage.to_string()),
        ("rzero.place", footer.place.to_string()),
        ("rzero.shard", footer.shard.to_string()),
        ("rzero.seed", footer.seed.to_string()),
        ("rzero.profile_digest", footer.profile_digest.clone()),
    ]
    .into_iter()
    .map(|(key, value)| KeyValue::new(key.to_owned(), value))
    .collect()
}
