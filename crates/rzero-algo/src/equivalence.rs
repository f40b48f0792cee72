//! When two answers are the same answer: verdicts with their reasons, and the classes of a vote.
//!
//! Two questions are kept apart. **Are the bodies the same?** That is a matter of mathematics, hence reflexive, symmetric and transitive:
//! equal numbers, the same function, the same parts. **Does it matter what one of them leaves out?** `10 cm` and `10` agree, `10 cm` and `10 m` do
//! not: leaving out is not transitive. A verdict on two answers allows it. A vote must not depend on the order of its answers, so there an
//! answer without a unit joins the one class that has the same body, and stays alone where there are several ([`classes`]).
//!
//! What counts as the same beyond equal bodies, on one pair and never along a chain:
//!
//! 1. One leaves out a unit, a sign of per cent, a degree sign, the name before `=`, or the set sign before an interval.
//! 2. `50%` is 50 as well as a half; `90°` is 90 as well as pi/2.
//! 3. A decimal of 15 significant digits or more is what a computer prints for a number that it cannot hold: it equals what rounds to it.
//! 4. Where a problem set says so, a gold answer that is a decimal is rounded, and equals what rounds to it.
//!
//! The released code compares pair by pair, greedily, and takes any two answers with "no " in them for equal.

mod classes;
mod compare;
mod rounding;

pub use classes::classes;

use crate::answer::extract_answer;
use crate::normalize::{Form, canonical_form};
use compare::compare;
use rzero_schema::vocab::{Extraction, GradeReason, Verdict};

/// Longest answer that is graded, in characters.
pub const MAX_ANSWER_CHARS: usize = 8_000;

/// What is allowed beyond equality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GradeOptions {
    /// Whether a gold answer that is a decimal is rounded, so that a prediction which rounds to it is equal.
    pub is_gold_rounded: bool,
}

/// What the grader says of a prediction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grade {
    /// Whether the two are the same answer.
    pub verdict: Verdict,
    /// Why.
    pub reason: GradeReason,
    /// Canonical form of the gold answer; nothing where it cannot be read.
    pub gold_form: Option<String>,
    /// Canonical form of the prediction; nothing where there is none or it cannot be read.
    pub pred_form: Option<String>,
}

/// Compares a prediction with the gold answer. Total, deterministic, and bounded in time whatever the two hold.
#[must_use]
pub fn grade(gold: &str, prediction: &str, options: &GradeOptions) -> Grade {
    let (gold, prediction) = (form(gold), form(prediction));
    let (verdict, reason) = of_forms(gold.as_ref(), prediction.as_ref(), options);
    let text = |form: Option<Form>| form.map(|form| form.to_string());
    Grade { verdict, reason, gold_form: text(gold), pred_form: text(prediction) }
}

/// The verdict of [`grade`] alone, which is faster.
#[must_use]
pub fn verdict(gold: &str, prediction: &str, options: &GradeOptions) -> (Verdict, GradeReason) {
    if let (Some(gold), Some(prediction)) = (small_integer(gold), small_integer(prediction)) {
        return if gold == prediction {
            (Verdict::Equal, GradeReason::SameValue)
        } else {
            (Verdict::Different, GradeReason::OtherValue)
        };
    }
    of_forms(form(gold).as_ref(), form(prediction).as_ref(), options)
}

/// Compares the answer that is found in a response with the gold answer.
#[must_use]
pub fn grade_response(gold: &str, response: &str, extraction: Extraction, options: &GradeOptions) -> Grade {
    match extract_answer(response, extraction) {
        Ok(prediction) => grade(gold, &prediction, options),
        Err(_) => Grade {
            verdict: Verdict::Different,
            reason: GradeReason::NoAnswer,
            gold_form: form(gold).map(|form| form.to_string()),
            pred_form: None,
        },
    }
}

/// Whether two answers are the same, each as written or in its canonical form.
#[must_use]
pub fn equivalent(left: &str, right: &str) -> bool {
    left == right || verdict(left, right, &GradeOptions::default()).0 == Verdict::Equal
}

fn form(raw: &str) -> Option<Form> {
    canonical_form(raw, MAX_ANSWER_CHARS).ok()
}

fn of_forms(gold: Option<&Form>, prediction: Option<&Form>, options: &GradeOptions) -> (Verdict, GradeReason) {
    match (gold, prediction) {
        (None, _) => (Verdict::Unknown, GradeReason::UnreadableGold),
        (_, None) => (Verdict::Unknown, GradeReason::UnreadablePrediction),
        (Some(gold), Some(prediction)) => compare(gold, prediction, options),
    }
}

/// A whole number in plain digits that needs no exact arithmetic.
fn small_integer(text: &str) -> Option<i64> {
    let text = text.strip_suffix(".0").unwrap_or(text);
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = (1..=17).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    if is_plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
