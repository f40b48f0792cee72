//! How the shards of a run hang together: every input is the output it was, back to the base model.

use super::Audit;
use super::files::{Census, KnownShard, brief, short};
use super::findings::{Findings, Kind, Severity};
use crate::tables::for_table;
use rzero_io::atomic::digest_file;
use rzero_io::error::Result;
use rzero_io::keys::repeated_key;
use rzero_io::layout::Shard;
use rzero_io::set::{StageOutput, disagreement};
use rzero_schema::ids::Place;
use rzero_schema::manifest::FileRecord;
use rzero_schema::vocab::{Phase, Stage};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// From what the last Solver follows, by digest.
#[derive(Debug)]
pub(super) struct Lineage {
    iteration: u32,
    num_steps: u32,
    /// The weights at its beginning, with their digest; none where the run has trained nothing.
    base: Option<(String, String)>,
}

impl Lineage {
    pub(super) fn line(&self) -> String {
        match &self.base {
            None => "nothing was trained yet".to_owned(),
            Some((path, digest)) => format!(
                "the Solver of iteration {} follows, digest by digest, in {} steps from {path} ({})",
                self.iteration,
                self.num_steps,
                brief(digest)
            ),
        }
    }

    pub(super) fn json(&self) -> Value {
        let (path, digest) = self.base.as_ref().map(|(path, digest)| (path, digest)).unzip();
        json!({ "iteration": self.iteration, "steps": self.num_steps, "base": path, "base_digest": digest })
    }
}

/// Checks sets, inputs, steps and keys.
pub(super) fn check(audit: &Audit<'_>, census: &Census, findings: &mut Findings) -> anyhow::Result<Lineage> {
    check_sets(audit, census, findings);
    check_steps(audit, census, findings);
    check_inputs(audit, census, findings);
    check_keys(audit, census, findings)?;
    Ok(lineage(census))
}

/// The manifest that a file of a stage's folder should stand in, by its name.
pub(super) fn manifest_of(audit: &Audit<'_>, stage: Stage, place: Place, file: &str) -> String {
    let is_whole = matches!(stage, Stage::Filter | Stage::LabelProbe | Stage::GrpoStep | Stage::Judge);
    let shard = if is_whole { Some(Shard::WHOLE) } else { shard_of_part(file) };
    let folder = audit.layout.relative(&audit.layout.stage_folder(stage, place)).unwrap_or_default();
    shard.map_or_else(|| format!("{folder}/{file}"), |shard| format!("{folder}/manifest-{shard}.json"))
}

fn shard_of_part(file: &str) -> Option<Shard> {
    let (rest, num) = file.strip_suffix(".parquet")?.rsplit_once("-of-")?;
    let (_, index) = rest.rsplit_once('-')?;
    Some(Shard { index: index.parse().ok()?, num: num.parse().ok()? })
}

fn check_sets(audit: &Audit<'_>, census: &Census, findings: &mut Findings) {
    for ((_, place, stage), shards) in census.sets() {
        let folder = audit.layout.relative(&audit.layout.stage_folder(stage, place)).unwrap_or_default();
        let counts: BTreeSet<u32> = shards.iter().map(|known| known.shard.num).collect();
        if counts.len() > 1 {
            let counts = counts.iter().map(u32::to_string).collect::<Vec<_>>().join(" and ");
            let todo = format!("choose one number of shards and run {stage} there with --overwrite");
            findings.add(Severity::Error, Kind::Shards, &folder, format!("holds outputs cut into {counts} shards at once"), todo);
            continue;
        }
        if shards.iter().any(|known| findings.is_torn(&known.name)) {
            findings.mark_unread(&folder);
        }
        let num = counts.first().copied().unwrap_or(1);
        let is_there: BTreeSet<u32> = shards.iter().map(|known| known.shard.index).collect();
        for index in (0..num).filter(|index| !is_there.contains(index)) {
            findings.mark_unread(&folder);
            let subject = format!("{folder}/manifest-{}.json", Shard { index, num });
            let todo = format!("run {stage} there with --num-shards {num} --shard-index {index}");
            findings.add(Severity::Error, Kind::Shards, &subject, format!("shard {index} of {num} is missing"), todo);
        }
        if shards.iter().all(|known| disagreement(&shards[0].manifest, &known.manifest).is_none()) {
            continue;
        }
        // One that was made from something else stands against all others; of two, the second is named.
        let stray =
            |known: &&&KnownShard| shards.iter().filter(|other| disagreement(&other.manifest, &known.manifest).is_some()).count();
        let Some(agreeing) = shards.iter().min_by_key(stray) else { continue };
        for known in &shards {
            if let Some(what) = disagreement(&agreeing.manifest, &known.manifest) {
                let problem = format!("differs from {} in {what}", agreeing.name);
                findings.add(
                    Severity::Error,
                    Kind::Shards,
                    &known.name,
                    problem,
                    format!("run {stage} there for this shard with --overwrite"),
                );
            }
        }
    }
}

/// Every input is an output of the run with the same bytes, or lies in the project as it did.
fn check_inputs(audit: &Audit<'_>, census: &Census, findings: &mut Findings) {
    let outputs = census.outputs();
    let mut readers: BTreeMap<(&str, &str), &KnownShard> = BTreeMap::new();
    // A shard that is not of this run, or stands beside others that it does not belong to, is told of as a whole.
    let is_of_run = |known: &&KnownShard| !findings.is_torn(&known.name) && !findings.is_flagged(folder_of(&known.name));
    for known in census.shards.iter().filter(is_of_run) {
        for record in &known.manifest.inputs {
            readers.entry((&record.path, &record.digest)).or_insert(known);
        }
    }
    for ((path, digest), reader) in readers {
        let absolute = audit.layout.absolute(path);
        let step = absolute.parent().and_then(|folder| audit.layout.checkpoint_origin(folder));
        let origin = audit.layout.stage_origin(&absolute).or_else(|| {
            let (iteration, phase, step) = step?;
            let of_phase = |known: &&KnownShard| {
                known.stage == Stage::GrpoStep && (known.place.iteration, known.place.phase) == (iteration, phase)
            };
            let last = census.shards.iter().filter(of_phase).map(|known| known.place.step).max().unwrap_or(1);
            Some((Stage::GrpoStep, Place::new(iteration, phase, step.unwrap_or(last))))
        });
        match (outputs.get(path), origin) {
            (Some((record, _)), _) if record.digest == digest => {}
            (Some((_, writer)), _) if findings.is_torn(&writer.name) => {}
            (Some((record, writer)), _) => {
                let problem = format!(
                    "is not what {} was made from: digest {}, there {}",
                    reader.name,
                    brief(&record.digest),
                    brief(digest)
                );
                let todo = format!("restore it with {}, or remove all that was made from it", writer.name);
                findings.add(Severity::Error, Kind::InputChanged, path, problem, todo);
            }
            (None, Some((stage, place))) => {
                let subject = manifest_of(audit, stage, place, path.rsplit('/').next().unwrap_or_default());
                findings.mark_unread(path);
                let problem = format!("{} was made from {path}, which no manifest lists", reader.name);
                findings.add(
                    Severity::Error,
                    Kind::NoSource,
                    &subject,
                    problem,
                    format!("restore it, or run {stage} there again"),
                );
            }
            (None, None) => check_outside(audit, path, digest, reader, findings),
        }
    }
}

/// A file that no stage of the run wrote: of the project, or filled by people.
fn check_outside(audit: &Audit<'_>, path: &str, digest: &str, reader: &KnownShard, findings: &mut Findings) {
    let is_base = path.starts_with(&format!("{}/", audit.record.profile.model.path.trim_end_matches('/')));
    let severity = if is_base || path.starts_with("iter-") { Severity::Error } else { Severity::Warning };
    let todo = "restore it as it was to run stages again: git has the project's own files";
    match digest_file(&outside(audit, path)) {
        Ok(found) if found.digest == digest => {}
        Ok(found) => {
            let problem = format!(
                "has changed since {} was made from it: digest {}, then {}",
                reader.name,
                brief(&found.digest),
                brief(digest)
            );
            findings.add(severity, Kind::Project, path, problem, todo);
        }
        Err(error) => {
            findings.add(severity, Kind::Project, path, format!("{}; {} was made from it", short(&error), reader.name), todo)
        }
    }
}

/// Where an input lies that no stage of the run wrote.
pub(super) fn outside(audit: &Audit<'_>, path: &str) -> PathBuf {
    if path.starts_with("iter-") { audit.layout.absolute(path) } else { audit.project_root.join(path) }
}

fn check_steps(audit: &Audit<'_>, census: &Census, findings: &mut Findings) {
    let mut phases: BTreeMap<(u32, Phase), BTreeSet<u32>> = BTreeMap::new();
    for known in census.shards.iter().filter(|known| known.stage == Stage::GrpoStep && known.place.update == 0) {
        phases.entry((known.place.iteration, known.place.phase)).or_default().insert(known.place.step);
    }
    for ((iteration, phase), steps) in phases {
        for step in (1..steps.last().copied().unwrap_or(0)).filter(|step| !steps.contains(step)) {
            let subject = manifest_of(audit, Stage::GrpoStep, Place::new(iteration, phase, step), "");
            let problem = format!("step {step} of the {phase} phase is missing, later ones are there");
            findings.add(
                Severity::Error,
                Kind::StepMissing,
                &subject,
                problem,
                "restore it, or remove the steps after it and run the phase again",
            );
        }
    }
}

/// Keys name one row each, in every table whose files are whole.
fn check_keys(audit: &Audit<'_>, census: &Census, findings: &mut Findings) -> anyhow::Result<()> {
    for ((_, place, stage), shards) in census.sets() {
        let records = || shards.iter().flat_map(|known| &known.manifest.outputs);
        if shards.iter().any(|known| findings.is_torn(&known.name)) {
            continue;
        }
        let Ok(output) = StageOutput::open(audit.layout, stage, place) else { continue };
        let tables: BTreeSet<&str> = records().filter_map(|record| record.table.as_deref()).collect();
        for table in tables {
            audit.interrupt.check()?;
            let files: Vec<&FileRecord> = records().filter(|record| record.table.as_deref() == Some(table)).collect();
            if !files.iter().all(|record| findings.is_readable(&record.path)) {
                continue;
            }
            let found: Option<Result<_>> = for_table!(table, repeated_key(&output));
            match found {
                Some(Ok(Some((row, key)))) => {
                    let at = file_of_row(&files, row);
                    let problem = format!("row {row} of {table} has a key ({key}) that a row before it has");
                    findings.add(Severity::Error, Kind::Key, at, problem, format!("run {stage} there again with --overwrite"));
                }
                Some(Err(error)) => {
                    findings.add(Severity::Error, Kind::Schema, &files[0].path, short(&error), format!("run {stage} there again"))
                }
                Some(Ok(None)) | None => {}
            }
        }
    }
    Ok(())
}

/// The folder that a file lies in, by name.
pub(super) fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn file_of_row<'a>(files: &[&'a FileRecord], row: u64) -> &'a str {
    let mut end = 0;
    let holds = |record: &&&FileRecord| {
        end += record.num_rows.unwrap_or(0);
        row < end
    };
    files.iter().find(holds).or(files.last()).map_or("", |record| &record.path)
}

/// The chain of checkpoints behind the newest Solver, or Challenger where there is none.
fn lineage(census: &Census) -> Lineage {
    let outputs = census.outputs();
    let steps = || census.shards.iter().filter(|known| known.stage == Stage::GrpoStep && known.place.update == 0);
    let solver = steps().rfind(|known| known.place.phase == Phase::Solver);
    let mut at = solver.or_else(|| steps().next_back());
    let mut lineage = Lineage { iteration: at.map_or(0, |known| known.place.iteration), num_steps: 0, base: None };
    while let Some(known) = at {
        lineage.num_steps += 1;
        // The policy is the first input that a step declares.
        let Some(weights) = known.manifest.inputs.iter().find(|record| record.path.ends_with(".safetensors")) else { break };
        lineage.base = Some((weights.path.clone(), weights.digest.clone()));
        let writer = outputs.get(weights.path.as_str()).map(|(_, writer)| *writer);
        // A forged chain could be a ring.
        at = writer.filter(|writer| writer.place < known.place && lineage.num_steps < 1_000_000);
    }
    lineage
}
