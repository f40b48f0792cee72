//! The answers of a place that votes or rewards read: every text that the Solver gave to a question, once.

use super::given::{Given, given};
use super::{Item, compares};
use crate::answers::answer_rule;
use crate::context::StageContext;
use crate::curricula::with_curricula;
use crate::exit::StageFailure;
use crate::inputs::StageInputs;
use crate::judged::num_answers;
use crate::stages::solve_sample::batch_questions;
use rzero_schema::tables::Challenge;
use rzero_schema::vocab::{AnswerKind, Phase, Stage};
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
    let given = given(inputs.output(Stage::SolveSample)?, &rows, Some(&answer_rule(&context.profile)))?;
    let compares = compares(context)?;
    let width = u64::from(num_answers(context));
    let mut items = Vec::new();
    for group in given.chunk_by(|one, other| one.row == other.row) {
        let row = group[0].row;
        let Some(question) = questions.get(&row) else {
            let message = format!("an answer is to {}, row {row}, which is no question of this place", group[0].challenge_id);
            return Err(StageFailure::input(message).hint("run solve-sample there again").into());
        };
        let answers = distinct(group);
        // Each is compared with the next, the last with the first.
        let next: Vec<&str> = answers.iter().map(|answer| answer.text).cycle().skip(1).take(answers.len()).collect();
        let has_other = compares && answers.len() > 1;
        for (answer, next) in answers.into_iter().zip(next) {
            items.push(Item {
                row: row * width + u64::from(answer.samples[0]),
                challenge_id: group[0].challenge_id.clone(),
                samples: answer.samples,
                kind: AnswerKind::Answer,
                question: question.clone(),
                response: answer.text.to_owned(),
                other: has_other.then(|| next.to_owned()),
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

/// The texts of a question's answers, in the order of the first samples that gave them.
fn distinct(group: &[Given]) -> Vec<Answer<'_>> {
    let mut place_of: BTreeMap<&str, usize> = BTreeMap::new();
    let mut answers: Vec<Answer<'_>> = Vec::new();
    for given in group {
        let text = given.text.as_str();
        let place = *place_of.entry(text).or_insert(answers.len());
        if place == answers.len() {
            answers.push(Answer { text, samples: Vec::new() });
        }
        answers[place].samples.push(given.sample);
    }
    answers
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
