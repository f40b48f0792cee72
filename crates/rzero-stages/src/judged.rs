//! Figures of answers that the Verifier judged, for its manifest and for who reads a run.

use rzero_schema::tables::JudgedAnswer;
use rzero_schema::vocab::AnswerKind;

/// Means of a set of judged answers, those of which there are any.
pub(crate) fn figures(judged: &[JudgedAnswer]) -> Vec<(&'static str, f64)> {
    let mean = |values: Vec<f64>| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
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
        ("accuracy", mean(right)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}
