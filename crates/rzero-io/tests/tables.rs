//! Tables: what is written reads back as itself, equal rows give equal bytes, and what is no such table is refused by name.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod support;

use proptest::prelude::*;
use rzero_io::error::IoError;
use rzero_io::reader::{num_rows, read_footer, read_foreign_table, read_table, stream_table};
use rzero_io::writer::TableWriter;
use rzero_schema::table::Table;
use rzero_schema::tables::*;
use std::fs;
use std::sync::Arc;
use support::{MADE_UP_TABLES, MadeUp, footer, rows, write};

fn reads_back<T: Table + MadeUp + PartialEq + std::fmt::Debug>(num: usize, seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part.parquet");
    let written_rows: Vec<T> = rows(num, seed);
    let written = write(&path, &written_rows);
    assert_eq!(written.num_rows, num as u64);
    assert_eq!(written.num_bytes, fs::metadata(&path).unwrap().len());
    assert_eq!(num_rows::<T>(&path).unwrap(), num as u64);
    assert_eq!(read_table::<T>(&path).unwrap(), written_rows);
    let streamed: Vec<T> = stream_table::<T>(&path, 7).unwrap().flat_map(|batch| batch.unwrap()).collect();
    assert_eq!(streamed, written_rows);
    assert_eq!(read_foreign_table::<T>(&path).unwrap(), written_rows);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_table_reads_back_as_itself(num in 0usize..60, seed in any::<u64>()) {
        reads_back::<Rollout>(num, seed);
        reads_back::<Challenge>(num, seed);
        reads_back::<Label>(num, seed);
        reads_back::<CurriculumRow>(num, seed);
        reads_back::<DroppedRow>(num, seed);
        reads_back::<RewardRow>(num, seed);
        reads_back::<TrainMetrics>(num, seed);
        reads_back::<StepTiming>(num, seed);
        reads_back::<PretrainMetrics>(num, seed);
        reads_back::<EvalItem>(num, seed);
        reads_back::<EvalResult>(num, seed);
    }

    #[test]
    fn bytes_follow_from_the_rows_and_not_from_how_they_arrive(num in 0usize..3000, cut in 1usize..2000, seed in any::<u64>()) {
        let folder = tempfile::tempdir().unwrap();
        let all: Vec<Challenge> = rows(num, seed);
        let at_once = write(&folder.path().join("at-once"), &all);
        let mut writer = TableWriter::create(&folder.path().join("in-parts"), &footer()).unwrap();
        all.chunks(cut).for_each(|part| writer.write(part).unwrap());
        prop_assert_eq!(at_once.digest, writer.finish().unwrap().digest);
    }
}

#[test]
fn every_table_has_a_round_trip() {
    let mut known: Vec<&str> = all_tables().iter().map(|table| table.name).collect();
    let mut tested = MADE_UP_TABLES.to_vec();
    known.sort_unstable();
    tested.sort_unstable();
    assert_eq!(known, tested);
}

#[test]
fn many_row_groups_read_back() {
    reads_back::<PretrainMetrics>(150_000, 1);
}

#[test]
fn a_stray_file_names_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stray");
    write::<Label>(&path, &rows(3, 1));
    let entries = read_footer(&path).unwrap();
    assert_eq!(entries["rzero.table"], "labels");
    assert_eq!(entries["rzero.place"], "001/curriculum/00");
    assert_eq!(entries["rzero.stage"], "vote-label");
    assert_eq!(entries["rzero.seed"], "7");
}

#[test]
fn another_table_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part.parquet");
    write::<Label>(&path, &rows(3, 1));
    let error = read_table::<Rollout>(&path).unwrap_err();
    assert!(matches!(&error, IoError::WrongTable { expected: "rollouts", actual, .. } if actual == "labels"), "{error}");
}

/// A file as others write it: no footer of ours, columns in another order, 64-bit integers, one column more.
fn write_foreign(path: &std::path::Path, level: i64) {
    use arrow::array::{Int64Array, LargeStringArray, ListBuilder, RecordBatch, StringArray, StringBuilder};
    let text = |value: &str| Arc::new(LargeStringArray::from(vec![value])) as arrow::array::ArrayRef;
    let mut options = ListBuilder::new(StringBuilder::new());
    options.append(true);
    let batch = RecordBatch::try_from_iter(vec![
        ("question", text("1+1")),
        ("answer", text("2")),
        ("level", Arc::new(Int64Array::from(vec![level]))),
        ("row", Arc::new(Int64Array::from(vec![0]))),
        ("item_id", Arc::new(StringArray::from(vec!["a"]))),
        ("subject", text("arithmetic")),
        ("source", text("elsewhere")),
        ("benchmark", text("own")),
        ("options", Arc::new(options.finish())),
        ("license", text("")),
        ("revision", text("")),
        ("digest", text("")),
        ("note", text("not ours")),
    ])
    .unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn a_foreign_file_is_refused_unless_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("items.parquet");
    write_foreign(&path, 1);
    assert!(matches!(read_table::<EvalItem>(&path), Err(IoError::NotOurs { expected: "eval_items", .. })));
    let items = read_foreign_table::<EvalItem>(&path).unwrap();
    assert_eq!((items[0].question.as_str(), items[0].level), ("1+1", 1));
    write_foreign(&path, -1);
    let error = read_foreign_table::<EvalItem>(&path).unwrap_err().to_string();
    assert!(error.contains("`level`") && error.contains("items.parquet"), "{error}");
    let error = read_foreign_table::<Label>(&path).unwrap_err().to_string();
    assert!(error.contains("lacks column `challenge_id`"), "{error}");
    // What others wrote is never ours to remove.
    fs::write(&path, "no parquet").unwrap();
    let hint = read_foreign_table::<EvalItem>(&path).unwrap_err().hint().unwrap();
    assert!(!hint.contains("remove"), "{hint}");
}

#[test]
fn a_truncated_file_is_an_error_at_every_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole.parquet");
    write::<Rollout>(&path, &rows(200, 5));
    let bytes = fs::read(&path).unwrap();
    let broken = folder.path().join("broken.parquet");
    let lengths = (0..64).chain((64..bytes.len()).step_by(101)).chain(bytes.len() - 64..bytes.len());
    for length in lengths {
        fs::write(&broken, &bytes[..length]).unwrap();
        let error = read_table::<Rollout>(&broken).unwrap_err();
        assert!(error.to_string().contains("broken.parquet"), "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_changed_byte_never_ends_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole.parquet");
    write::<Label>(&path, &rows(50, 5));
    let bytes = fs::read(&path).unwrap();
    for at in (0..bytes.len()).step_by(13) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x55;
        fs::write(&path, &changed).unwrap();
        // Some changes hit nothing that is checked here; the digests of a set find those.
        read_table::<Label>(&path).ok();
    }
}

#[test]
fn what_is_no_parquet_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for content in ["", "PAR1", "row,question\n1,x\n"] {
        let path = folder.path().join("table.csv");
        fs::write(&path, content).unwrap();
        let error = read_table::<Label>(&path).unwrap_err();
        assert!(matches!(&error, IoError::Parquet { .. }), "{error}");
    }
    let error = read_table::<Label>(&folder.path().join("absent")).unwrap_err();
    assert!(error.to_string().starts_with("cannot open"), "{error}");
}
