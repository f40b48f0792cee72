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
        reads_back::<GradientSum>(num, seed);
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

/// What the format's own writer makes of the same rows, one batch after the other on one thread.
fn plainly_written<T: Table>(all: &[T]) -> Vec<u8> {
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::properties::{EnabledStatistics, WriterProperties};
    let footer = footer();
    let entries = [
        ("rzero.table", T::NAME.to_owned()),
        ("rzero.version", T::VERSION.to_string()),
        ("rzero.stage", footer.stage.to_string()),
        ("rzero.place", footer.place.to_string()),
        ("rzero.shard", footer.shard.to_string()),
        ("rzero.seed", footer.seed.to_string()),
        ("rzero.profile_digest", footer.profile_digest),
    ];
    let entries = entries.map(|(key, value)| parquet::file::metadata::KeyValue::new(key.to_owned(), value));
    let properties = WriterProperties::builder()
        .set_created_by("rzero".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(rzero_io::writer::ROW_GROUP_ROWS))
        .set_key_value_metadata(Some(entries.to_vec()))
        .build();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), T::arrow_schema(), Some(properties)).unwrap();
    all.chunks(1024).for_each(|rows| writer.write(&T::to_batch(rows)).unwrap());
    writer.into_inner().unwrap()
}

#[test]
fn columns_encoded_side_by_side_are_those_that_one_thread_encodes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part.parquet");
    let labels: Vec<Label> = rows(2_500, 3);
    write(&path, &labels);
    assert!(fs::read(&path).unwrap() == plainly_written(&labels));
    let metrics: Vec<PretrainMetrics> = rows(150_000, 4);
    write(&path, &metrics);
    assert!(fs::read(&path).unwrap() == plainly_written(&metrics));
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| write(&path, &labels));
        assert!(fs::read(&path).unwrap() == plainly_written(&labels));
    }
    // In columns, and cut in other ways.
    for cut in [1, 700, 1024, 5_000] {
        let mut writer = TableWriter::<Label>::create(&path, &footer()).unwrap();
        labels.chunks(cut).for_each(|rows| writer.write_columns(&Label::to_batch(rows)).unwrap());
        writer.finish().unwrap();
        assert!(fs::read(&path).unwrap() == plainly_written(&labels));
    }
    let mut writer = TableWriter::<Label>::create(&path, &footer()).unwrap();
    let error = writer.write_columns(&Challenge::to_batch(&rows(2, 1))).unwrap_err();
    assert!(matches!(error, IoError::Encode { table: "labels", .. }), "{error}");
}

#[test]
fn long_rows_end_a_row_group_early() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part.parquet");
    // Equal texts are small once they are encoded, and large when they are read.
    let text = "x".repeat(40_000);
    let row = |row: u64| Challenge {
        challenge_id: row.to_string(),
        row,
        challenge_status: "ok".to_owned(),
        question: Some(text.clone()),
        proposed_answer: None,
    };
    let all: Vec<Challenge> = (0..5_000).map(row).collect();
    write(&path, &all);
    let reader = parquet::file::serialized_reader::SerializedFileReader::new(fs::File::open(&path).unwrap()).unwrap();
    let groups = parquet::file::reader::FileReader::metadata(&reader).row_groups().to_vec();
    assert_eq!(groups.iter().map(|group| group.num_rows()).collect::<Vec<_>>(), [2048, 2048, 904]);
    assert_eq!(read_table::<Challenge>(&path).unwrap(), all);
}
