//! Some columns of a table, piece by piece: for stages that stream tables which do not fit into memory.
//!
//! A piece is a row group. Pieces can be decoded in any order and on any thread; their own order is row order. What is checked is what the
//! readers of whole tables check: digests before anything is decoded, footers, columns, nulls, and the number of rows.

use crate::error::{IoError, Result};
use crate::reader::{check_columns, check_footer, damaged, decode};
use arrow::array::{Array, RecordBatch};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::file::statistics::Statistics;
use rzero_schema::table::{Table, TableError};
use std::fs::File;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

/// One row group of a table file, not yet decoded.
#[derive(Debug)]
pub struct Piece<T: Table> {
    path: Arc<Path>,
    metadata: ArrowReaderMetadata,
    columns: ProjectionMask,
    row_group: usize,
    first: u64,
    rows: PhantomData<T>,
}

/// The pieces of a table file, with the named columns of each; `first` is the number of rows before the file.
///
/// # Errors
/// When the file is damaged, or holds another table or version.
pub(crate) fn pieces<T: Table>(path: &Path, columns: &[&'static str], first: u64) -> Result<Vec<Piece<T>>> {
    let file = File::open(path).map_err(IoError::file("open", path))?;
    let metadata = decode(|| ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(|error| error.to_string()))
        .map_err(|problem| damaged(path, problem))?;
    let parquet = metadata.metadata();
    check_footer::<T>(path, parquet.file_metadata())?;
    check_columns::<T>(path, metadata.schema())?;
    let roots: Vec<usize> = columns
        .iter()
        .map(|column| {
            let missing = || TableError::MissingColumn { table: T::NAME, column };
            metadata.schema().index_of(column).map_err(|_| IoError::Columns { path: path.to_owned(), source: missing() })
        })
        .collect::<Result<_>>()?;
    let path: Arc<Path> = path.into();
    let mut first = first;
    let groups = parquet.row_groups().iter().enumerate();
    Ok(groups
        .map(|(row_group, group)| {
            let piece = Piece {
                path: Arc::clone(&path),
                metadata: metadata.clone(),
                columns: ProjectionMask::roots(parquet.file_metadata().schema_descr(), roots.iter().copied()),
                row_group,
                first,
                rows: PhantomData,
            };
            first += u64::try_from(group.num_rows()).unwrap_or(0);
            piece
        })
        .collect())
}

impl<T: Table> Piece<T> {
    /// Position of its first row in the table, over all files.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Its rows.
    #[must_use]
    pub fn num_rows(&self) -> u64 {
        u64::try_from(self.metadata.metadata().row_group(self.row_group).num_rows()).unwrap_or(0)
    }

    /// Least and greatest value of a column of row numbers, where the file's statistics say them.
    #[must_use]
    pub fn range(&self, column: &str) -> Option<RangeInclusive<u64>> {
        let group = self.metadata.metadata().row_group(self.row_group);
        let chunk = group.columns().iter().find(|chunk| chunk.column_path().string() == column)?;
        match chunk.statistics()? {
            // Unsigned numbers stand in the bits of signed ones.
            Statistics::Int64(bounds) => Some(bounds.min_opt()?.cast_unsigned()..=bounds.max_opt()?.cast_unsigned()),
            _ => None,
        }
    }

    /// Opens it, for `batch_rows` rows at a time.
    ///
    /// # Errors
    /// When the file cannot be opened or is damaged; each batch has its own errors.
    pub fn open(&self, batch_rows: usize) -> Result<PieceReader<T>> {
        // Each reader has a file of its own: handles that are copies of one another share their position.
        let file = File::open(&self.path).map_err(IoError::file("open", &self.path))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_row_groups(vec![self.row_group])
            .with_projection(self.columns.clone())
            .with_batch_size(batch_rows.max(1));
        let batches =
            decode(|| builder.build().map_err(|error| error.to_string())).map_err(|problem| damaged(&self.path, problem))?;
        Ok(PieceReader {
            path: Arc::clone(&self.path),
            batches: Some(batches),
            num_left: self.num_rows(),
            first: self.first,
            rows: PhantomData,
        })
    }
}

/// The batches of one piece.
pub struct PieceReader<T: Table> {
    path: Arc<Path>,
    batches: Option<ParquetRecordBatchReader>,
    num_left: u64,
    first: u64,
    rows: PhantomData<T>,
}

impl<T: Table> Iterator for PieceReader<T> {
    type Item = Result<Columns>;

    fn next(&mut self) -> Option<Self::Item> {
        let batches = self.batches.as_mut()?;
        match decode(|| batches.next().transpose().map_err(|error| error.to_string())) {
            Ok(Some(batch)) if batch.num_rows() as u64 <= self.num_left => {
                self.num_left -= batch.num_rows() as u64;
                let columns = Columns::new::<T>(&self.path, batch, self.first);
                self.first += columns.as_ref().map_or(0, |columns| columns.num_rows() as u64);
                Some(columns)
            }
            Ok(None) if self.num_left == 0 => None,
            Ok(_) => {
                self.batches = None;
                Some(Err(damaged(&self.path, "its row groups do not hold the rows that its metadata says")))
            }
            Err(problem) => {
                self.batches = None;
                Some(Err(damaged(&self.path, problem)))
            }
        }
    }
}

/// Some rows of some columns. No column that is declared without nulls holds one.
#[derive(Debug, Clone)]
pub struct Columns {
    path: Arc<Path>,
    table: &'static str,
    batch: RecordBatch,
    first: u64,
}

impl Columns {
    fn new<T: Table>(path: &Arc<Path>, batch: RecordBatch, first: u64) -> Result<Self> {
        for column in T::columns() {
            let Some(array) = batch.column_by_name(column.name) else { continue };
            if let Some(nulls) = array.nulls().filter(|nulls| !column.is_nullable && nulls.null_count() > 0) {
                let row = nulls.iter().position(|is_valid| !is_valid).unwrap_or(0);
                let source = TableError::UnexpectedNull { table: T::NAME, column: column.name, row };
                return Err(IoError::Columns { path: path.to_path_buf(), source });
            }
        }
        Ok(Self { path: Arc::clone(path), table: T::NAME, batch, first })
    }

    /// Rows.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// Position of the first row in the table, over all files.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Some of the rows, without copying them.
    #[must_use]
    pub fn slice(&self, start: usize, num_rows: usize) -> Self {
        Self { batch: self.batch.slice(start, num_rows), first: self.first + start as u64, ..self.clone() }
    }

    /// A column as an array of its declared type.
    ///
    /// # Errors
    /// When it was not asked for, or its declared type is another one.
    pub fn get<A: Array + 'static>(&self, column: &'static str) -> Result<&A> {
        let array = self.batch.column_by_name(column).and_then(|array| array.as_any().downcast_ref::<A>());
        let missing = TableError::MissingColumn { table: self.table, column };
        array.ok_or_else(|| IoError::Columns { path: self.path.to_path_buf(), source: missing })
    }

    /// The rows as Arrow holds them.
    #[must_use]
    pub fn batch(&self) -> &RecordBatch {
        &self.batch
    }
}
