//! Answers that the Verifier judged: which question each is to, and their figures, for who writes and who reads them.

use crate::context::StageContext;
use rzero_schema::tables::JudgedAnswer;
use rzero_schema::vocab::{AnswerKind, Phase};

/// Answers to a question at a place: the rows of a question's judged answers begin at its own row times so many.
pub(crate) fn num_answers(context: &StageContext) -> u32 {
    let profile = &context.profile;
    match context.place.phase {
        Phase::Challenger => profile.challenger.num_samples,
        Phase::Curriculum => profile.curriculum.num_samples,
        _ => profile.solver.group_size,
    }
}

/// The row of the question that a judged answer is to, at a place where answers are voted on or rewarded.
pub(crate) fn question_row(context: &StageContext, judged: &JudgedAnswer) -> u64 {
    judged.row / u64::from(num_answers(context))
}

/// The mean, of any.
pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Means of a set of judged answers, those of which there are any.
pub(crate) fn figures(judged: &[JudgedAnswer]) -> Vec<(&'static str, f64)> {
    let mean = |values: Vec<f64>| mean(&values);
    let is = |row: &&JudgedAnswer, kind: AnswerKind| row.kind == kind.as_str();
    let scores =
        |is_it: &dyn Fn(&&JudgedAnswer) -> bool| judged.iter().filter(is_it).filter_map(|row| row.score).collect::<Vec<_>>();
    let whole = |target: f64| scores(&|row| is(row, AnswerKind::Answer) && row.target == Some(target));
    let is_right = |row: &JudgedAnswer| Some(f64::from(u8::from((row.score? >= 0.5) == (row.target? >= 0.5))));
    let right = judged.iter().filter(|row| is(row, AnswerKind::Answer)).filter_map(is_right).collect();
    [
        ("agreement_mean", mean(judged.iter().filter_map(|row| row.agreement).collect())),
        ("score_mean", mean(scores(&|row| is(row, AnswerKind::Answer)))),
        ("score_of_right", mean(whole(1.0))),
        ("score_of_wrong", mean(whole(0.0))),
        ("score_of_truncated", mean(scores(&|row| is(row, AnswerKind::Truncated)))),
        ("score_of_shuffled", mean(scores(&|row| is(row, AnswerKind::Shuffled)))),
        ("score_of_exchanged", mean(scores(&|row| is(row, AnswerKind::Exchanged)))),
        ("accuracy", mean(right)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}
