//! From a run directory to what the report says beyond the summary: questions, tokens, problems learned and lost, machine and build.

use super::questions::{self, Questions};
use crate::run_dir::MirrorArgs;
use crate::scores::Changes;
use crate::stages::summary::collect::{IterationSummary, RunSummary, manifests_below, read_run};
use anyhow::Context;
use rzero_io::atomic::digest_file;
use rzero_io::layout::RunLayout;
use rzero_io::reader::read_table;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::tables::{EvalItem, EvalResult, Rollout};
use rzero_schema::vocab::{EvalMode, EvalStyle, Phase, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A run as the report shows it.
pub(super) struct RunReport {
    /// What tells it apart from the other runs.
    pub(super) name: String,
    pub(super) summary: RunSummary,
    /// By iteration.
    pub(super) questions: BTreeMap<u32, Questions>,
    /// Tokens by iteration and stage: those written, and those trained on.
    pub(super) tokens: BTreeMap<(u32, String), u64>,
    pub(super) changes: Option<Changed>,
    pub(super) origin: Origin,
}

/// What made the run.
#[derive(Default)]
pub(super) struct Origin {
    pub(super) versions: BTreeSet<String>,
    pub(super) commits: BTreeSet<String>,
    pub(super) devices: BTreeSet<String>,
    pub(super) threads: BTreeSet<u32>,
    pub(super) first_start: String,
    pub(super) last_end: String,
    pub(super) num_processes: usize,
    pub(super) num_bytes: u64,
}

/// Held-out problems whose greedy answer changed sides between the base model and the last iteration.
pub(super) struct Changed {
    pub(super) iteration: u32,
    pub(super) counts: Changes,
    pub(super) learned: Vec<Change>,
    pub(super) lost: Vec<Change>,
}

/// One such problem.
pub(super) struct Change {
    pub(super) item_id: String,
    /// None where the problem set is not there, or is not the one that was asked.
    pub(super) question: Option<String>,
    pub(super) gold: String,
    pub(super) before: String,
    pub(super) after: String,
}

/// Problems shown of each kind.
const NUM_SHOWN: usize = 6;
const BATCH_ROWS: usize = 16_384;

/// Reads a run.
pub(super) fn read(run: &Path, name: String, mirrors: &MirrorArgs, project_root: Option<&Path>) -> anyhow::Result<RunReport> {
    let layout = mirrors.layout_of(run)?;
    let summary = read_run(run, &layout, &[])?;
    let (mut questions, mut tokens) = (BTreeMap::new(), BTreeMap::new());
    for iteration in &summary.iterations {
        let number = iteration.iteration;
        if let Some(found) = questions::read(&layout, &summary.record.profile, number)? {
            questions.insert(number, found);
        }
        for training in [&iteration.challenger, &iteration.solver, &iteration.verifier].into_iter().flatten() {
            let trained: u64 = training.steps.iter().map(|step| step.num_completion_tokens).sum();
            *tokens.entry((number, Stage::GrpoStep.to_string())).or_default() += trained;
        }
    }
    let origin = read_manifests(&layout, &mut tokens)?;
    for number in layout.iterations()? {
        add_written(&layout, number, &mut tokens)?;
    }
    let changes = changes(&layout, &summary, project_root)?;
    Ok(RunReport { name, summary, questions, tokens, changes, origin })
}

/// What the manifests say of the making; adds the tokens that stages wrote.
fn read_manifests(layout: &RunLayout, tokens: &mut BTreeMap<(u32, String), u64>) -> anyhow::Result<Origin> {
    let mut origin = Origin::default();
    for manifest in manifests_below(layout.root())? {
        origin.num_processes += 1;
        origin.num_bytes += manifest.outputs.iter().map(|file| file.num_bytes).sum::<u64>();
        let written = match manifest.stage.parse() {
            Ok(Stage::SolveSample) => manifest.metrics.get("num_completion_tokens").map(|num| *num as u64),
            _ => None,
        };
        if let Some(written) = written {
            *tokens.entry((manifest.iteration, manifest.stage.clone())).or_default() += written;
        }
        let dirt = if manifest.build.is_dirty { " with changes" } else { "" };
        let commit: String = manifest.build.commit.chars().take(12).collect();
        origin.commits.insert(commit + dirt);
        origin.versions.insert(manifest.build.version);
        origin.devices.insert(manifest.device);
        origin.threads.insert(manifest.threads);
        if origin.first_start.is_empty() || manifest.started_at < origin.first_start {
            origin.first_start = manifest.started_at;
        }
        origin.last_end = origin.last_end.max(manifest.finished_at);
    }
    Ok(origin)
}

/// Adds the tokens of the stages whose manifests do not count them.
fn add_written(layout: &RunLayout, iteration: u32, tokens: &mut BTreeMap<(u32, String), u64>) -> anyhow::Result<()> {
    let mut add = |stage: Stage, num: u64| *tokens.entry((iteration, stage.to_string())).or_default() += num;
    let steps = (1..).map(|step| Place::new(iteration, Phase::Challenger, step));
    let begun = steps.take_while(|place| layout.stage_folder(Stage::ChallengeGen, *place).is_dir());
    for place in begun.chain([Place::new(iteration, Phase::Curriculum, 0)]) {
        let Some(output) = StageOutput::open_finished(layout, Stage::ChallengeGen, place)? else { continue };
        for rows in output.stream::<Rollout>(BATCH_ROWS)? {
            add(Stage::ChallengeGen, rows?.iter().map(|row| row.completion_tokens.len() as u64).sum());
        }
    }
    if let Some(output) = StageOutput::open_finished(layout, Stage::Eval, Place::new(iteration, Phase::Eval, 0))? {
        for rows in output.stream::<EvalResult>(BATCH_ROWS)? {
            add(Stage::Eval, rows?.iter().map(|row| u64::from(row.num_tokens)).sum());
        }
    }
    Ok(())
}

/// What changed from the base model to the last iteration that was evaluated on the same problems.
fn changes(layout: &RunLayout, summary: &RunSummary, project_root: Option<&Path>) -> anyhow::Result<Option<Changed>> {
    let scored = |iteration: &&IterationSummary| iteration.scores.is_some();
    let (Some(first), Some(last)) = (summary.iterations.first().filter(scored), summary.iterations.iter().rev().find(scored))
    else {
        return Ok(None);
    };
    let (Some(before), Some(after)) = (&first.scores, &last.scores) else { return Ok(None) };
    if first.iteration != 0 || last.iteration == 0 {
        return Ok(None);
    }
    let Some(counts) = after.evaluation.changes_from(&before.evaluation) else { return Ok(None) };
    let open = |iteration| StageOutput::open(layout, Stage::Eval, Place::new(iteration, Phase::Eval, 0));
    let (first, output) = (open(0)?, open(last.iteration)?);
    let (was, is) = (greedy(&first)?, greedy(&output)?);
    let asked = questions_asked(&output, project_root);
    let change = |id: &String| {
        let (was, is) = (was.get(id)?, is.get(id)?);
        Some(Change {
            item_id: id.clone(),
            question: asked.get(id).cloned(),
            gold: is.gold.clone(),
            before: was.completion.clone(),
            after: is.completion.clone(),
        })
    };
    let sided = |is_right: bool| {
        let changed = |id: &&String| is[*id].is_correct == is_right && was.get(*id).is_some_and(|was| was.is_correct != is_right);
        let ids: Vec<&String> = is.keys().filter(changed).collect();
        let num = ids.len().min(NUM_SHOWN);
        // Evenly spread, so that the choice is not ours.
        (0..num).filter_map(|index| change(ids[index * ids.len() / num])).collect()
    };
    Ok(Some(Changed { iteration: last.iteration, counts, learned: sided(true), lost: sided(false) }))
}

/// The greedy completions of an evaluation by problem.
fn greedy(output: &StageOutput) -> anyhow::Result<BTreeMap<String, EvalResult>> {
    let is_greedy = |row: &EvalResult| row.eval_mode == EvalMode::Greedy.as_str() && row.eval_style == EvalStyle::Free.as_str();
    let mut rows = BTreeMap::new();
    for batch in output.stream::<EvalResult>(BATCH_ROWS)? {
        rows.extend(batch?.into_iter().filter(is_greedy).map(|row| (row.item_id.clone(), row)));
    }
    Ok(rows)
}

/// The texts of the problems that an evaluation asked; empty where their file is not there as it was.
fn questions_asked(output: &StageOutput, project_root: Option<&Path>) -> BTreeMap<String, String> {
    let read = || -> anyhow::Result<BTreeMap<String, String>> {
        let manifest = output.manifests().first().context("no manifest")?;
        let digest = manifest.digests.get("items").context("no problem set")?;
        let record = manifest.inputs.iter().find(|record| record.digest == *digest).context("no problem set")?;
        let path = project_root.context("no project")?.join(&record.path);
        anyhow::ensure!(digest_file(&path)?.digest == *digest, "another problem set");
        Ok(read_table::<EvalItem>(&path)?.into_iter().map(|item| (item.item_id, item.question)).collect())
    };
    read().unwrap_or_else(|error| {
        tracing::warn!("the report shows no texts of held-out problems: {error:#}");
        BTreeMap::new()
    })
}
