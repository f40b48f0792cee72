//! Parquet to rows. The footer, the columns and every null are checked before a row is believed.
//!
//! The decoder asserts some things that a damaged file can break. Its panics are caught here and become errors that name the file.

use crate::error::{IoError, Result};
use crate::rows::as_foreign;
use arrow::array::RecordBatch;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::Schema;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::FileMetaData;
use rzero_schema::table::{Table, TableError};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads a whole table file.
///
/// # Errors
/// When the file is damaged, or holds another table or version.
pub fn read_table<T: Table>(path: &Path) -> Result<Vec<T>> {
    collect(stream_table(path, WHOLE_READ_ROWS)?)
}

/// Reads a table file `batch_rows` rows at a time.
///
/// # Errors
/// When the file is damaged, or holds another table or version; each batch has its own errors.
pub fn stream_table<T: Table>(path: &Path, batch_rows: usize) -> Result<TableStream<T>> {
    let builder = open(path)?;
    check_footer::<T>(path, builder.metadata().file_metadata())?;
    check_columns::<T>(path, builder.schema())?;
    TableStream::new(path, builder, batch_rows, Origin::Ours)
}

/// Reads a Parquet file that others wrote: no footer is asked for, further columns are passed over, and a column of a kindred
/// type (64-bit integers for 32-bit ones, large text for text) is converted, with an error where a value does not fit.
///
/// # Errors
/// When the file is damaged, lacks a column, or holds a value that cannot be converted.
pub fn read_foreign_table<T: Table>(path: &Path) -> Result<Vec<T>> {
    let rows = open(path).and_then(|builder| collect(TableStream::new(path, builder, WHOLE_READ_ROWS, Origin::Foreign)?));
    rows.map_err(as_foreign)
}

/// The `rzero.*` entries of a Parquet footer, by key: what a stray file says of itself.
///
/// # Errors
/// When the file is no whole Parquet file.
pub fn read_footer(path: &Path) -> Result<BTreeMap<String, String>> {
    Ok(footer_entries(open(path)?.metadata().file_metadata()))
}

/// The number of rows that a table file's footer promises.
///
/// # Errors
/// When the file is damaged, or holds another table or version.
pub fn num_rows<T: Table>(path: &Path) -> Result<u64> {
    let builder = open(path)?;
    check_footer::<T>(path, builder.metadata().file_metadata())?;
    Ok(u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0))
}

/// The same for a file whose columns are checked as well.
///
/// # Errors
/// When the file is damaged, holds another table or version, or has other columns.
pub fn checked_num_rows<T: Table>(path: &Path) -> Result<u64> {
    let builder = open(path)?;
    check_footer::<T>(path, builder.metadata().file_metadata())?;
    check_columns::<T>(path, builder.schema())?;
    Ok(u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0))
}

/// Whether this thread is decoding a file, so that a panic now is caught and becomes an error; panic hooks may stay silent then.
#[must_use]
pub fn is_decoding() -> bool {
    IS_DECODING.get()
}

thread_local! {
    static IS_DECODING: Cell<bool> = const { Cell::new(false) };
}

/// Calls the decoder; a panic becomes its error text.
pub(crate) fn decode<R>(call: impl FnOnce() -> std::result::Result<R, String>) -> std::result::Result<R, String> {
    IS_DECODING.set(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    IS_DECODING.set(false);
    result.unwrap_or_else(|_| Err("its metadata contradicts itself".to_owned()))
}

const WHOLE_READ_ROWS: usize = 4096;

#[derive(Clone, Copy)]
enum Origin {
    Ours,
    Foreign,
}

/// Batches of rows of one table file.
pub struct TableStream<T: Table> {
    path: PathBuf,
    batches: ParquetRecordBatchReader,
    origin: Origin,
    has_failed: bool,
    rows: PhantomData<T>,
}

impl<T: Table> TableStream<T> {
    fn new(path: &Path, builder: ParquetRecordBatchReaderBuilder<File>, batch_rows: usize, origin: Origin) -> Result<Self> {
        let builder = builder.with_batch_size(batch_rows.max(1));
        let batches = decode(|| builder.build().map_err(|error| error.to_string())).map_err(|problem| damaged(path, problem))?;
        Ok(Self { path: path.to_owned(), batches, origin, has_failed: false, rows: PhantomData })
    }

    fn rows_of(&self, batch: &RecordBatch) -> Result<Vec<T>> {
        let converted;
        let batch = match self.origin {
            Origin::Ours => batch,
            Origin::Foreign => {
                converted = convert::<T>(&self.path, batch)?;
                &converted
            }
        };
        T::from_batch(batch).map_err(|source| IoError::Columns { path: self.path.clone(), source })
    }
}

impl<T: Table> Iterator for TableStream<T> {
    type Item = Result<Vec<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let batches = &mut self.batches;
        let rows = match decode(|| batches.next().transpose().map_err(|error| error.to_string())) {
            Ok(batch) => self.rows_of(&batch?),
            Err(problem) => Err(damaged(&self.path, problem)),
        };
        self.has_failed = rows.is_err();
        Some(rows)
    }
}

fn collect<T: Table>(stream: TableStream<T>) -> Result<Vec<T>> {
    let mut rows = Vec::new();
    for batch in stream {
        rows.append(&mut batch?);
    }
    Ok(rows)
}

pub(crate) fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let file = File::open(path).map_err(IoError::file("open", path))?;
    decode(|| ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string()))
        .map_err(|problem| damaged(path, problem))
}

pub(crate) fn damaged(path: &Path, error: impl std::fmt::Display) -> IoError {
    IoError::Parquet { path: path.to_owned(), problem: error.to_string() }
}

fn footer_entries(metadata: &FileMetaData) -> BTreeMap<String, String> {
    let entries = metadata.key_value_metadata().into_iter().flatten();
    entries
        .filter(|entry| entry.key.starts_with("rzero."))
        .map(|entry| (entry.key.clone(), entry.value.clone().unwrap_or_default()))
        .collect()
}

pub(crate) fn check_footer<T: Table>(path: &Path, metadata: &FileMetaData) -> Result<()> {
    let entries = footer_entries(metadata);
    let Some(table) = entries.get("rzero.table") else {
        return Err(IoError::NotOurs { path: path.to_owned(), expected: T::NAME });
    };
    if table != T::NAME {
        return Err(IoError::WrongTable { path: path.to_owned(), expected: T::NAME, actual: table.clone() });
    }
    let version = entries.get("rzero.version").cloned().unwrap_or_default();
    if version != T::VERSION.to_string() {
        return Err(IoError::WrongVersion { path: path.to_owned(), table: T::NAME, expected: T::VERSION, actual: version });
    }
    Ok(())
}

pub(crate) fn check_columns<T: Table>(path: &Path, schema: &Schema) -> Result<()> {
    let columns = T::columns();
    for column in &columns {
        let refuse = |source| IoError::Columns { path: path.to_owned(), source };
        let field = schema
            .field_with_name(column.name)
            .map_err(|_| refuse(TableError::MissingColumn { table: T::NAME, column: column.name }))?;
        if !field.data_type().equals_datatype(&column.data_type) {
            let (actual, expected) = (field.data_type().to_string(), column.data_type.to_string());
            return Err(refuse(TableError::WrongType { table: T::NAME, column: column.name, actual, expected }));
        }
    }
    match schema.fields().iter().find(|field| columns.iter().all(|column| column.name != field.name())) {
        None => Ok(()),
        Some(field) => Err(IoError::UnknownColumn { path: path.to_owned(), table: T::NAME, column: field.name().clone() }),
    }
}

/// A batch with the declared columns in the declared types, from one that others wrote.
fn convert<T: Table>(path: &Path, batch: &RecordBatch) -> Result<RecordBatch> {
    let refuse = |source| IoError::Columns { path: path.to_owned(), source };
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let mut arrays = Vec::new();
    for column in T::columns() {
        let array = batch
            .column_by_name(column.name)
            .ok_or_else(|| refuse(TableError::MissingColumn { table: T::NAME, column: column.name }))?;
        let cast = cast_with_options(array, &column.data_type, &strict).map_err(|error| {
            refuse(TableError::WrongType {
                table: T::NAME,
                column: column.name,
                actual: format!("{} ({error})", array.data_type()),
                expected: column.data_type.to_string(),
            })
        })?;
        if let Some(nulls) = cast.nulls().filter(|nulls| !column.is_nullable && nulls.null_count() > 0) {
            let row = nulls.iter().position(|is_valid| !is_valid).unwrap_or(0);
            return Err(refuse(TableError::UnexpectedNull { table: T::NAME, column: column.name, row }));
        }
        arrays.push(cast);
    }
    RecordBatch::try_new(Arc::clone(&T::arrow_schema()), arrays).map_err(|error| damaged(path, error))
}
