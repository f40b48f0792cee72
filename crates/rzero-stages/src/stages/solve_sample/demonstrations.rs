//! Answers that are shown instead of sampled: an anchor's own, in a box, for supervised fine-tuning.

use super::Question;
use crate::answers::boxed;
use crate::exit::StageFailure;
use crate::policy::{Policy, PolicySample};
use crate::prompt::Prompt;

/// The answer of each question as a completion that ends. It has no log-probability: nobody drew it.
///
/// # Errors
/// When a question brings no answer, or the vocabulary cannot express one.
pub(super) fn written(policy: &Policy, prompt: &Prompt, questions: &[Question]) -> anyhow::Result<Vec<PolicySample>> {
    let write = |question: &Question| {
        let Some(answer) = &question.answer else {
            return Err(StageFailure::internal(format!("question {} brings no answer", question.challenge_id)).into());
        };
        let prompt = policy.ask(prompt, &question.text)?;
        policy.shown(question.row, question.samples.start, &prompt, &boxed(answer))
    };
    questions.iter().map(write).collect()
}
