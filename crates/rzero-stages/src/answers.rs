//! The answer in a rollout, read the same way wherever a vote, a reward or a grade needs it.

use crate::exit::StageFailure;
use arrow::array::{BooleanArray, StringArray, UInt32Array, UInt64Array};
use rzero_algo::answer::{AnswerRule, BOX_OPEN, ReadAnswer, answer_form, read_answer};
use rzero_io::scan::{Columns, Piece};
use rzero_schema::profile::Profile;
use rzero_schema::tables::Rollout;
use rzero_schema::vocab::{AnswerStatus, Extraction, FinishReason};
use std::borrow::Cow;
use std::ops::Range;

/// What counts as an answer where labels and rewards come from it: what stands in a box, and nothing else.
#[must_use]
pub fn answer_rule(profile: &Profile) -> AnswerRule {
    AnswerRule { form: profile.domain.answers, max_chars: profile.domain.max_answer_chars, extraction: Extraction::Box }
}

/// An answer in a box, as a completion ends.
#[must_use]
pub fn boxed(answer: &str) -> String {
    format!("{BOX_OPEN}{answer}}}")
}

/// The canonical form of an answer that is known from elsewhere, read as that of a completion would be.
///
/// # Errors
/// What is wrong with it as an answer.
pub fn known_form(answer: &str, rule: &AnswerRule) -> Result<String, AnswerStatus> {
    response_form(&boxed(answer), rule)
}

/// The canonical form of the answer in a response that is whole.
///
/// # Errors
/// Why it has none.
pub fn response_form(response: &str, rule: &AnswerRule) -> Result<String, AnswerStatus> {
    Ok(answer_form(response, FinishReason::Stop, rule)?.into_owned())
}

/// The columns of `rollouts` that say what was answered.
pub(crate) const ANSWER_COLUMNS: [&str; 6] = ["challenge_id", "row", "sample", "finish_reason", "completion", "is_valid_utf8"];

/// Whether a row group may hold answers to questions of these rows.
pub(crate) fn may_answer(piece: &Piece<Rollout>, rows: &Range<u64>) -> bool {
    piece.range("row").is_none_or(|range| *range.start() < rows.end && rows.start <= *range.end())
}

/// An answer, as the columns of rollouts have it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered<'a> {
    pub(crate) row: u64,
    pub(crate) sample: u32,
    pub(crate) challenge_id: &'a str,
    pub(crate) text: &'a str,
    finish_reason: &'a str,
    is_valid_utf8: bool,
}

impl<'a> Answered<'a> {
    /// Its canonical form, or why it has none.
    ///
    /// # Errors
    /// When the finish reason is no such word.
    pub(crate) fn form(&self, rule: &AnswerRule) -> anyhow::Result<Result<Cow<'a, str>, AnswerStatus>> {
        let finish = parse_finish_reason(self.finish_reason, self.challenge_id, self.sample)?;
        Ok(if self.is_valid_utf8 { answer_form(self.text, finish, rule) } else { Err(AnswerStatus::InvalidUtf8) })
    }
}

/// The answers of [`ANSWER_COLUMNS`], as they stand.
///
/// # Errors
/// When a column is missing.
pub(crate) fn answered(columns: &Columns) -> anyhow::Result<impl Iterator<Item = Answered<'_>>> {
    let ids = columns.get::<StringArray>("challenge_id")?;
    let rows = columns.get::<UInt64Array>("row")?.values();
    let samples = columns.get::<UInt32Array>("sample")?.values();
    let finish_reasons = columns.get::<StringArray>("finish_reason")?;
    let completions = columns.get::<StringArray>("completion")?;
    let are_valid = columns.get::<BooleanArray>("is_valid_utf8")?;
    Ok((0..columns.num_rows()).map(move |at| Answered {
        row: rows[at],
        sample: samples[at],
        challenge_id: ids.value(at),
        text: completions.value(at),
        finish_reason: finish_reasons.value(at),
        is_valid_utf8: are_valid.value(at),
    }))
}

/// Reads the answer of a rollout.
///
/// # Errors
/// When the rollout's finish reason is no such word.
pub fn read_rollout_answer(rollout: &Rollout, rule: &AnswerRule) -> anyhow::Result<ReadAnswer> {
    let finish = finish_reason(rollout)?;
    if !rollout.is_valid_utf8 {
        return Ok(ReadAnswer { status: AnswerStatus::InvalidUtf8, answer: None });
    }
    Ok(read_answer(&rollout.completion, finish, rule))
}

/// Why a rollout ended.
///
/// # Errors
/// When it is no such word.
pub fn finish_reason(rollout: &Rollout) -> anyhow::Result<FinishReason> {
    parse_finish_reason(&rollout.finish_reason, &rollout.challenge_id, rollout.sample)
}

fn parse_finish_reason(finish_reason: &str, challenge_id: &str, sample: u32) -> anyhow::Result<FinishReason> {
    finish_reason.parse().map_err(|error| {
        let at = format!("sample {sample} of question {challenge_id}");
        StageFailure::input(format!("{at}: {error}")).into()
    })
}
