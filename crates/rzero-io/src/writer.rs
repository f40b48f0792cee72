//! Rows to Parquet. The bytes follow from the rows and the footer alone: no clock, no host, no dependence on how rows were handed in.

use crate::atomic::AtomicFile;
use crate::error::{IoError, Result};
use crate::layout::Shard;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use rzero_schema::ids::Place;
use rzero_schema::table::Table;
use rzero_schema::vocab::Stage;
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
    parquet: ArrowWriter<AtomicFile>,
    waiting: Vec<T>,
    num_rows: u64,
}

/// Rows that are encoded at a time: a fixed number, so that the bytes do not depend on how rows arrive.
const BATCH_ROWS: usize = 1024;
const ROW_GROUP_ROWS: usize = 64 * 1024;
const ROW_GROUP_BYTES: usize = 32 << 20;

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
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_key_value_metadata(Some(key_values::<T>(footer)))
            .build();
        let parquet = ArrowWriter::try_new(AtomicFile::create(path)?, T::arrow_schema(), Some(properties))
            .map_err(|error| encode::<T>(path, error))?;
        Ok(Self { path: path.to_owned(), parquet, waiting: Vec::new(), num_rows: 0 })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// When they cannot be encoded or written.
    pub fn write(&mut self, rows: &[T]) -> Result<()> {
        self.waiting.extend_from_slice(rows);
        let num_whole = self.waiting.len() / BATCH_ROWS * BATCH_ROWS;
        self.encode_first(num_whole)
    }

    /// Publishes the file.
    ///
    /// # Errors
    /// When anything could not be made durable; nothing appears then.
    pub fn finish(mut self) -> Result<WrittenTable> {
        self.encode_first(self.waiting.len())?;
        let file = self.parquet.into_inner().map_err(|error| encode::<T>(&self.path, error))?;
        let written = file.finish()?;
        Ok(WrittenTable { path: self.path, digest: written.digest, num_bytes: written.num_bytes, num_rows: self.num_rows })
    }

    fn encode_first(&mut self, num_rows: usize) -> Result<()> {
        for rows in self.waiting[..num_rows].chunks(BATCH_ROWS) {
            self.parquet.write(&T::to_batch(rows)).map_err(|error| encode::<T>(&self.path, error))?;
        }
        self.waiting.drain(..num_rows);
        self.num_rows += num_rows as u64;
        Ok(())
    }
}

fn encode<T: Table>(path: &Path, error: parquet::errors::ParquetError) -> IoError {
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
