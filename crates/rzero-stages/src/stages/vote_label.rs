//! `vote-label`: the Solver's answers to each question become a vote, a pseudo-label and every figure the label follows from.
//!
//! Reads the `challenges` of challenge-gen and the `rollouts` of solve-sample at the same place; writes `labels`, one row for each
//! well-formed question of its shard. A question that lacks an answer, or has one too many, stops the stage: an answer that silently
//! went missing would change the vote.

use crate::answers::{answer_rule, read_rollout_answer};
use crate::args::{CommonArgs, EXIT_CODES_HELP};
use crate::console::Progress;
use crate::context::StageContext;
use crate::exit::StageFailure;
use crate::frame::run_stage;
use crate::inputs::StageInputs;
use crate::outputs::StageOutputs;
use anyhow::Context;
use rayon::prelude::*;
use rzero_algo::answer::ReadAnswer;
use rzero_algo::vote::{Ballot, vote};
use rzero_schema::tables::{Challenge, Label, Rollout};
use rzero_schema::vocab::{AnswerStatus, ChallengeStatus, Phase, Stage};
use std::collections::BTreeMap;

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
    run_stage(&context, inputs, |inputs, outputs| label_shard(&context, inputs, outputs))
}

fn label_shard(context: &StageContext, inputs: &StageInputs<'_>, outputs: &mut StageOutputs<'_>) -> anyhow::Result<()> {
    let num_samples = match context.place.phase {
        Phase::Challenger => context.profile.challenger.num_samples,
        _ => context.profile.curriculum.num_samples,
    };
    let challenges = inputs.output(Stage::ChallengeGen)?.read::<Challenge>()?;
    check_rows(&challenges)?;
    let rows = context.shard_rows(challenges.len() as u64);
    let answers = read_answers(context, inputs, &challenges)?;
    let mine = &challenges[rows.start as usize..rows.end as usize];
    let labels: Vec<Label> = mine
        .par_iter()
        .filter(|challenge| is_ok(challenge))
        .map(|challenge| label(challenge, answers.get(&challenge.row), num_samples))
        .collect::<anyhow::Result<_>>()?;

    for status in AnswerStatus::ALL {
        let count = labels.iter().flat_map(|label| &label.sample_statuses).filter(|found| *found == status.as_str()).count();
        outputs.count(status.as_str(), count as u64);
    }
    outputs.metric("num_labels", labels.len() as f64);
    if !labels.is_empty() {
        let mean = |figure: fn(&Label) -> f64| labels.iter().map(figure).sum::<f64>() / labels.len() as f64;
        outputs.metric("vote_share_mean", mean(|label| label.vote_share));
        outputs.metric("parsed_share", mean(|label| f64::from(label.num_parsed) / f64::from(label.num_samples)));
        outputs.metric("truncated_share", mean(|label| f64::from(label.num_truncated) / f64::from(label.num_samples)));
    }
    outputs.write_table(&labels)
}

const BATCH_ROWS: usize = 4096;

/// The answer in each completion, by row of its question and by sample, for the rows of this shard.
fn read_answers(
    context: &StageContext,
    inputs: &StageInputs<'_>,
    challenges: &[Challenge],
) -> anyhow::Result<BTreeMap<u64, BTreeMap<u32, ReadAnswer>>> {
    let rollouts = inputs.output(Stage::SolveSample)?;
    let rows = context.shard_rows(challenges.len() as u64);
    let rule = answer_rule(&context.profile);
    let progress = Progress::start("reading answers", rollouts.num_rows::<Rollout>()?, "rollouts");
    let mut answers: BTreeMap<u64, BTreeMap<u32, ReadAnswer>> = BTreeMap::new();
    for batch in rollouts.stream::<Rollout>(BATCH_ROWS)? {
        context.interrupt.check()?;
        let batch = batch?;
        progress.advance(batch.len() as u64);
        let mine: Vec<&Rollout> = batch.iter().filter(|rollout| rows.contains(&rollout.row)).collect();
        let read: Vec<ReadAnswer> =
            mine.par_iter().map(|rollout| read_rollout_answer(rollout, &rule)).collect::<anyhow::Result<_>>()?;
        for (rollout, answer) in mine.iter().zip(read) {
            let challenge = &challenges[rollout.row as usize];
            if challenge.challenge_id != rollout.challenge_id || !is_ok(challenge) {
                let message = format!(
                    "a rollout answers {}, row {}, which is no question of this place",
                    rollout.challenge_id, rollout.row
                );
                return Err(stale_rollouts(message).into());
            }
            if answers.entry(rollout.row).or_default().insert(rollout.sample, answer).is_some() {
                let message = format!("question {} has sample {} twice", rollout.challenge_id, rollout.sample);
                return Err(stale_rollouts(message).into());
            }
        }
    }
    Ok(answers)
}

/// The vote on one question.
fn label(challenge: &Challenge, answers: Option<&BTreeMap<u32, ReadAnswer>>, num_samples: u32) -> anyhow::Result<Label> {
    let id = &challenge.challenge_id;
    let none = BTreeMap::new();
    let answers = answers.unwrap_or(&none);
    if !answers.keys().copied().eq(0..num_samples) {
        let found = answers.keys().map(u32::to_string).collect::<Vec<_>>().join(", ");
        let message = format!("question {id} has answers [{found}], expected samples 0 to {}", num_samples.saturating_sub(1));
        return Err(stale_rollouts(message).into());
    }
    let ballots: Vec<Ballot<'_>> =
        answers.values().map(|read| Ballot { status: read.status, answer: read.answer.as_deref() }).collect();
    let outcome = vote(&ballots);
    let question = challenge.question.clone().with_context(|| format!("question {id} has no text"))?;
    let class = |class: &Option<u32>| class.map_or(Ok(-1), i32::try_from);
    Ok(Label {
        challenge_id: id.clone(),
        row: challenge.row,
        question,
        pseudo_label: outcome.pseudo_label,
        vote_share: outcome.vote_share,
        margin: outcome.margin,
        vote_entropy: outcome.vote_entropy,
        num_samples: outcome.num_samples,
        num_parsed: outcome.num_parsed,
        num_truncated: outcome.num_truncated,
        class_answers: outcome.classes.iter().map(|class| class.answer.clone()).collect(),
        class_counts: outcome.classes.iter().map(|class| class.count).collect(),
        sample_statuses: answers.values().map(|read| read.status.to_string()).collect(),
        sample_classes: outcome.class_of_sample.iter().map(class).collect::<Result<_, _>>()?,
    })
}

fn is_ok(challenge: &Challenge) -> bool {
    challenge.challenge_status == ChallengeStatus::Ok.as_str()
}

/// Rows count from 0 without a gap, and every well-formed question has a text.
fn check_rows(challenges: &[Challenge]) -> anyhow::Result<()> {
    for (row, challenge) in challenges.iter().enumerate() {
        if challenge.row != row as u64 || is_ok(challenge) != challenge.question.is_some() {
            let id = &challenge.challenge_id;
            let message = format!(
                "challenge {id} stands in row {} of its table with row number {} and status {}",
                row, challenge.row, challenge.challenge_status
            );
            return Err(StageFailure::input(message).hint("rerun challenge-gen for this place").into());
        }
    }
    Ok(())
}

fn stale_rollouts(message: String) -> StageFailure {
    StageFailure::input(message).hint("rerun solve-sample for this place, so that every question has all its answers")
}
