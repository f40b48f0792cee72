//! Tables of others as rows of JSON: nested columns come through, damage and excess are errors that name the file.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int64Array, LargeStringArray, ListBuilder, RecordBatch, StringArray, StringBuilder,
    StringViewArray, StructArray,
};
use arrow::datatypes::{DataType, Field, Int32Type};
use rzero_io::error::IoError;
use rzero_io::rows::stream_json_rows;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::Arc;

const ENOUGH: u64 = 1 << 20;

/// A table as data sets are published: lists, structs, dictionaries, three kinds of text.
fn write_published(path: &Path, num_rows: usize) {
    let mut options = ListBuilder::new(StringBuilder::new());
    for at in 0..num_rows {
        if at % 3 == 2 {
            options.append(false);
        } else {
            options.values().append_value(format!("\"{at}\"\n"));
            options.values().append_null();
            options.append(true);
        }
    }
    let texts: Vec<String> = (0..num_rows).map(|at| format!("π{at}")).collect();
    let indices: Int64Array = (0..num_rows as i64).collect();
    let name = Arc::new(Field::new("name", DataType::Utf8, true));
    let metadata = StructArray::from(vec![(name, Arc::new(StringArray::from(texts.clone())) as ArrayRef)]);
    let kinds: DictionaryArray<Int32Type> = (0..num_rows).map(|at| ["odd", "even"][at % 2]).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("large", Arc::new(LargeStringArray::from(texts.clone()))),
        ("view", Arc::new(StringViewArray::from_iter_values(&texts))),
        ("options", Arc::new(options.finish())),
        ("metadata", Arc::new(metadata)),
        ("kind", Arc::new(kinds)),
        ("index", Arc::new(indices)),
        ("score", Arc::new(Float64Array::from_iter_values((0..num_rows).map(|at| if at == 1 { f64::NAN } else { 51.0 })))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn read(path: &Path, max_bytes: u64) -> Result<Vec<Value>, IoError> {
    let batches: Result<Vec<Vec<Value>>, IoError> = stream_json_rows(path, max_bytes)?.collect();
    Ok(batches?.into_iter().flatten().collect())
}

#[test]
fn nested_columns_come_through() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("published.parquet");
    write_published(&path, 1000);
    let rows = read(&path, ENOUGH).unwrap();
    assert_eq!(rows.len(), 1000);
    assert_eq!(
        rows[999],
        json!({"large": "π999", "view": "π999", "options": ["\"999\"\n", null], "metadata": {"name": "π999"}, "kind": "even", "index": 999,
            "score": 51.0})
    );
    assert_eq!((&rows[2]["options"], &rows[1]["score"]), (&Value::Null, &Value::Null));
    write_published(&path, 0);
    assert!(read(&path, ENOUGH).unwrap().is_empty());
}

#[test]
fn more_than_is_allowed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("published.parquet");
    write_published(&path, 1000);
    let error = read(&path, 1000).unwrap_err();
    assert!(error.to_string().contains("published.parquet") && error.to_string().contains("at most 1000"), "{error}");
    // One text in every row is small as a dictionary and large as rows.
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(1000); 3000]));
    let batch = RecordBatch::try_from_iter(vec![("text", text)]).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let error = read(&path, ENOUGH).unwrap_err();
    assert!(matches!(&error, IoError::ForeignParquet { .. }) && error.to_string().contains("more bytes"), "{error}");
    assert_eq!(read(&path, 4 * ENOUGH).unwrap().len(), 3000);
}

#[test]
fn damage_is_an_error_and_never_the_end_of_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("published.parquet");
    write_published(&path, 50);
    let bytes = fs::read(&path).unwrap();
    let broken = folder.path().join("broken.parquet");
    for length in (0..bytes.len()).step_by(37) {
        fs::write(&broken, &bytes[..length]).unwrap();
        let error = read(&broken, ENOUGH).unwrap_err();
        assert!(matches!(&error, IoError::ForeignParquet { .. }) && error.to_string().contains("broken.parquet"), "{error}");
    }
    for at in (0..bytes.len()).step_by(7) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x55;
        fs::write(&broken, &changed).unwrap();
        // Some changes hit a text and nothing else.
        read(&broken, ENOUGH).ok();
    }
    let error = read(&folder.path().join("absent"), ENOUGH).unwrap_err();
    assert!(error.to_string().starts_with("cannot open"), "{error}");
}
