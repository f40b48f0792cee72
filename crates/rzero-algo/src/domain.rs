//! What a domain knows: whether a text is one of its questions, and the true answer where an evaluator can tell it.

use crate::{arithmetic, program};
use rzero_schema::vocab::{Evaluator, QuestionKind};

/// Whether a text is a question of its kind.
#[must_use]
pub fn is_question(text: &str, kind: QuestionKind, min_operators: u32) -> bool {
    match kind {
        QuestionKind::Expression => arithmetic::parse(text).is_some_and(|expression| expression.num_operators() >= min_operators),
        QuestionKind::Program => program::run(text).is_ok(),
        QuestionKind::Text => true,
    }
}

/// The true answer to a question, as it would stand in a box; nothing where the evaluator cannot tell it.
#[must_use]
pub fn true_answer(evaluator: Evaluator, question: &str) -> Option<String> {
    match evaluator {
        Evaluator::None => None,
        Evaluator::Expression => arithmetic::true_answer(question),
        Evaluator::Program => program::run(question).ok(),
    }
}
