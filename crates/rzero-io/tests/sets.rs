//! Sets of shards: whole ones open, and everything else is refused with the command that mends it.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod support;

use rzero_io::error::{Blame, IoError};
use rzero_io::layout::{RunLayout, Shard};
use rzero_io::manifest::{read_manifest, write_manifest};
use rzero_io::scan::Piece;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::manifest::Manifest;
use rzero_schema::tables::{Label, Rollout};
use rzero_schema::vocab::Stage;
use std::fs;
use support::{PLACE, rows, write_shard};

struct Run {
    _folder: tempfile::TempDir,
    layout: RunLayout,
}

impl Run {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let layout = RunLayout::new(folder.path());
        Self { _folder: folder, layout }
    }

    fn with_shards(num: u32) -> Self {
        let run = Self::new();
        for index in 0..num {
            write_shard(&run.layout, Shard { index, num }, &rows(3 + index as usize, u64::from(index)), |_| {});
        }
        run
    }

    fn open(&self) -> Result<StageOutput, IoError> {
        StageOutput::open(&self.layout, Stage::VoteLabel, PLACE)
    }

    fn part(&self, index: u32, num: u32) -> std::path::PathBuf {
        self.layout.part(Stage::VoteLabel, PLACE, "labels", Shard { index, num })
    }

    fn manifest(&self, index: u32, num: u32) -> std::path::PathBuf {
        self.layout.manifest(Stage::VoteLabel, PLACE, Shard { index, num })
    }
}

#[test]
fn a_whole_set_reads_in_shard_order() {
    let run = Run::with_shards(3);
    let output = run.open().unwrap();
    let expected: Vec<Label> = (0..3).flat_map(|index| rows::<Label>(3 + index, index as u64)).collect();
    assert_eq!(output.read::<Label>().unwrap(), expected);
    assert_eq!(output.num_rows::<Label>().unwrap(), 12);
    let streamed: Vec<Label> = output.stream::<Label>(2).unwrap().flat_map(|batch| batch.unwrap()).collect();
    assert_eq!(streamed, expected);
    assert_eq!(output.input_records().len(), 3);
    output.verify_digests().unwrap();
    assert!(matches!(output.read::<Rollout>(), Err(IoError::NoTable { table: "rollouts", .. })));
}

#[test]
fn no_output_names_the_command() {
    let error = Run::new().open().unwrap_err();
    assert_eq!(error.blame(), Blame::Input);
    let hint = error.hint().unwrap();
    assert!(hint.starts_with("run: vote-label --run ") && hint.ends_with(" --iteration 1 --phase curriculum"), "{hint}");
}

#[test]
fn missing_shards_are_listed_with_their_commands() {
    let run = Run::with_shards(4);
    fs::remove_file(run.manifest(1, 4)).unwrap();
    fs::remove_file(run.manifest(3, 4)).unwrap();
    let error = run.open().unwrap_err();
    assert!(matches!(&error, IoError::MissingShards { missing, .. } if *missing == [1, 3]), "{error}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("--num-shards 4 --shard-index 1\n") && hint.ends_with("--shard-index 3"), "{hint}");
}

#[test]
fn two_sets_are_not_mixed() {
    let run = Run::with_shards(2);
    write_shard(&run.layout, Shard::WHOLE, &rows(4, 9), |_| {});
    assert!(matches!(run.open(), Err(IoError::SeveralSets { counts, .. }) if counts == [1, 2]));
}

#[test]
fn shards_made_from_different_things_are_refused() {
    type Change = fn(&mut Manifest);
    let cases: [(&str, Change); 4] = [
        ("seed", |manifest| manifest.seed = 8),
        ("profile", |manifest| manifest.profile_digest = "other".to_owned()),
        ("prompts, tokenizer or model", |manifest| manifest.digests.clear()),
        ("input files", |manifest| manifest.inputs = manifest.outputs.clone()),
    ];
    for (expected, change) in cases {
        let run = Run::new();
        write_shard(&run.layout, Shard { index: 0, num: 2 }, &rows(4, 9), |_| {});
        write_shard(&run.layout, Shard { index: 1, num: 2 }, &rows(4, 9), change);
        assert!(matches!(run.open(), Err(IoError::ShardsDisagree { what, first: 0, second: 1, .. }) if what == expected));
    }
}

#[test]
fn parts_without_manifest_do_not_exist() {
    let run = Run::with_shards(1);
    fs::remove_file(run.manifest(0, 1)).unwrap();
    assert!(matches!(run.open(), Err(IoError::NoOutput { .. })));
}

#[test]
fn missing_and_changed_files_are_found() {
    let run = Run::with_shards(2);
    let bytes = fs::read(run.part(1, 2)).unwrap();
    fs::write(run.part(1, 2), &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(run.open(), Err(IoError::SizeDiffers { .. })));
    fs::remove_file(run.part(1, 2)).unwrap();
    assert!(matches!(run.open(), Err(IoError::MissingFile { .. })));
    let mut changed = bytes;
    changed[10] ^= 1;
    fs::write(run.part(1, 2), &changed).unwrap();
    let output = run.open().unwrap();
    assert!(matches!(output.verify_digests(), Err(IoError::DigestDiffers { .. })));
    assert!(matches!(output.read::<Label>(), Err(IoError::DigestDiffers { .. })));
}

#[test]
fn fewer_rows_than_promised_are_found_when_read() {
    let run = Run::new();
    write_shard(&run.layout, Shard::WHOLE, &rows(4, 9), |manifest| manifest.outputs[0].num_rows = Some(5));
    let output = run.open().unwrap();
    assert!(matches!(output.read::<Label>(), Err(IoError::RowsDiffer { expected: 5, actual: 4, .. })));
    assert!(output.stream::<Label>(3).unwrap().any(|batch| matches!(batch, Err(IoError::RowsDiffer { .. }))));
}

#[test]
fn a_manifest_is_believed_only_as_written() {
    let run = Run::with_shards(1);
    let path = run.manifest(0, 1);
    let manifest = read_manifest(&path).unwrap();
    // The same again is fine, another one is refused.
    write_manifest(&run.layout, &path, &manifest).unwrap();
    let mut other = manifest.clone();
    other.fingerprint = "other".to_owned();
    assert!(matches!(write_manifest(&run.layout, &path, &other), Err(IoError::AlreadyExists { .. })));

    let text = fs::read_to_string(&path).unwrap();
    for (from, to, expected) in [
        ("\"seed\": 7", "\"seed\": 8", "it was edited"),
        ("\"manifest_version\": 2", "\"manifest_version\": 99", "manifest version 99"),
        ("\"threads\"", "\"surprise\": 1,\n  \"threads\"", "unknown field `surprise`"),
        ("\"manifest_version\": 2,", "", "it has no `manifest_version`"),
        ("{", "", "is no whole manifest"),
    ] {
        assert!(text.contains(from));
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = run.open().unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("manifest-00000-of-00001.json"), "{error}");
    }
    for torn in ["", &text[..text.len() / 2]] {
        fs::write(&path, torn).unwrap();
        assert!(matches!(run.open(), Err(IoError::TornManifest { .. })));
    }
}

#[test]
fn of_two_processes_on_one_shard_the_manifest_describes_what_lies_there() {
    let run = Run::with_shards(1);
    let path = run.manifest(0, 1);
    let manifest = read_manifest(&path).unwrap();
    // The other process has replaced the part since, with the same rows in other bytes.
    let part = run.part(0, 1);
    fs::write(&part, "other bytes").unwrap();
    assert!(matches!(run.open(), Err(IoError::SizeDiffers { .. })));
    write_manifest(&run.layout, &path, &manifest).unwrap();
    run.open().unwrap().verify_digests().unwrap();
}

#[test]
fn figures_come_back_to_the_last_bit() {
    let run = Run::with_shards(1);
    let path = run.manifest(0, 1);
    let mut manifest = read_manifest(&path).unwrap();
    // A parser of JSON that is only nearly right reads the first of these as its neighbour.
    for figure in [1.973_307_049_622_531_8, 0.1 + 0.2, f64::MIN_POSITIVE] {
        manifest.metrics.insert("gradient_norm".to_owned(), figure);
        fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
        assert_eq!(read_manifest(&path).unwrap().metrics["gradient_norm"].to_bits(), figure.to_bits(), "{figure}");
    }
}

#[test]
fn a_copied_output_is_refused() {
    let run = Run::with_shards(1);
    let elsewhere = Place { iteration: 2, ..PLACE };
    let (from, to) = (run.layout.stage_folder(Stage::VoteLabel, PLACE), run.layout.stage_folder(Stage::VoteLabel, elsewhere));
    fs::create_dir_all(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    let error = StageOutput::open(&run.layout, Stage::VoteLabel, elsewhere).unwrap_err().to_string();
    assert!(error.contains("it was copied from there"), "{error}");
}

#[test]
fn columns_of_a_set_come_in_row_order_and_only_if_all_is_well() {
    use arrow::array::{Array, Float64Array, StringArray, UInt64Array};
    let run = Run::with_shards(3);
    let output = run.open().unwrap();
    let expected: Vec<Label> = (0..3).flat_map(|index| rows::<Label>(3 + index, index as u64)).collect();
    let pieces = output.scan::<Label>(&["row", "pseudo_label", "margin"]).unwrap();
    assert_eq!(pieces.iter().map(|piece| (piece.first(), piece.num_rows())).collect::<Vec<_>>(), [(0, 3), (3, 4), (7, 5)]);
    for (piece, part) in pieces.iter().zip([&expected[..3], &expected[3..7], &expected[7..]]) {
        let rows = part.iter().map(|label| label.row);
        assert_eq!(piece.range("row").unwrap(), rows.clone().min().unwrap()..=rows.max().unwrap());
        assert_eq!((piece.range("pseudo_label"), piece.range("absent")), (None, None));
    }
    // The last piece first: they do not depend on each other.
    let mut at = expected.len();
    for piece in pieces.iter().rev() {
        let batches: Vec<_> = piece.open(2).unwrap().map(|columns| columns.unwrap()).collect();
        for columns in batches.iter().rev() {
            at -= columns.num_rows();
            assert_eq!(columns.first(), at as u64);
            for (row, label) in expected[at..at + columns.num_rows()].iter().enumerate() {
                assert_eq!(columns.get::<UInt64Array>("row").unwrap().value(row), label.row);
                assert_eq!(columns.get::<Float64Array>("margin").unwrap().value(row).to_bits(), label.margin.to_bits());
                let labels = columns.get::<StringArray>("pseudo_label").unwrap();
                assert_eq!(labels.is_valid(row).then(|| labels.value(row)), label.pseudo_label.as_deref());
            }
            assert!(columns.get::<UInt64Array>("margin").is_err() && columns.get::<StringArray>("question").is_err());
        }
    }
    assert_eq!(at, 0);
    assert!(output.scan::<Label>(&["nonsense"]).is_err());
    assert!(matches!(output.scan::<Rollout>(&["row"]).unwrap_err(), IoError::NoTable { .. }));
    let mut bytes = fs::read(run.part(1, 3)).unwrap();
    bytes[20] ^= 1;
    fs::write(run.part(1, 3), bytes).unwrap();
    assert!(matches!(output.scan::<Label>(&["row"]).unwrap_err(), IoError::DigestDiffers { .. }));
    // A file of which nothing is wanted is not read.
    let others = output.scan_where::<Label>(&["row"], |piece| piece.first() != 3).unwrap();
    assert_eq!(others.iter().map(Piece::first).collect::<Vec<_>>(), [0, 7]);
    let itself = output.scan_where::<Label>(&["row"], |piece| piece.first() == 3);
    assert!(matches!(itself.unwrap_err(), IoError::DigestDiffers { .. }));
}
