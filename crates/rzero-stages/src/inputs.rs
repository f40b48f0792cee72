//! What a stage is made from: outputs of earlier stages, checkpoints, prompts. All of it enters the fingerprint.
//!
//! A stage declares its inputs before it runs. What is missing is remembered, not thrown, so that `--dry-run` can tell all of it.
//! All shards of a stage declare the same inputs.

use crate::context::{StageContext, read_text};
use crate::exit::StageFailure;
#[cfg(feature = "model")]
use crate::prompt::Prompt;
use rzero_io::atomic::digest_file;
use rzero_io::error::IoError;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::manifest::FileRecord;
use rzero_schema::vocab::Stage;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The declared inputs of a stage.
#[derive(Debug)]
pub struct StageInputs<'a> {
    context: &'a StageContext,
    inputs: Vec<Input>,
    digests: BTreeMap<String, String>,
}

/// One declared input.
#[derive(Debug)]
struct Input {
    /// How people call it.
    what: String,
    /// Where it lies.
    path: PathBuf,
    found: anyhow::Result<Found>,
}

#[derive(Debug)]
enum Found {
    Output(Box<StageOutput>),
    Files(Vec<FileRecord>),
    /// Files of which some were pruned: what was made from them is known, and cannot be made again.
    Pruned(Vec<FileRecord>),
}

/// One input as `--dry-run` tells it.
#[derive(Debug)]
pub(crate) struct InputState<'a> {
    pub(crate) what: &'a str,
    pub(crate) path: &'a Path,
    pub(crate) problem: Option<&'a anyhow::Error>,
}

impl<'a> StageInputs<'a> {
    /// No inputs yet.
    #[must_use]
    pub fn new(context: &'a StageContext) -> Self {
        Self { context, inputs: Vec::new(), digests: BTreeMap::new() }
    }

    /// Declares the output of a stage at the same place.
    #[must_use]
    pub fn with_stage(self, stage: Stage) -> Self {
        let place = self.context.place;
        self.with_stage_at(stage, place)
    }

    /// Declares the output of a stage at another place.
    #[must_use]
    pub fn with_stage_at(mut self, stage: Stage, place: Place) -> Self {
        let layout = &self.context.layout;
        let found = StageOutput::open(layout, stage, place).map(|output| Found::Output(Box::new(output)));
        let input = Input {
            what: format!("{stage} at {place}"),
            path: layout.shown(&layout.stage_folder(stage, place)),
            found: found.map_err(Into::into),
        };
        self.inputs.push(input);
        self
    }

    /// Declares a file, such as a prompt. `what` names it in the manifest's digests. One that lies in the folder of a stage of the run
    /// must be listed by that stage's manifest.
    #[must_use]
    pub fn with_file(mut self, what: &str, path: &Path) -> Self {
        let found = self.file_record(path).map(|record| {
            self.digests.insert(what.to_owned(), record.digest.clone());
            self.found_files(vec![record])
        });
        self.inputs.push(Input { what: what.to_owned(), path: path.to_owned(), found });
        self
    }

    /// Declares a checkpoint folder: its config, its tokenizer, [`COMPANION_FILES`] and all its weights. One that lies in the run must
    /// be listed, file by file, by the manifest of the training step that left it: a step that was killed has left no checkpoint.
    #[must_use]
    pub fn with_checkpoint(mut self, what: &str, folder: &Path) -> Self {
        let found = self.checkpoint_records(folder).map(|records| {
            for record in &records {
                let name = record.path.rsplit('/').next().unwrap_or_default();
                self.digests.insert(format!("{what}/{name}"), record.digest.clone());
            }
            self.found_files(records)
        });
        self.inputs.push(Input { what: what.to_owned(), path: folder.to_owned(), found });
        self
    }

    /// Declares a value that decides the output but stands in no file, such as the index of a variant.
    #[must_use]
    pub fn with_value(mut self, what: &str, value: impl std::fmt::Display) -> Self {
        self.digests.insert(what.to_owned(), value.to_string());
        self
    }

    /// The output of a declared stage; where a stage was declared at several places, the first.
    ///
    /// # Errors
    /// When it was not declared.
    pub fn output(&self, stage: Stage) -> anyhow::Result<&StageOutput> {
        self.outputs().find(|output| output.stage() == stage).ok_or_else(|| undeclared(stage.as_str()))
    }

    /// The output of a stage that was declared at `place`.
    ///
    /// # Errors
    /// When it was not declared.
    pub fn output_at(&self, stage: Stage, place: Place) -> anyhow::Result<&StageOutput> {
        self.outputs().find(|output| output.stage() == stage && output.place() == place).ok_or_else(|| undeclared(stage.as_str()))
    }

    /// Where a declared file or checkpoint lies.
    ///
    /// # Errors
    /// When it was not declared.
    pub fn path(&self, what: &str) -> anyhow::Result<&Path> {
        self.inputs.iter().find(|input| input.what == what).map(|input| input.path.as_path()).ok_or_else(|| undeclared(what))
    }

    /// The text of a declared file.
    ///
    /// # Errors
    /// When it was not declared or cannot be read.
    pub fn text(&self, what: &str) -> anyhow::Result<String> {
        read_text(self.path(what)?)
    }

    /// A declared prompt file, for the model of a declared checkpoint.
    ///
    /// # Errors
    /// When one of them was not declared or cannot be used.
    #[cfg(feature = "model")]
    pub fn prompt(&self, what: &str, checkpoint: &str) -> anyhow::Result<Prompt> {
        Prompt::new(&self.text(what)?, self.path(what)?, Some(self.path(checkpoint)?))
    }

    /// The records of every input file, in the order of declaration.
    pub(crate) fn records(&self) -> Vec<FileRecord> {
        let found = self.inputs.iter().filter_map(|input| input.found.as_ref().ok());
        found
            .flat_map(|found| match found {
                Found::Output(output) => output.input_records(),
                Found::Files(records) | Found::Pruned(records) => records.clone(),
            })
            .collect()
    }

    pub(crate) fn digests(&self) -> &BTreeMap<String, String> {
        &self.digests
    }

    pub(crate) fn states(&self) -> impl Iterator<Item = InputState<'_>> {
        self.inputs.iter().map(|input| InputState { what: &input.what, path: &input.path, problem: input.found.as_ref().err() })
    }

    /// All inputs are there, or the first problem.
    pub(crate) fn require_all(mut self) -> anyhow::Result<Self> {
        if let Some(at) = self.inputs.iter().position(|input| input.found.is_err()) {
            let input = self.inputs.swap_remove(at);
            let what = input.what;
            return Err(input.found.err().unwrap_or_else(|| undeclared(&what)).context(format!("cannot use input {what}")));
        }
        Ok(self)
    }

    /// Nothing of it was pruned, so that the stage can run.
    pub(crate) fn require_unpruned(&self) -> anyhow::Result<()> {
        let pruned = self.inputs.iter().find(|input| matches!(input.found, Ok(Found::Pruned(_))));
        let Some(input) = pruned else { return Ok(()) };
        let message = format!("input {} was pruned: {}", input.what, input.path.display());
        let hint = "the same profile and seed in another run directory make it again, byte for byte";
        Err(StageFailure::input(message).hint(hint).into())
    }

    fn found_files(&self, records: Vec<FileRecord>) -> Found {
        let is_gone = |record: &FileRecord| {
            let path = self.context.layout.absolute(&record.path);
            self.context.layout.stage_origin(&path).is_some() && !path.exists()
        };
        if records.iter().any(is_gone) { Found::Pruned(records) } else { Found::Files(records) }
    }

    fn outputs(&self) -> impl Iterator<Item = &StageOutput> {
        self.inputs.iter().filter_map(|input| match &input.found {
            Ok(Found::Output(output)) => Some(&**output),
            _ => None,
        })
    }

    fn checkpoint_records(&self, folder: &Path) -> anyhow::Result<Vec<FileRecord>> {
        let writer = match self.context.checkpoint_step(folder) {
            Some(place) => Some(self.writer_of(folder, Stage::GrpoStep, place)?),
            None => None,
        };
        let pruned = writer.as_ref().map_or_else(|| Ok(Vec::new()), StageOutput::pruned)?;
        let pruned: Vec<PathBuf> = pruned.iter().map(|record| self.context.layout.absolute(&record.path)).collect();
        let files = checkpoint_files(folder, &pruned, writer.is_some())?;
        files.iter().map(|file| self.listed_record(file, writer.as_ref())).collect()
    }

    fn file_record(&self, path: &Path) -> anyhow::Result<FileRecord> {
        let writer = match self.context.layout.stage_origin(path) {
            Some((stage, place)) => Some(self.writer_of(path, stage, place)?),
            None => None,
        };
        self.listed_record(path, writer.as_ref())
    }

    /// The output that a file or folder of the run is part of, with that part on this machine.
    fn writer_of(&self, path: &Path, stage: Stage, place: Place) -> anyhow::Result<StageOutput> {
        let output = StageOutput::open(&self.context.layout, stage, place)?;
        output.bring_below(path)?;
        Ok(output)
    }

    /// The record of a file, which must be the one that a manifest of the stage that wrote it lists.
    fn listed_record(&self, path: &Path, writer: Option<&StageOutput>) -> anyhow::Result<FileRecord> {
        let pruned = writer.map_or_else(|| Ok(Vec::new()), StageOutput::pruned)?;
        if let Some(record) = pruned.into_iter().find(|record| self.context.layout.absolute(&record.path) == path) {
            return Ok(record.clone());
        }
        let record = self.record(path)?;
        let Some(writer) = writer else { return Ok(record) };
        let is_listed = |listed: &FileRecord| listed.path == record.path && listed.digest == record.digest;
        if writer.input_records().iter().any(is_listed) {
            return Ok(record);
        }
        let message = format!("{} is not the file that the manifest of its {} lists", path.display(), writer.stage());
        let command = self.context.layout.command(writer.stage(), writer.place());
        // With the file gone the stage finds its output no longer whole, and makes it anew.
        Err(StageFailure::input(message).hint(format!("remove the file and run: {command}")).into())
    }

    fn record(&self, path: &Path) -> anyhow::Result<FileRecord> {
        let digest = digest_file(path)?;
        Ok(FileRecord {
            path: self.context.record_path(path),
            digest: digest.digest,
            num_bytes: digest.num_bytes,
            table: None,
            table_version: None,
            num_rows: None,
        })
    }
}

/// Files that a model folder may have beside its config, tokenizer and weights, and that decide what it writes: how prompts are
/// written, where completions stop. They go where the model goes.
pub const COMPANION_FILES: [&str; 3] = ["chat_template.jinja", "generation_config.json", "tokenizer_config.json"];

/// Config, tokenizer, companions and weights of a checkpoint, in a fixed order, those that were pruned as well.
fn checkpoint_files(folder: &Path, pruned: &[PathBuf], is_of_run: bool) -> anyhow::Result<Vec<PathBuf>> {
    let missing = |what: &str| {
        let message = format!("{} holds no checkpoint: it has no {what}", folder.display());
        let hint = match is_of_run {
            true => "run the grpo-step stages that lead to it",
            false => {
                "bring the model there (`just model-smollm2`, `just fetch-model`), or name another one with model.path in the profile"
            }
        };
        StageFailure::input(message).hint(hint)
    };
    let mut files = Vec::new();
    for name in ["config.json", "tokenizer.json"] {
        let file = folder.join(name);
        if !file.is_file() {
            return Err(missing(name).into());
        }
        files.push(file);
    }
    files.extend(COMPANION_FILES.map(|name| folder.join(name)).into_iter().filter(|file| file.is_file()));
    let is_weights = |path: &Path| path.extension().is_some_and(|extension| extension == "safetensors");
    let of_folder = |path: &&PathBuf| path.parent() == Some(folder) && is_weights(path);
    let mut weights: Vec<PathBuf> = pruned.iter().filter(of_folder).cloned().collect();
    for entry in std::fs::read_dir(folder).map_err(IoError::file("read", folder))? {
        let path = entry.map_err(IoError::file("read", folder))?.path();
        let is_hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden && is_weights(&path) {
            weights.push(path);
        }
    }
    if weights.is_empty() {
        return Err(missing("*.safetensors").into());
    }
    weights.sort();
    files.append(&mut weights);
    Ok(files)
}

fn undeclared(what: &str) -> anyhow::Error {
    StageFailure::internal(format!("input {what} is used but was not declared")).into()
}
