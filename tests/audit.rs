//! `audit` on runs that were broken on purpose: each way is found, once, and nothing is found in a run that is whole.
//!
//! Digests are repaired behind a change as far as they can be: in the manifest that lists the file, or in all that name it.
//! RZERO_MUTATIONS says how many values are changed at random.

use crate::just::just;
use crate::whole_run::finish;
use arrow::array::RecordBatch;
use rzero_io::atomic::{digest_file, write_bytes};
use rzero_io::layout::{RunLayout, Shard};
use rzero_io::manifest::{fingerprint, read_manifest, to_json};
use rzero_io::reader::{num_rows, read_table};
use rzero_io::writer::{FooterMetadata, TableWriter};
use rzero_schema::ids::Place;
use rzero_schema::manifest::Manifest;
use rzero_schema::table::Table;
use rzero_schema::tables::*;
use rzero_schema::vocab::Phase;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

macro_rules! by_table {
    ($table:expr, $function:ident($($argument:expr),*)) => {
        match $table {
            Rollout::NAME => $function::<Rollout>($($argument),*),
            Challenge::NAME => $function::<Challenge>($($argument),*),
            Label::NAME => $function::<Label>($($argument),*),
            CurriculumRow::NAME => $function::<CurriculumRow>($($argument),*),
            DroppedRow::NAME => $function::<DroppedRow>($($argument),*),
            LabelCheck::NAME => $function::<LabelCheck>($($argument),*),
            RewardRow::NAME => $function::<RewardRow>($($argument),*),
            TrainMetrics::NAME => $function::<TrainMetrics>($($argument),*),
            StepTiming::NAME => $function::<StepTiming>($($argument),*),
            EvalResult::NAME => $function::<EvalResult>($($argument),*),
            other => panic!("no table {other}"),
        }
    };
}

const CURRICULUM: &str = "iter-001/curriculum";
const STEP: &str = "iter-001/solver/step-01/grpo-step";

/// An iteration of the smoke profile in two shards, of this seed; one for all tests.
pub(crate) fn whole(seed: u32, shards: u32) -> &'static Path {
    static RUNS: OnceLock<[(u32, u32, tempfile::TempDir); 3]> = OnceLock::new();
    let runs = RUNS.get_or_init(|| {
        [(7, 2), (8, 2), (7, 1)].map(|(seed, shards)| {
            let folder = tempfile::tempdir().unwrap();
            let mut command = just();
            command.args(["profile=smoke", &format!("set=seed={seed}"), &format!("shards={shards}")]);
            command.arg(format!("run={}", folder.path().join("run").display())).args(["loop", "1"]);
            finish(command);
            (seed, shards, folder)
        })
    });
    let folder = runs.iter().find(|run| (run.0, run.1) == (seed, shards)).map(|run| run.2.path()).unwrap();
    Box::leak(folder.join("run").into_boxed_path())
}

/// A copy of a run that may be broken: files are replaced, never written into.
pub(crate) struct Run {
    _folder: tempfile::TempDir,
    pub(crate) layout: RunLayout,
}

impl Run {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let layout = RunLayout::new(folder.path().join("run"));
        for name in RunLayout::new(whole(7, 2)).names().unwrap() {
            let path = layout.absolute(&name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::hard_link(whole(7, 2).join(&name), path)
                .or_else(|_| std::fs::copy(whole(7, 2).join(&name), layout.absolute(&name)).map(drop))
                .unwrap();
        }
        Self { _folder: folder, layout }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.layout.absolute(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        write_bytes(&self.path(name), bytes).unwrap();
    }

    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(self.path(name)).unwrap();
        change(&mut bytes);
        self.write(name, &bytes);
    }

    pub(crate) fn copy_from(&self, other: &Path, name: &str) {
        self.write(name, &std::fs::read(other.join(name)).unwrap());
    }

    pub(crate) fn remove(&self, name: &str) {
        let path = self.path(name);
        if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }

    fn manifests(&self) -> Vec<(String, Manifest)> {
        let mut names = self.layout.names().unwrap();
        names.retain(|name| name.rsplit('/').next().unwrap().starts_with("manifest-"));
        names.sort();
        names.into_iter().map(|name| (name.clone(), read_manifest(&self.path(&name)).unwrap())).collect()
    }

    fn edit_manifest(&self, name: &str, change: impl FnOnce(&mut Manifest)) {
        let mut manifest = read_manifest(&self.path(name)).unwrap();
        change(&mut manifest);
        self.write(name, &to_json(&manifest));
    }

    /// Makes the manifest that lists a file say what it is now.
    pub(crate) fn repair(&self, name: &str) {
        self.repair_where(name, false);
    }

    /// The same of every manifest that names it, as input or as digest, fingerprints and all.
    fn repair_everywhere(&self, name: &str) {
        self.repair_where(name, true);
    }

    fn repair_where(&self, name: &str, is_everywhere: bool) {
        let now = digest_file(&self.path(name)).unwrap();
        let manifests = self.manifests();
        let old = manifests
            .iter()
            .flat_map(|(_, manifest)| &manifest.outputs)
            .find(|record| record.path == name)
            .unwrap()
            .digest
            .clone();
        for (manifest_name, mut manifest) in manifests {
            let num_rows = |table: &str| rows_in(table, &self.path(name));
            let own = manifest.outputs.iter_mut();
            let others = manifest.inputs.iter_mut().chain(&mut manifest.derived).filter(|_| is_everywhere);
            for record in own.chain(others).filter(|record| record.path == name) {
                (record.digest, record.num_bytes) = (now.digest.clone(), now.num_bytes);
                record.num_rows = record.table.as_deref().map(num_rows);
            }
            if is_everywhere {
                manifest.digests.values_mut().filter(|digest| **digest == old).for_each(|digest| digest.clone_from(&now.digest));
            }
            manifest.fingerprint = fingerprint(&manifest);
            self.write(&manifest_name, &to_json(&manifest));
        }
    }

    /// Changes the rows of a part, as its own stage would have written them.
    pub(crate) fn rows<T: Table>(&self, name: &str, change: impl FnOnce(&mut Vec<T>)) {
        let mut rows = read_table::<T>(&self.path(name)).unwrap();
        change(&mut rows);
        self.write_rows(name, &rows);
    }

    fn write_rows<T: Table>(&self, name: &str, rows: &[T]) {
        let (stage, place) = self.layout.stage_origin(&self.path(name)).unwrap();
        let (_, manifest) =
            self.manifests().into_iter().find(|(_, manifest)| manifest.outputs.iter().any(|record| record.path == name)).unwrap();
        let shard = Shard { index: manifest.shard_index, num: manifest.num_shards };
        let footer = FooterMetadata { stage, place, shard, seed: manifest.seed, profile_digest: manifest.profile_digest };
        let mut writer = TableWriter::create(&self.path(name), &footer).unwrap();
        writer.write(rows).unwrap();
        writer.finish().unwrap();
    }

    fn audit(&self, flags: &[&str]) -> (Option<i32>, Value) {
        let output = Command::new(env!("CARGO_BIN_EXE_audit"))
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
            .arg(self.layout.root())
            .arg("--json")
            .args(flags)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let told = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code(), told)
    }
}

fn rows_in(table: &str, path: &Path) -> u64 {
    fn count<T: Table>(path: &Path) -> u64 {
        num_rows::<T>(path).unwrap_or_default()
    }
    by_table!(table, count(path))
}

#[test]
fn a_whole_run_has_no_findings_and_runs_again_to_the_byte() {
    for run in [whole(7, 2), whole(7, 1)] {
        let told = |flags: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_audit"));
            command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).arg(run).args(flags);
            let output = command.output().unwrap();
            assert!(
                output.status.success(),
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert!(told(&[]).contains("no findings") && told(&[]).contains("in 2 steps from data/models/tiny/model.safetensors"));
        let told: Value = serde_json::from_str(&told(&["--replay", "--json"])).unwrap();
        assert_eq!(told["findings"], json!([]));
        assert_eq!(told["replayed"], told["shards"]);
    }
}

/// A way to break a run: its name, the kind of what is found, the file or shard it is found at, and the deed.
type Way = (&'static str, &'static str, String, Box<dyn Fn(&Run)>);

fn way(name: &'static str, kind: &'static str, subject: &str, deed: impl Fn(&Run, &str) + 'static) -> Way {
    let at = subject.to_owned();
    (name, kind, subject.to_owned(), Box::new(move |run| deed(run, &at)))
}

/// A value of a row, changed with every digest repaired.
fn value<T: Table + 'static>(name: &'static str, kind: &'static str, file: &str, change: fn(&mut Vec<T>)) -> Way {
    way(name, kind, file, move |run, file| {
        run.rows::<T>(file, change);
        run.repair_everywhere(file);
    })
}

fn ways() -> Vec<Way> {
    let labels = format!("{CURRICULUM}/vote-label/labels-00001-of-00002.parquet");
    let labels_manifest = format!("{CURRICULUM}/vote-label/manifest-00001-of-00002.json");
    let filter_manifest = format!("{CURRICULUM}/filter/manifest-00000-of-00001.json");
    let curriculum = format!("{CURRICULUM}/filter/curriculum-00000-of-00001.parquet");
    let dropped = format!("{CURRICULUM}/filter/dropped-00000-of-00001.parquet");
    let rewards = format!("{STEP}/rewards-00000-of-00001.parquet");
    let metrics = format!("{STEP}/train_metrics-00000-of-00001.parquet");
    let step_manifest = format!("{STEP}/manifest-00000-of-00001.json");
    let challenges = format!("{CURRICULUM}/challenge-gen/challenges-00000-of-00002.parquet");
    let rollouts = format!("{CURRICULUM}/challenge-gen/rollouts-00000-of-00002.parquet");
    let results = "iter-001/eval/eval/eval_results-00000-of-00002.parquet";
    let results_manifest = "iter-001/eval/eval/manifest-00000-of-00002.json";
    let flip = |run: &Run, file: &str| {
        run.edit(file, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
    };
    let with_changed_label = |rows: &mut Vec<Label>| rows[0].pseudo_label = Some("12345".to_owned());
    vec![
        way("a byte of a table flipped", "file_damaged", &labels, flip),
        way("a byte of the weights flipped", "file_damaged", &format!("{STEP}/checkpoint/model.safetensors"), flip),
        way("a byte of the optimiser's state flipped", "file_damaged", &format!("{STEP}/optimizer.safetensors"), flip),
        way("a table cut short", "file_damaged", &labels, |run, file| run.edit(file, |bytes| bytes.truncate(bytes.len() / 2))),
        way("a table emptied", "file_damaged", results, |run, file| run.write(file, b"")),
        way("a table removed", "file_missing", &labels, |run, file| run.remove(file)),
        way("weights removed", "file_missing", "iter-001/solver/checkpoint/model.safetensors", |run, file| run.remove(file)),
        way("a manifest removed", "no_manifest", &filter_manifest, |run, file| run.remove(file)),
        way("a manifest of a shard removed", "no_manifest", &labels_manifest, |run, file| run.remove(file)),
        way("a manifest cut short", "manifest_torn", &labels_manifest, |run, file| run.edit(file, |bytes| bytes.truncate(99))),
        way("a manifest emptied", "manifest_torn", results_manifest, |run, file| run.write(file, b"")),
        way("an input's digest edited", "manifest_edited", &filter_manifest, |run, file| {
            run.edit_manifest(file, |manifest| manifest.inputs[0].digest = "0".repeat(64));
        }),
        way("a profile edited beside its digest", "manifest_edited", &step_manifest, |run, file| {
            run.edit_manifest(file, |manifest| manifest.profile.as_mut().unwrap().solver.grpo.kl_coef += 0.5);
        }),
        way("a manifest copied from the next step", "manifest_edited", &step_manifest, |run, file| {
            let next = std::fs::read(run.path(&file.replace("step-01", "step-02"))).unwrap();
            run.write(file, &next);
        }),
        way("a manifest of another version", "manifest_edited", results_manifest, |run, file| {
            run.edit(file, |bytes| {
                *bytes = String::from_utf8(bytes.clone())
                    .unwrap()
                    .replace("\"manifest_version\": 2", "\"manifest_version\": 3")
                    .into_bytes();
            });
        }),
        way("two sets of shards side by side", "shards", &format!("{CURRICULUM}/vote-label"), |run, folder| {
            for file in ["labels-00000-of-00001.parquet", "manifest-00000-of-00001.json"] {
                run.copy_from(whole(7, 1), &format!("{folder}/{file}"));
            }
        }),
        way("a shard of another seed", "other_run", &labels_manifest, |run, manifest| {
            run.copy_from(whole(8, 2), manifest);
            run.copy_from(whole(8, 2), &manifest.replace("manifest", "labels").replace("json", "parquet"));
        }),
        way("a table of another seed, digests repaired", "other_run", &labels, |run, file| {
            run.copy_from(whole(8, 2), file);
            run.repair_everywhere(file);
        }),
        way("another table in its place, digests repaired", "schema", &curriculum, |run, file| {
            let other = std::fs::read(run.path(&file.replace("curriculum-", "dropped-"))).unwrap();
            run.write(file, &other);
            run.repair_everywhere(file);
        }),
        way("a foreign file for a table, digests repaired", "schema", results, |run, file| {
            run.write(file, b"PAR1 this is no table PAR1");
            run.repair_everywhere(file);
        }),
        way("a label changed, its own digest repaired", "not_reproduced", &labels, move |run, file| {
            run.rows::<Label>(file, with_changed_label);
            run.repair(file);
        }),
        value::<Label>("a label changed", "not_reproduced", &labels, with_changed_label),
        value::<Label>("a vote counted wrongly", "not_reproduced", &labels, |rows| rows[0].num_parsed += 1),
        value::<Label>("a label lost", "not_reproduced", &labels, |rows| drop(rows.remove(1))),
        value::<Label>("a label doubled", "key_repeated", &labels, |rows| rows.insert(1, rows[0].clone())),
        value::<Challenge>("two questions exchanged", "rows", &challenges, |rows| rows.swap(0, 1)),
        value::<Challenge>("a question reworded", "rows", &challenges, |rows| {
            rows.iter_mut().find_map(|row| row.question.as_mut()).unwrap().push('0');
        }),
        value::<Rollout>("a completion changed", "rows", &rollouts, |rows| rows[3].completion.push('1')),
        value::<Rollout>("a log-probability above 0", "rows", &rollouts, |rows| rows[2].policy_logprobs[0] = 0.5),
        value::<CurriculumRow>("a question kept that was dropped", "not_reproduced", &curriculum, |rows| {
            let mut row = rows.last().unwrap().clone();
            (row.row, row.challenge_id) =
                (row.row + 1, Place::new(1, Phase::Curriculum, 0).challenge_id(row.row + 1).to_string());
            rows.push(row);
        }),
        value::<DroppedRow>("a drop for another reason", "not_reproduced", &dropped, |rows| {
            rows[0].drop_reason = "above_band".to_owned()
        }),
        value::<RewardRow>("a reward changed", "rows", &rewards, |rows| rows[5].reward = 1.0 - rows[5].reward),
        value::<RewardRow>("an advantage changed", "rows", &rewards, |rows| rows[0].advantage += 0.25),
        value::<RewardRow>("a reward lost", "rows", &rewards, |rows| drop(rows.pop())),
        value::<RewardRow>("a reward doubled", "key_repeated", &rewards, |rows| rows.push(rows[0].clone())),
        value::<TrainMetrics>("a figure of a step changed", "rows", &metrics, |rows| rows[0].reward_mean += 0.01),
        value::<EvalResult>("a grade changed", "rows", results, |rows| rows[0].is_correct = !rows[0].is_correct),
        value::<EvalResult>("a right answer changed", "rows", results, |rows| rows[0].gold.push('1')),
        value::<EvalResult>("a result lost", "rows", results, |rows| drop(rows.pop())),
        way("a figure of a manifest changed", "figures", &step_manifest, |run, file| {
            run.edit_manifest(file, |manifest| *manifest.metrics.get_mut("reward_mean").unwrap() += 0.1);
        }),
        way("a count of a manifest changed", "figures", &labels_manifest, |run, file| {
            run.edit_manifest(file, |manifest| *manifest.counts.get_mut("parsed").unwrap() += 1);
        }),
        way(
            "checkpoints exchanged, its own digest repaired",
            "input_changed",
            "iter-001/solver/checkpoint/model.safetensors",
            |run, file| {
                let other = std::fs::read(run.path(&file.replace("solver", "challenger"))).unwrap();
                run.write(file, &other);
                run.repair(file);
            },
        ),
        way("a step removed", "step_missing", &step_manifest, |run, _| run.remove(STEP)),
        way("run.json edited", "run_record", "run.json", |run, file| {
            run.edit(file, |bytes| {
                *bytes = String::from_utf8(bytes.clone()).unwrap().replace("\"seed\": 7", "\"seed\": 9").into_bytes()
            });
        }),
        way("a shard that ended before it began", "clock", &labels_manifest, |run, file| {
            run.edit_manifest(file, |manifest| manifest.started_at = "2099-01-01T00:00:00Z".to_owned());
        }),
        way("a shard that took longer than it lasted", "clock", results_manifest, |run, file| {
            run.edit_manifest(file, |manifest| manifest.seconds = 86_400.0);
        }),
        way(
            "what a killed process left",
            "temporary_file",
            &format!("{CURRICULUM}/filter/.curriculum.host.123.abcdef.tmp"),
            |run, file| {
                run.write(file, b"half");
            },
        ),
        way("a file that is not of the run", "foreign_file", &format!("{CURRICULUM}/notes.txt"), |run, file| {
            run.write(file, b"notes")
        }),
    ]
}

#[test]
fn every_way_to_break_a_run_is_found_once() {
    let ways = ways();
    assert!(ways.len() >= 45, "{}", ways.len());
    let mut wrong = Vec::new();
    for (name, kind, subject, deed) in ways {
        let run = Run::new();
        deed(&run);
        let (code, told) = run.audit(&[]);
        let is_warning = ["clock", "temporary_file", "foreign_file"].contains(&kind);
        let found: Vec<_> =
            told["findings"].as_array().unwrap().iter().map(|finding| (&finding["kind"], &finding["subject"])).collect();
        if code != Some(if is_warning { 7 } else { 6 }) || found != [(&json!(kind), &json!(subject))] {
            wrong.push(format!("{name}: exit code {code:?}, not one {kind} at {subject} but {:#}", told["findings"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Another value of the same type; none where there is nothing to change.
fn other_value(value: &Value, of_other_row: &Value, chance: u64) -> Option<Value> {
    if value != of_other_row && !of_other_row.is_null() && chance.is_multiple_of(2) {
        return Some(of_other_row.clone());
    }
    match value {
        Value::Bool(value) => Some(json!(!value)),
        Value::String(text) => Some(json!(format!("{text}0"))),
        Value::Number(number) if number.is_u64() => Some(json!(number.as_u64().unwrap() + 1)),
        Value::Number(number) => number.as_f64().map(|number| json!(number * 1.001 + 0.001)),
        Value::Array(items) if !items.is_empty() => {
            let at = chance as usize % items.len();
            let mut items = items.clone();
            items[at] = other_value(&items[at], &Value::Null, chance)?;
            Some(Value::Array(items))
        }
        _ => None,
    }
}

/// Changes one value of a table; tells which, or nothing where it could not.
fn mutate<T: Table>(run: &Run, name: &str, chance: &mut impl FnMut() -> u64) -> Option<String> {
    let rows = read_table::<T>(&run.path(name)).ok().filter(|rows| !rows.is_empty())?;
    let batch = T::to_batch(&rows);
    let mut text = Vec::new();
    let mut writer = arrow::json::LineDelimitedWriter::new(&mut text);
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let mut lines: Vec<Value> =
        String::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let columns = T::columns();
    let column = columns[chance() as usize % columns.len()].name;
    let (at, other) = (chance() as usize % lines.len(), chance() as usize % lines.len());
    let null = Value::Null;
    let changed = other_value(lines[at].get(column)?, lines[other].get(column).unwrap_or(&null), chance())?;
    let told = format!("{name}: row {at}, {column}: {} -> {changed}", lines[at][column]);
    lines[at][column] = changed;
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let reader = arrow::json::ReaderBuilder::new(T::arrow_schema()).with_batch_size(lines.len()).build(text.as_bytes()).unwrap();
    let changed: Vec<RecordBatch> = reader.collect::<Result<_, _>>().unwrap();
    let changed = T::from_batch(&changed[0]).unwrap();
    // Text can lose what a number had behind it; then nothing was changed.
    if T::to_batch(&changed) == batch {
        return None;
    }
    run.write_rows(name, &changed);
    run.repair_everywhere(name);
    Some(told)
}

#[test]
#[allow(clippy::print_stderr, reason = "how many were found in which way is what `just test-audit` is run for")]
fn a_value_changed_anywhere_is_found_with_every_digest_repaired() {
    let num_wanted: u32 = std::env::var("RZERO_MUTATIONS").map_or(6, |number| number.parse().unwrap());
    let seed = u64::from(std::process::id());
    let mut state = seed;
    let mut chance = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut num_changed = 0;
    let (mut missed, mut without_replay) = (Vec::new(), 0);
    while num_changed < num_wanted {
        let run = Run::new();
        // Clock readings follow from nothing.
        let records = run.manifests().into_iter().flat_map(|(_, manifest)| manifest.outputs);
        let tables: Vec<_> =
            records.filter(|record| record.table.as_deref().is_some_and(|table| table != StepTiming::NAME)).collect();
        let record = &tables[chance() as usize % tables.len()];
        let Some(told) = by_table!(record.table.as_deref().unwrap(), mutate(&run, &record.path, &mut chance)) else { continue };
        num_changed += 1;
        let is_found = |flags: &[&str]| run.audit(flags).1["errors"].as_u64().unwrap() > 0;
        if is_found(&[]) {
            without_replay += 1;
        } else if !is_found(&["--replay"]) {
            missed.push(told);
        }
    }
    eprintln!(
        "seed {seed}: {num_changed} values changed; {without_replay} found without running models again, all others by that"
    );
    assert!(missed.is_empty(), "seed {seed}: {missed:#?}");
}

#[test]
fn what_is_no_run_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_audit")).arg(folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("holds no run") && text.contains(folder.path().to_str().unwrap()), "{text}");
}
