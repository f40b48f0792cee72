//! The answers of a place that votes or rewards read: every text that the Solver gave to a question, once.

use super::Item;
use crate::answers::{answer_rule, read_rollout_answer};
use crate::context::StageContext;
use crate::curricula::with_curricula;
use crate::exit::StageFailure;
use crate::inputs::StageInputs;
use crate::judged::num_answers;
use crate::stages::solve_sample::batch_questions;
use rzero_schema::tables::{Challenge, Rollout};
use rzero_schema::vocab::{AnswerKind, AnswerStatus, Phase, Stage};
use std::collections::BTreeMap;
use std::ops::Range;

pub(super) fn declare<'a>(inputs: StageInputs<'a>, context: &StageContext) -> anyhow::Result<StageInputs<'a>> {
    let inputs = inputs.with_stage(Stage::SolveSample);
    if context.place.phase == Phase::Solver {
        with_curricula(inputs, context)
    } else {
        Ok(inputs.with_stage(Stage::ChallengeGen))
    }
}

pub(super) fn items(context: &StageContext, inputs: &StageInputs<'_>) -> anyhow::Result<Vec<Item>> {
    let (rows, questions) = questions(context, inputs)?;
    let mut rollouts = inputs.output(Stage::SolveSample)?.read::<Rollout>()?;
    rollouts.retain(|rollout| rows.contains(&rollout.row));
    let width = u64::from(num_answers(context));
    let mut items = Vec::new();
    for group in rollouts.chunk_by(|one, other| one.row == other.row) {
        let row = group[0].row;
        let Some(question) = questions.get(&row) else {
            let message = format!("an answer is to {}, row {row}, which is no question of this place", group[0].challenge_id);
            return Err(StageFailure::input(message).hint("run solve-sample there again").into());
        };
        for (at, answer) in distinct(context, group)? {
            items.push(Item {
                row: row * width + at as u64,
                challenge_id: group[at].challenge_id.clone(),
                samples: answer.samples,
                kind: AnswerKind::Answer,
                question: question.clone(),
                response: answer.text.to_owned(),
                target: None,
            });
        }
    }
    Ok(items)
}

/// A text that was given as an answer, and who gave it.
struct Answer<'a> {
    text: &'a str,
    samples: Vec<u32>,
}

/// The texts of a question's answers that can be read, by the place of the first in the group.
fn distinct<'a>(context: &StageContext, group: &'a [Rollout]) -> anyhow::Result<BTreeMap<usize, Answer<'a>>> {
    let rule = answer_rule(&context.profile);
    let mut first_of: BTreeMap<&str, usize> = BTreeMap::new();
    let mut answers: BTreeMap<usize, Answer<'a>> = BTreeMap::new();
    for (at, rollout) in group.iter().enumerate() {
        if read_rollout_answer(rollout, &rule)?.status != AnswerStatus::Parsed {
            continue;
        }
        let text = rollout.completion.as_str();
        let first = *first_of.entry(text).or_insert(at);
        answers.entry(first).or_insert_with(|| Answer { text, samples: Vec::new() }).samples.push(rollout.sample);
    }
    Ok(answers)
}

/// The questions of this shard by their rows, and the rows.
fn questions(context: &StageContext, inputs: &StageInputs<'_>) -> anyhow::Result<(Range<u64>, BTreeMap<u64, String>)> {
    if context.place.phase == Phase::Solver {
        let rows = context.shard_rows(context.profile.solver.num_questions);
        let questions = batch_questions(context, inputs)?;
        return Ok((rows, questions.into_iter().map(|question| (question.row, question.text)).collect()));
    }
    let challenges = inputs.output(Stage::ChallengeGen)?.read::<Challenge>()?;
    let rows = context.shard_rows(challenges.len() as u64);
    let mine = challenges.into_iter().filter(|challenge| rows.contains(&challenge.row));
    let questions = mine.filter_map(|challenge| Some((challenge.row, challenge.question?))).collect();
    Ok((rows, questions))
}
