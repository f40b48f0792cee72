//! `vote-label`: the Solver's answers to each question become a vote, a pseudo-label and every figure the label follows from.
//!
//! Reads the `challenges` of challenge-gen and the `rollouts` of solve-sample at the same place; writes `labels`, one row for each
//! well-formed question of its shard. A question that lacks an answer, or has one too many, stops the stage: an answer that silently
//! went missing would change the vote. Where the profile's labeller weighs answers, it reads what it weighs them by beside them: the Solver's
//! confidence from the rollouts, the Verifier's verdicts from verify.
//!
//! Both inputs come in row order and are streamed: some row groups of rollouts are read side by side, only the columns that a vote needs;
//! what is whole of them is voted on while the labels before are written. Rollouts in another order are refused.

mod answers;
mod labels;
mod weights;

use crate::answers::{answer_rule, may_answer};
use crate::args::{CommonArgs, EXIT_CODES_HELP};
use crate::console::Progress;
use crate::context::StageContext;
use crate::exit::StageFailure;
use crate::frame::run_stage;
use crate::inputs::StageInputs;
use crate::judged::{mean, num_answers};
use crate::outputs::StageOutputs;
use crate::questions::{QuestionStream, Questions};
use answers::{Answers, Run, check_order};
use labels::{LabelBatch, Labels, NumByStatus};
use rayon::prelude::*;
use rzero_algo::vote::{Ballot, weighted_vote};
use rzero_io::scan::Piece;
use rzero_schema::tables::{Label, Rollout};
use rzero_schema::vocab::{AnswerStatus, LabelSolver, Phase, Stage};
use std::ops::Range;
use weights::Weigher;

/// Vote on the Solver's answers: rollouts to pseudo-labels.
#[derive(Debug, clap::Parser)]
#[command(name = "vote-label", version, after_help = EXIT_CODES_HELP)]
pub struct Args {
    #[command(flatten)]
    common: CommonArgs,
}

/// Runs the stage.
///
/// # Errors
/// As [`run_stage`]; also when the answers to a question are not exactly those that the profile asks for.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let context = StageContext::new(Stage::VoteLabel, &args.common, &[Phase::Challenger, Phase::Curriculum])?;
    let inputs = StageInputs::new(&context).with_stage(Stage::ChallengeGen).with_stage(Stage::SolveSample);
    let is_judged = context.profile.is_judged(context.place.iteration, context.place.phase);
    let inputs = if is_judged { inputs.with_stage(Stage::Verify) } else { inputs };
    run_stage(&context, inputs, |inputs, outputs| label_shard(&context, inputs, outputs))
}

/// Row groups of rollouts that are read side by side, for each thread.
const PIECES_PER_THREAD: usize = 3;
/// Questions that one thread votes on at a time.
const VOTE_ROWS: usize = 1024;

fn label_shard(context: &StageContext, inputs: &StageInputs<'_>, outputs: &mut StageOutputs<'_>) -> anyhow::Result<()> {
    let mut questions = QuestionStream::new(inputs.output(Stage::ChallengeGen)?)?;
    let rows = context.shard_rows(questions.num_rows());
    questions.skip_to(rows.start);
    let num_questions = questions.num_rows();
    let may_concern = |piece: &Piece<Rollout>| may_concern(piece, &rows, num_questions);
    let weigher = Weigher::new(context, inputs, &rows)?;
    let pieces = inputs.output(Stage::SolveSample)?.scan_where::<Rollout>(&weigher.columns(), may_concern)?;
    let progress = Progress::start("reading answers", pieces.iter().map(Piece::num_rows).sum(), "rollouts");
    let mut polls = Polls {
        context,
        num_samples: num_answers(context),
        num_first: num_first(context),
        rows,
        questions,
        weigher,
        started: Answers::default(),
    };
    let mut means = Means::default();
    let mut writer = outputs.table_writer::<Label>()?;

    // At least one round, so that questions without any answer are missed.
    let mut rounds: Vec<&[Piece<Rollout>]> = pieces.chunks(PIECES_PER_THREAD * context.threads).collect();
    if rounds.is_empty() {
        rounds.push(&[]);
    }
    let num_rounds = rounds.len();
    let mut voted: Vec<LabelBatch> = Vec::new();
    for (round, pieces) in rounds.into_iter().enumerate() {
        context.interrupt.check()?;
        let (next, written) = rayon::join(
            || polls.vote_on(pieces, round + 1 == num_rounds),
            || voted.iter().try_for_each(|batch| writer.write_columns(&batch.columns)),
        );
        written?;
        voted = next?;
        voted.iter().for_each(|batch| means.add(batch));
        progress.advance(pieces.iter().map(Piece::num_rows).sum());
    }
    voted.iter().try_for_each(|batch| writer.write_columns(&batch.columns))?;
    means.tell(outputs);
    outputs.finish_table(writer)
}

fn num_first(context: &StageContext) -> Option<usize> {
    let settings = &context.profile.stability;
    let is_split = context.place.phase == Phase::Curriculum && settings.label_solver == LabelSolver::Both;
    is_split.then(|| settings.num_of_newest(num_answers(context)) as usize)
}

/// Whether a row group may hold answers to questions of these rows, or to none of the `num_questions`.
fn may_concern(piece: &Piece<Rollout>, rows: &Range<u64>, num_questions: u64) -> bool {
    let is_beyond = || piece.range("row").is_none_or(|range| *range.end() >= num_questions);
    may_answer(piece, rows) || (rows.end == num_questions && is_beyond())
}

/// Questions and their answers, side by side.
struct Polls<'a> {
    context: &'a StageContext,
    num_samples: u32,
    /// Answers of the first of two Solvers, where two answered.
    num_first: Option<usize>,
    rows: Range<u64>,
    questions: QuestionStream,
    weigher: Weigher,
    /// Answers to the question whose last ones were not read yet.
    started: Answers,
}

impl Polls<'_> {
    /// Reads row groups of answers, and votes on the questions whose answers are whole by that.
    fn vote_on(&mut self, pieces: &[Piece<Rollout>], is_last: bool) -> anyhow::Result<Vec<LabelBatch>> {
        let rule = answer_rule(&self.context.profile);
        // The last shard also reads what belongs to no question, so as to refuse it.
        let rows = self.rows.start..if self.rows.end == self.questions.num_rows() { u64::MAX } else { self.rows.end };
        let read: Vec<Answers> = pieces
            .par_iter()
            .with_max_len(1)
            .map(|piece| Answers::read(piece, &rows, &rule, self.weigher.confidence()))
            .collect::<anyhow::Result<_>>()?;
        let mut answers = vec![std::mem::take(&mut self.started)];
        answers.extend(read);
        answers.retain(|answers| answers.first().is_some());
        for pair in answers.windows(2) {
            if let (Some((row, sample, id)), Some(next)) = (pair[0].last(), pair[1].first()) {
                check_order(Some((row, sample)), next, id)?;
            }
        }
        let last_row = answers.last().and_then(Answers::last).map_or(self.rows.start, |(row, ..)| row);
        let end = if is_last { self.rows.end } else { last_row.min(self.rows.end) };
        let runs: Vec<Run<'_>> = answers.iter().flat_map(Answers::runs).collect();
        if let Some(run) = runs.get(runs.partition_point(|run| run.row() < self.rows.end)) {
            return Err(no_question(run));
        }
        let (whole, started) = runs.split_at(runs.partition_point(|run| run.row() < end));
        started.iter().for_each(|run| self.started.copy(run));
        let questions: Vec<Questions> = self.questions.until(end)?;
        let batches: Vec<Questions> = questions
            .iter()
            .flat_map(|some| (0..some.len()).step_by(VOTE_ROWS).map(|start| some.slice(start, VOTE_ROWS.min(some.len() - start))))
            .collect();
        batches.par_iter().with_max_len(1).map(|questions| self.labels(questions, whole)).collect()
    }

    /// The labels of consecutive questions; `runs` holds the answers to these and to others.
    fn labels(&self, questions: &Questions, runs: &[Run<'_>]) -> anyhow::Result<LabelBatch> {
        let rows = questions.rows();
        let first = runs.partition_point(|run| run.row() < rows.start);
        let mut runs = runs[first..].chunk_by(|left, right| left.row() == right.row()).peekable();
        let mut labels = Labels::default();
        let (mut samples, mut ballots): (Vec<u32>, Vec<Ballot<'_>>) = (Vec::new(), Vec::new());
        let mut confidences: Vec<Option<f64>> = Vec::new();
        for (at, row) in rows.enumerate() {
            let id = questions.ids.value(at);
            samples.clear();
            ballots.clear();
            confidences.clear();
            for run in runs.next_if(|runs| runs[0].row() == row).unwrap_or_default() {
                if run.id() != id || !questions.is_ok(at) {
                    return Err(no_question(run));
                }
                samples.extend_from_slice(run.samples());
                ballots.extend(run.ballots());
                confidences.extend_from_slice(run.confidences());
            }
            if !questions.is_ok(at) {
                continue;
            }
            if !samples.iter().copied().eq(0..self.num_samples) {
                let found = samples.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
                let last = self.num_samples.saturating_sub(1);
                let message = format!("question {id} has answers [{found}], expected samples 0 to {last}");
                return Err(stale_rollouts(message).into());
            }
            let verdicts = self.weigher.verdicts(row, &samples);
            let judged = voting_verdicts(&ballots, verdicts.as_deref());
            let score = mean(&judged);
            let best = judged.iter().copied().fold(0.0, f64::max);
            let weights = self.weigher.weights(&ballots, &confidences, verdicts.as_deref());
            let outcome = weighted_vote(&ballots, weights.as_deref());
            let outcome = self.weigher.judged(outcome, questions.texts.value(at), score, best);
            let is_agreed = [
                self.num_first.map(|num_first| outcome.is_agreed(num_first)),
                self.weigher.upholds(&outcome, verdicts.as_deref()),
            ];
            let is_agreed = is_agreed.into_iter().flatten().reduce(|one, other| one && other);
            labels.add(id, row, questions.texts.value(at), &ballots, &outcome, is_agreed, score)?;
        }
        labels.finish()
    }
}

/// The verdicts on the answers that vote, of those that were judged.
fn voting_verdicts(ballots: &[Ballot<'_>], verdicts: Option<&[Option<f64>]>) -> Vec<f64> {
    let votes =
        |(ballot, verdict): (&Ballot<'_>, &Option<f64>)| (ballot.status == AnswerStatus::Parsed).then_some(*verdict).flatten();
    ballots.iter().zip(verdicts.unwrap_or_default()).filter_map(votes).collect()
}

/// Counts and means of the manifest, taken in row order.
#[derive(Default)]
struct Means {
    num_labels: u64,
    vote_share: f64,
    parsed_share: f64,
    truncated_share: f64,
    num_by_status: NumByStatus,
}

impl Means {
    fn add(&mut self, batch: &LabelBatch) {
        self.num_labels += batch.figures.len() as u64;
        for figures in &batch.figures {
            self.vote_share += figures.vote_share;
            self.parsed_share += figures.parsed_share;
            self.truncated_share += figures.truncated_share;
        }
        self.num_by_status.iter_mut().zip(&batch.num_by_status).for_each(|(sum, number)| *sum += number);
    }

    fn tell(&self, outputs: &mut StageOutputs<'_>) {
        for (status, number) in AnswerStatus::ALL.iter().zip(self.num_by_status) {
            outputs.count(status.as_str(), number);
        }
        let num_labels = self.num_labels as f64;
        outputs.metric("num_labels", num_labels);
        if self.num_labels > 0 {
            outputs.metric("vote_share_mean", self.vote_share / num_labels);
            outputs.metric("parsed_share", self.parsed_share / num_labels);
            outputs.metric("truncated_share", self.truncated_share / num_labels);
        }
    }
}

fn no_question(run: &Run<'_>) -> anyhow::Error {
    stale_rollouts(format!("a rollout answers {}, row {}, which is no question of this place", run.id(), run.row())).into()
}

fn stale_rollouts(message: String) -> StageFailure {
    StageFailure::input(message).hint("rerun solve-sample for this place, so that every question has all its answers")
}
