//! `filter`: which labelled candidates the Solver will train on. Candidates = curriculum + dropped, each drop with its first reason.
//!
//! Questions and labels come in row order and are streamed side by side; labels in another order are refused. The gates are one query over
//! columns (`gates.rs`). All that is kept of the candidates before is what tells a repeated question (`seen.rs`), 30 bytes or so for each.

mod gates;
mod labels;
mod seen;

use crate::args::{CommonArgs, EXIT_CODES_HELP};
use crate::console::Progress;
use crate::context::StageContext;
use crate::exit::StageFailure;
use crate::frame::run_stage;
use crate::inputs::StageInputs;
use crate::outputs::StageOutputs;
use crate::questions::{QuestionStream, Questions};
use anyhow::Context;
use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, StringBuilder, UInt32Array, UInt64Array,
};
use arrow::compute::{filter, not, take};
use gates::{GateColumns, verdicts};
use labels::{LabelStream, Labels};
use rayon::prelude::*;
use rzero_algo::curriculum::Gate;
use rzero_schema::table::Table;
use rzero_schema::tables::{CurriculumRow, DroppedRow};
use rzero_schema::vocab::{DropReason, Phase, Stage};
use seen::Seen;
use std::sync::Arc;

/// Keep the informative candidates: labels to curriculum and dropped rows.
#[derive(Debug, clap::Parser)]
#[command(name = "filter", version, after_help = EXIT_CODES_HELP)]
pub struct Args {
    #[command(flatten)]
    common: CommonArgs,
}

/// Runs the stage.
///
/// # Errors
/// As [`run_stage`]; also when labels and questions do not belong to each other.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let context = StageContext::new(Stage::Filter, &args.common, &[Phase::Curriculum])?;
    context.require_unsharded()?;
    let inputs = StageInputs::new(&context).with_stage(Stage::ChallengeGen).with_stage(Stage::VoteLabel);
    run_stage(&context, inputs, |inputs, outputs| filter_candidates(&context, inputs, outputs))
}

/// Row groups of questions that are filtered side by side, for each thread.
const PIECES_PER_THREAD: usize = 2;

fn filter_candidates(context: &StageContext, inputs: &StageInputs<'_>, outputs: &mut StageOutputs<'_>) -> anyhow::Result<()> {
    let settings = &context.profile.curriculum;
    let band = context.profile.band(context.place.iteration);
    let gate = Gate { version: settings.gate_version, low: band.low, high: band.high, min_margin: settings.min_margin };
    let num_pieces = PIECES_PER_THREAD * context.threads;
    let questions = QuestionStream::new(inputs.output(Stage::ChallengeGen)?)?;
    let labels = LabelStream::new(inputs.output(Stage::VoteLabel)?, num_pieces)?;
    let num_candidates = questions.num_rows();
    let seen = settings.drop_duplicates.then(|| Seen::with_capacity(usize::try_from(num_candidates).unwrap_or(0)));
    let progress = Progress::start("filtering", num_candidates, "candidates");
    let mut candidates = Candidates { questions, labels, seen, gate };
    let (mut curriculum, mut dropped) = (outputs.table_writer::<CurriculumRow>()?, outputs.table_writer::<DroppedRow>()?);
    let (mut num_kept, mut num_by_reason) = (0, [0_u64; DropReason::ALL.len()]);

    let (mut done, mut sorted): (u64, Vec<Sorted>) = (0, Vec::new());
    while done < num_candidates || !sorted.is_empty() {
        context.interrupt.check()?;
        let end = candidates.questions.next_end(num_pieces);
        let (next, written) = rayon::join(
            || if done < num_candidates { candidates.sort_until(end) } else { Ok(Vec::new()) },
            || {
                let (kept, refused) = rayon::join(
                    || sorted.iter().try_for_each(|batch| curriculum.write_columns(&batch.curriculum)),
                    || sorted.iter().try_for_each(|batch| dropped.write_columns(&batch.dropped)),
                );
                kept.and(refused)
            },
        );
        written?;
        for batch in &sorted {
            num_kept += batch.curriculum.num_rows() as u64;
            num_by_reason.iter_mut().zip(batch.num_by_reason).for_each(|(sum, number)| *sum += number);
        }
        sorted = next?;
        progress.advance(end - done);
        done = end;
    }
    candidates.require_end()?;
    let num_dropped: u64 = num_by_reason.iter().sum();
    if num_kept + num_dropped != num_candidates {
        let message = format!("{num_candidates} candidates became {num_kept} kept and {num_dropped} dropped rows");
        return Err(StageFailure::internal(message).into());
    }
    for (reason, number) in DropReason::ALL.iter().zip(num_by_reason) {
        outputs.count(reason.as_str(), number);
    }
    outputs.metric("num_candidates", num_candidates as f64);
    outputs.metric("num_kept", num_kept as f64);
    outputs.metric("kept_share", num_kept as f64 / num_candidates.max(1) as f64);
    tracing::info!(candidates = num_candidates, kept = num_kept, "filtered");
    if num_kept == 0 {
        tracing::warn!("no candidate passed the gates: the Solver has nothing to train on");
    }
    outputs.finish_table(curriculum)?;
    outputs.finish_table(dropped)
}

/// Questions and their labels, side by side.
struct Candidates {
    questions: QuestionStream,
    labels: LabelStream,
    /// Questions that came before, where repeated ones are dropped.
    seen: Option<Seen>,
    gate: Gate,
}

/// Consecutive candidates, kept and dropped.
struct Sorted {
    curriculum: RecordBatch,
    dropped: RecordBatch,
    num_by_reason: [u64; DropReason::ALL.len()],
}

impl Candidates {
    /// Sorts the candidates from where the last call ended to those before row `end`.
    fn sort_until(&mut self, end: u64) -> anyhow::Result<Vec<Sorted>> {
        let (questions, labels) = (self.questions.until(end)?, self.labels.until(end)?);
        let texts: Vec<&StringArray> = questions.iter().map(|questions| &questions.texts).collect();
        let is_repeated = match &mut self.seen {
            Some(seen) => seen.add(&texts),
            None => texts.iter().map(|texts| vec![false; texts.len()]).collect(),
        };
        let gate = &self.gate;
        let sort = |(questions, is_repeated): (&Questions, Vec<bool>)| {
            let rows = questions.rows();
            sort(questions, &Labels::of_rows(&labels, rows.start, rows.end)?, is_repeated, gate)
        };
        questions.par_iter().zip(is_repeated).with_max_len(1).map(sort).collect()
    }

    /// All labels belonged to candidates.
    fn require_end(&self) -> anyhow::Result<()> {
        match self.labels.num_left() {
            0 => Ok(()),
            num => Err(foreign_labels(num).into()),
        }
    }
}

/// Sorts consecutive candidates, of which `labels` are all labels.
fn sort(questions: &Questions, labels: &Labels, is_repeated: Vec<bool>, gate: &Gate) -> anyhow::Result<Sorted> {
    let label_of = labels_of(questions, labels)?;
    let figure = |values: &Float64Array| -> Vec<f64> {
        label_of.iter().map(|at| at.map_or(0.0, |at| values.value(at as usize))).collect()
    };
    let (vote_share, margin) = (figure(&labels.vote_shares), figure(&labels.margins));
    let columns = GateColumns {
        is_ok: (0..questions.len()).map(|at| questions.is_ok(at)).collect(),
        is_repeated,
        has_label: label_of.iter().map(|at| at.is_some_and(|at| labels.pseudo_labels.is_valid(at as usize))).collect(),
        is_disagreed: label_of
            .iter()
            .map(|at| at.is_some_and(|at| labels.agreements.is_valid(at as usize) && !labels.agreements.value(at as usize)))
            .collect(),
        vote_share,
        margin,
    };
    let reasons = verdicts(columns, gate).context("cannot run the filter's query")?;
    if reasons.len() != questions.len() {
        let message = format!("{} candidates gave {} verdicts", questions.len(), reasons.len());
        return Err(StageFailure::internal(message).into());
    }

    let kept = BooleanArray::from_iter(reasons.iter().map(|reason| Some(reason.is_none())));
    let refused = not(&kept)?;
    let of_questions: [ArrayRef; 3] = [
        Arc::new(questions.ids.clone()),
        Arc::new(UInt64Array::from_iter_values(questions.rows())),
        Arc::new(questions.texts.clone()),
    ];
    let of_labels: [&dyn Array; 3] = [&labels.pseudo_labels, &labels.vote_shares, &labels.margins];
    let columns = |mask: &BooleanArray| -> anyhow::Result<([ArrayRef; 3], [ArrayRef; 3], ArrayRef)> {
        let [ids, rows, texts] = &of_questions;
        let label_of = filter(&label_of, mask)?;
        let label_of = label_of.as_any().downcast_ref::<UInt32Array>().context("filtered numbers are numbers")?;
        let [pseudo_labels, vote_shares, margins] = of_labels;
        let versions: ArrayRef = Arc::new(UInt32Array::from_value(gate.version, label_of.len()));
        Ok((
            [filter(ids, mask)?, filter(rows, mask)?, filter(texts, mask)?],
            [take(pseudo_labels, label_of, None)?, take(vote_shares, label_of, None)?, take(margins, label_of, None)?],
            versions,
        ))
    };

    let ([ids, rows, texts], [pseudo_labels, vote_shares, margins], versions) = columns(&kept)?;
    let curriculum = vec![ids, rows, texts, pseudo_labels, vote_shares, margins, versions];
    let ([ids, rows, texts], [pseudo_labels, vote_shares, margins], versions) = columns(&refused)?;
    let mut num_by_reason = [0; DropReason::ALL.len()];
    let mut drop_reasons = StringBuilder::new();
    for reason in reasons.into_iter().flatten() {
        num_by_reason[reason as usize] += 1;
        drop_reasons.append_value(reason.as_str());
    }
    let statuses = filter(&questions.statuses, &refused)?;
    let dropped =
        vec![ids, rows, texts, Arc::new(drop_reasons.finish()), statuses, pseudo_labels, vote_shares, margins, versions];
    Ok(Sorted {
        curriculum: RecordBatch::try_new(CurriculumRow::arrow_schema(), curriculum)?,
        dropped: RecordBatch::try_new(DroppedRow::arrow_schema(), dropped)?,
        num_by_reason,
    })
}

/// Where the label of each question stands: exactly one for each well-formed question.
fn labels_of(questions: &Questions, labels: &Labels) -> anyhow::Result<UInt32Array> {
    let rows = labels.rows.values();
    let mut next = 0;
    let (mut label_of, mut num_foreign) = (Vec::with_capacity(questions.len()), 0);
    for (at, row) in questions.rows().enumerate() {
        let id = questions.ids.value(at);
        let is_next = rows.get(next) == Some(&row);
        let is_labelled = is_next && labels.ids.value(next) == id;
        if questions.is_ok(at) != is_labelled {
            let what = if questions.is_ok(at) { "has no label" } else { "has a label but is malformed" };
            return Err(stale_labels(format!("question {id} {what}")).into());
        }
        label_of.push(is_labelled.then_some(u32::try_from(next)?));
        num_foreign += u64::from(is_next && !is_labelled);
        next += usize::from(is_next);
    }
    if num_foreign > 0 {
        return Err(foreign_labels(num_foreign).into());
    }
    Ok(label_of.into())
}

fn foreign_labels(num: u64) -> StageFailure {
    stale_labels(format!("{num} labels belong to no question of this place"))
}

fn stale_labels(message: String) -> StageFailure {
    StageFailure::input(message).hint("rerun vote-label for this place")
}
