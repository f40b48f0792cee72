//! How a table is declared: one Rust struct a row, from which the Arrow schema, the conversion both ways and the documents follow.
//!
//! `table!` takes the struct with its docs and gives it [`Table`]. A column's Rust type says its Arrow type through [`Cell`];
//! `Option` makes it nullable. There is no other place where a column is named.

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, ListArray, StringArray, UInt32Array,
    UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use std::sync::Arc;

/// Why a record batch is not a batch of the expected table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A column is missing.
    #[error("table `{table}` lacks column `{column}`")]
    MissingColumn {
        /// Table that was expected.
        table: &'static str,
        /// Column that is not there.
        column: &'static str,
    },
    /// A column has another type.
    #[error("column `{column}` of table `{table}` has type {actual}, expected {expected}")]
    WrongType {
        /// Table that was expected.
        table: &'static str,
        /// Column in question.
        column: &'static str,
        /// Type found.
        actual: String,
        /// Type declared.
        expected: String,
    },
    /// A null where none is allowed.
    #[error("column `{column}` of table `{table}` holds a null in row {row}")]
    UnexpectedNull {
        /// Table that was expected.
        table: &'static str,
        /// Column in question.
        column: &'static str,
        /// Row within the batch.
        row: usize,
    },
}

/// One column as `schemas/` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name, snake_case, unit last.
    pub name: &'static str,
    /// What it holds.
    pub doc: String,
    /// Arrow type.
    pub data_type: DataType,
    /// Whether nulls are allowed.
    pub is_nullable: bool,
}

/// A table: a row type that knows its columns.
pub trait Table: Sized + Clone + Send + Sync {
    /// Table name, as in `schemas/<name>.json` and in file footers.
    const NAME: &'static str;
    /// Version, raised with every change of columns.
    const VERSION: u32;
    /// Columns that together name a row.
    const KEY: &'static [&'static str];

    /// What the table is for.
    fn doc() -> String;
    /// Columns in order.
    fn columns() -> Vec<Column>;
    /// Rows to a record batch.
    fn to_batch(rows: &[Self]) -> RecordBatch;
    /// A record batch to rows, checking names, types and nulls.
    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, TableError>;

    /// The Arrow schema, without metadata.
    fn arrow_schema() -> Arc<Schema> {
        Arc::new(Schema::new(
            Self::columns()
                .into_iter()
                .map(|column| Field::new(column.name, column.data_type, column.is_nullable))
                .collect::<Vec<_>>(),
        ))
    }
}

/// A Rust type that can stand in a column.
pub trait Cell: Sized {
    /// Whether nulls are allowed.
    const IS_NULLABLE: bool;
    /// Arrow type.
    fn data_type() -> DataType;
    /// Values to an array.
    fn to_array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef
    where
        Self: 'a;
    /// An array of the right type to values; the error is the row of an unexpected null.
    fn from_array(array: &dyn Array) -> Result<Vec<Self>, usize>;
}

fn first_null(array: &dyn Array) -> Result<(), usize> {
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => Ok(()),
        Some(nulls) => Err(nulls.iter().position(|is_valid| !is_valid).unwrap_or(0)),
    }
}

fn downcast<A: 'static>(array: &dyn Array) -> &A {
    array.as_any().downcast_ref::<A>().expect("the column's type was compared with its declaration")
}

macro_rules! primitive_cell {
    ($rust:ty, $array:ty, $data_type:expr) => {
        impl Cell for $rust {
            const IS_NULLABLE: bool = false;
            fn data_type() -> DataType {
                $data_type
            }
            fn to_array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
                Arc::new(<$array>::from(values.copied().collect::<Vec<_>>()))
            }
            fn from_array(array: &dyn Array) -> Result<Vec<Self>, usize> {
                first_null(array)?;
                let array = downcast::<$array>(array);
                Ok((0..array.len()).map(|row| array.value(row)).collect())
            }
        }

        impl Cell for Option<$rust> {
            const IS_NULLABLE: bool = true;
            fn data_type() -> DataType {
                $data_type
            }
            fn to_array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
                Arc::new(<$array>::from(values.copied().collect::<Vec<_>>()))
            }
            fn from_array(array: &dyn Array) -> Result<Vec<Self>, usize> {
                let array = downcast::<$array>(array);
                Ok((0..array.len()).map(|row| array.is_valid(row).then(|| array.value(row))).collect())
            }
        }

        impl Cell for Vec<$rust> {
            const IS_NULLABLE: bool = false;
            fn data_type() -> DataType {
                DataType::List(Arc::new(Field::new("item", $data_type, false)))
            }
            fn to_array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
                let (mut flat, mut lengths) = (Vec::new(), Vec::new());
                for value in values {
                    flat.extend_from_slice(value);
                    lengths.push(value.len());
                }
                list_array($data_type, false, Arc::new(<$array>::from(flat)), lengths)
            }
            fn from_array(array: &dyn Array) -> Result<Vec<Self>, usize> {
                list_rows(array, |items| <$rust>::from_array(items))
            }
        }
    };
}

primitive_cell!(u32, UInt32Array, DataType::UInt32);
primitive_cell!(u64, UInt64Array, DataType::UInt64);
primitive_cell!(i32, Int32Array, DataType::Int32);
primitive_cell!(i64, Int64Array, DataType::Int64);
primitive_cell!(f32, Float32Array, DataType::Float32);
primitive_cell!(f64, Float64Array, DataType::Float64);
primitive_cell!(bool, BooleanArray, DataType::Boolean);

fn list_array(item: DataType, is_nullable: bool, values: ArrayRef, lengths: Vec<usize>) -> ArrayRef {
    let field = Arc::new(Field::new("item", item, is_nullable));
    Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), values, None::<NullBuffer>))
}

fn list_rows<T>(array: &dyn Array, read: impl Fn(&dyn Array) -> Result<Vec<T>, usize>) -> Result<Vec<Vec<T>>, usize> {
    first_null(array)?;
    let list = downcast::<ListArray>(array);
    (0..list.len()).map(|row| read(&list.value(row)).map_err(|_| row)).collect()
}

impl Cell for String {
    const IS_NULLABLE: bool = false;
    fn data_type() -> DataType {
        DataType::Utf8
    }
    fn to_array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(values))
    }
    fn from_array(array: &dyn Array) -> Result<Vec<Self>, usize> {
        first_null(array)?;
        let array = downcast::<StringArray>(array);
        Ok((0..array.len()).map(|row| array.value(row).to_owned()).collect())
    }
}

impl Cell for Option<String> {
    const IS_NULLABLE: bool = true;
    fn data_type() -> DataType {
        DataType::Utf8
    }
    fn to_array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
        Arc::new(StringArray::from_iter(values.map(Option::as_deref)))
    }
    fn from_array(array: &dyn Array) -> Result<Vec<Self>, usize> {
        let array = downcast::<StringArray>(array);
        Ok((0..array.len()).map(|row| array.is_valid(row).then(|| array.value(row).to_owned())).collect())
    }
}

macro_rules! string_list_cell {
    ($item:ty) => {
        impl Cell for Vec<$item> {
            const IS_NULLABLE: bool = false;
            fn data_type() -> DataType {
                DataType::List(Arc::new(Field::new("item", DataType::Utf8, <$item>::IS_NULLABLE)))
            }
            fn to_array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
                let (mut flat, mut lengths) = (Vec::new(), Vec::new());
                for value in values {
                    flat.extend(value.iter());
                    lengths.push(value.len());
                }
                list_array(DataType::Utf8, <$item>::IS_NULLABLE, <$item>::to_array(flat.into_iter()), lengths)
            }
            fn from_array(array: &dyn Array) -> Result<Vec<Self>, usize> {
                list_rows(array, |items| <$item>::from_array(items))
            }
        }
    };
}

string_list_cell!(String);
string_list_cell!(Option<String>);

/// Reads one column of a batch; used by `table!`.
#[doc(hidden)]
pub fn read_column<T: Cell>(batch: &RecordBatch, table: &'static str, column: &'static str) -> Result<Vec<T>, TableError> {
    let array = batch.column_by_name(column).ok_or(TableError::MissingColumn { table, column })?;
    if !array.data_type().equals_datatype(&T::data_type()) {
        return Err(TableError::WrongType {
            table,
            column,
            actual: array.data_type().to_string(),
            expected: T::data_type().to_string(),
        });
    }
    T::from_array(array.as_ref()).map_err(|row| TableError::UnexpectedNull { table, column, row })
}

/// Declares a table: a documented row struct that implements [`Table`].
#[macro_export]
macro_rules! table {
    ($(#[doc = $doc:literal])+ $name:ident = $table:literal, version $version:literal, key [$($key:literal),+] {
        $($(#[doc = $column_doc:literal])+ $column:ident: $kind:ty,)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[doc = $column_doc])+ pub $column: $kind,)+
        }

        impl $crate::table::Table for $name {
            const NAME: &'static str = $table;
            const VERSION: u32 = $version;
            const KEY: &'static [&'static str] = &[$($key),+];

            fn doc() -> String {
                concat!($($doc),+).trim().to_owned()
            }

            fn columns() -> Vec<$crate::table::Column> {
                vec![$($crate::table::Column {
                    name: stringify!($column),
                    doc: concat!($($column_doc),+).trim().to_owned(),
                    data_type: <$kind as $crate::table::Cell>::data_type(),
                    is_nullable: <$kind as $crate::table::Cell>::IS_NULLABLE,
                },)+]
            }

            fn to_batch(rows: &[Self]) -> ::arrow::record_batch::RecordBatch {
                ::arrow::record_batch::RecordBatch::try_new(
                    Self::arrow_schema(),
                    vec![$(<$kind as $crate::table::Cell>::to_array(rows.iter().map(|row| &row.$column)),)+],
                )
                .expect("columns are built from the schema they are checked against")
            }

            fn from_batch(batch: &::arrow::record_batch::RecordBatch) -> Result<Vec<Self>, $crate::table::TableError> {
                $(let mut $column = $crate::table::read_column::<$kind>(batch, $table, stringify!($column))?.into_iter();)+
                Ok((0..batch.num_rows())
                    .map(|_| Self { $($column: $column.next().expect("every column has as many values as the batch has rows"),)+ })
                    .collect())
            }
        }
    };
}
