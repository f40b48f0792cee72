//! The card of a dataset: what a reader needs to load it, and a person to believe it.

use crate::run_record::RunRecord;
use crate::template::{bounded_environment, json_value};
use anyhow::Context;
use arrow::datatypes::DataType;
use minijinja::syntax::SyntaxConfig;
use rzero_io::atomic::digest_file;
use rzero_io::layout::RunLayout;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::table::Table;
use rzero_schema::tables::{CurriculumRow, EvalResult, Rollout, all_tables};
use rzero_schema::vocab::{EvalMode, EvalStyle, Phase, Stage};
use serde::Serialize;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::path::Path;

const TEMPLATE: &str = include_str!("card.md.jinja");

/// Rows that are read at a time.
const BATCH_ROWS: usize = 8192;

/// One table of the dataset.
#[derive(Debug, Serialize)]
pub(super) struct Config {
    pub(super) name: &'static str,
    pub(super) splits: Vec<Split>,
}

/// The rows of one iteration.
#[derive(Debug, Serialize)]
pub(super) struct Split {
    name: String,
    files: Vec<String>,
    num_rows: u64,
    num_bytes: u64,
    /// What people look at first, in words.
    note: String,
    #[serde(skip)]
    commits: BTreeSet<String>,
}

impl Split {
    /// The rows of a stage's output, as `files` of the dataset.
    pub(super) fn new(name: &str, output: &StageOutput, files: Vec<String>) -> anyhow::Result<Self> {
        let (num_rows, note) = match output.stage() {
            Stage::Filter => of_curriculum(output)?,
            Stage::Eval => of_results(output)?,
            _ => of_rollouts(output)?,
        };
        let of_table = |record: &&rzero_schema::manifest::FileRecord| {
            record.table.as_deref().is_some_and(|table| [CurriculumRow::NAME, Rollout::NAME, EvalResult::NAME].contains(&table))
        };
        let records = output.manifests().iter().flat_map(|manifest| manifest.outputs.iter().filter(of_table));
        let num_bytes = records.map(|record| record.num_bytes).sum();
        let commits = output.manifests().iter().map(|manifest| manifest.build.commit.clone()).collect();
        Ok(Self { name: name.to_owned(), files, num_rows, num_bytes, note, commits })
    }
}

fn of_curriculum(output: &StageOutput) -> anyhow::Result<(u64, String)> {
    let (mut num, mut share) = (0u64, 0.0);
    for rows in output.stream::<CurriculumRow>(BATCH_ROWS)? {
        let rows = rows?;
        num += rows.len() as u64;
        share += rows.iter().map(|row| row.vote_share).sum::<f64>();
    }
    Ok((num, format!("vote share {:.3} in the mean", share / num.max(1) as f64)))
}

fn of_rollouts(output: &StageOutput) -> anyhow::Result<(u64, String)> {
    let (mut num, mut tokens, mut truncated) = (0u64, 0usize, 0usize);
    for rows in output.stream::<Rollout>(BATCH_ROWS)? {
        let rows = rows?;
        num += rows.len() as u64;
        tokens += rows.iter().map(|row| row.completion_tokens.len()).sum::<usize>();
        truncated += rows.iter().filter(|row| row.finish_reason == "length").count();
    }
    let share = |part: usize| part as f64 / num.max(1) as f64;
    Ok((num, format!("{:.1} tokens a completion, {:.1} % cut off", share(tokens), 100.0 * share(truncated))))
}

fn of_results(output: &StageOutput) -> anyhow::Result<(u64, String)> {
    let (mut num, mut greedy, mut right) = (0u64, 0u64, 0u64);
    for rows in output.stream::<EvalResult>(BATCH_ROWS)? {
        let rows = rows?;
        num += rows.len() as u64;
        let asked = |row: &&EvalResult| row.eval_mode == EvalMode::Greedy.as_str() && row.eval_style == EvalStyle::Free.as_str();
        greedy += rows.iter().filter(asked).count() as u64;
        right += rows.iter().filter(asked).filter(|row| row.is_correct).count() as u64;
    }
    Ok((num, format!("greedy {right} of {greedy} right ({:.1} %)", 100.0 * right as f64 / greedy.max(1) as f64)))
}

/// A column as people and hubs read it.
#[derive(Debug, Serialize)]
struct Feature {
    name: &'static str,
    /// The hub's word for its type, or for that of its items.
    dtype: &'static str,
    is_list: bool,
    is_nullable: bool,
    doc: String,
}

fn features(table: &str) -> anyhow::Result<Vec<Feature>> {
    let description = all_tables().into_iter().find(|description| description.name == table).context("a config is a table")?;
    let feature = |column: rzero_schema::table::Column| {
        let (data_type, is_list) = match &column.data_type {
            DataType::List(item) => (item.data_type().clone(), true),
            other => (other.clone(), false),
        };
        let dtype = match data_type {
            DataType::Utf8 => "string",
            DataType::Boolean => "bool",
            DataType::Int32 => "int32",
            DataType::UInt32 => "uint32",
            DataType::UInt64 => "uint64",
            DataType::Float32 => "float32",
            DataType::Float64 => "float64",
            other => anyhow::bail!("column {} has type {other}, for which hubs have no word here", column.name),
        };
        Ok(Feature { name: column.name, dtype, is_list, is_nullable: column.is_nullable, doc: column.doc })
    };
    description.columns.into_iter().map(feature).collect()
}

/// All that a card says.
pub(super) struct Card<'a> {
    pub(super) record: &'a RunRecord,
    pub(super) configs: &'a [Config],
    pub(super) license: &'a str,
    pub(super) layout: &'a RunLayout,
    pub(super) project_root: Option<&'a Path>,
}

impl Card<'_> {
    pub(super) fn text(&self) -> anyhow::Result<String> {
        let profile = &self.record.profile;
        let configs: Vec<Json> = self
            .configs
            .iter()
            .map(|config| Ok(json!({ "name": config.name, "splits": config.splits, "features": features(config.name)? })))
            .collect::<anyhow::Result<_>>()?;
        let splits = || self.configs.iter().flat_map(|config| &config.splits);
        let num_rows: u64 = splits().map(|split| split.num_rows).sum();
        let commits: BTreeSet<&String> = splits().flat_map(|split| &split.commits).collect();
        let weights = self.project_root.map(|root| root.join(&profile.model.path).join("model.safetensors"));
        let base_digest = weights.and_then(|path| digest_file(&path).ok()).map(|found| found.digest);
        let values = json!({
            "license": self.license,
            "size": size_category(num_rows),
            "name": self.record.profile_name,
            "seed": self.record.seed,
            "profile_digest": self.record.profile_digest,
            "model": profile.model.path,
            "base_digest": base_digest,
            "commits": commits,
            "configs": configs,
            "question": profile.curriculum.question_sampling,
            "answer": profile.curriculum.answer_sampling,
            "num_candidates": profile.curriculum.num_candidates,
            "num_samples": profile.curriculum.num_samples,
            "bands": profile.curriculum.bands,
            "eval": profile.eval.sampling,
            "eval_samples": profile.eval.num_samples,
            "probes": self.probes()?,
        });
        let mut environment = bounded_environment();
        environment
            .set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().context("cannot write the card")?);
        let text = environment.render_str(TEMPLATE, json_value(values)).context("cannot write the card")?;
        Ok(text.trim_end().to_owned() + "\n")
    }

    /// What the label probes of the run said, a line an iteration.
    fn probes(&self) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for iteration in self.layout.iterations()? {
            let Ok(output) = StageOutput::open(self.layout, Stage::LabelProbe, Place::new(iteration, Phase::Curriculum, 0))
            else {
                continue;
            };
            let Some(manifest) = output.manifests().first() else { continue };
            let metric = |name: &str| manifest.metrics.get(name).copied();
            if let (Some(share), Some(low), Some(high), Some(num)) =
                (metric("label_share"), metric("label_low"), metric("label_high"), metric("num_checked"))
            {
                let [share, low, high] = [share, low, high].map(|share| 100.0 * share);
                lines.push(format!(
                    "iteration {iteration}: {share:.0} % [{low:.0}, {high:.0}] of {num} labels that could be checked are true"
                ));
            }
        }
        Ok(lines)
    }
}

/// The hub's word for how many rows there are.
fn size_category(num_rows: u64) -> &'static str {
    match num_rows {
        0..1_000 => "n<1K",
        1_000..10_000 => "1K<n<10K",
        10_000..100_000 => "10K<n<100K",
        100_000..1_000_000 => "100K<n<1M",
        1_000_000..10_000_000 => "1M<n<10M",
        _ => "n>10M",
    }
}
