//! The answer in a rollout, read the same way wherever a vote, a reward or a grade needs it.

use crate::exit::StageFailure;
use rzero_algo::answer::{AnswerRule, BOX_OPEN, ReadAnswer, answer_form, read_answer};
use rzero_schema::profile::Profile;
use rzero_schema::tables::Rollout;
use rzero_schema::vocab::{AnswerStatus, Extraction, FinishReason};

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
    Ok(answer_form(&boxed(answer), FinishReason::Stop, rule)?.into_owned())
}

/// The canonical form of the answer in a response that is whole; nothing where it has none.
#[must_use]
pub fn known_response(response: &str, rule: &AnswerRule) -> Option<String> {
    Some(answer_form(response, FinishReason::Stop, rule).ok()?.into_owned())
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

/// The same of a rollout's columns.
///
/// # Errors
/// When it is no such word.
pub fn parse_finish_reason(finish_reason: &str, challenge_id: &str, sample: u32) -> anyhow::Result<FinishReason> {
    finish_reason.parse().map_err(|error| {
        let at = format!("sample {sample} of question {challenge_id}");
        StageFailure::input(format!("{at}: {error}")).into()
    })
}
