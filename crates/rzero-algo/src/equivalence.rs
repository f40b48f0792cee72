//! When two canonical answers are the same answer.
//!
//! Today the canonical form carries all of it: equal forms are equal answers. This is the room where a grader grows, for instance
//! towards sets, intervals or algebra. Whatever it learns, it learns as a **representative** of each form, so that the relation
//! stays reflexive, symmetric and transitive by construction, and a vote cannot depend on the order of the answers. The released
//! code compares pair by pair, greedily, and takes any two answers with "no " in them for equal.

use crate::answer::extract_answer;
use crate::normalize::canonical_answer;
use rzero_schema::vocab::{Extraction, GradeReason, Verdict};

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
pub fn grade(gold: &str, prediction: &str, _options: &GradeOptions) -> Grade {
    let (gold_form, pred_form) = (canonical_answer(gold), canonical_answer(prediction));
    let (verdict, reason) = match (&gold_form, &pred_form) {
        (None, _) => (Verdict::Unknown, GradeReason::UnreadableGold),
        (_, None) => (Verdict::Unknown, GradeReason::UnreadablePrediction),
        (Some(gold), Some(pred)) if gold == pred => (Verdict::Equal, GradeReason::SameForm),
        _ => (Verdict::Different, GradeReason::OtherValue),
    };
    Grade { verdict, reason, gold_form, pred_form }
}

/// Compares the answer that is found in a response with the gold answer.
#[must_use]
pub fn grade_response(gold: &str, response: &str, extraction: Extraction, options: &GradeOptions) -> Grade {
    match extract_answer(response, extraction) {
        Ok(prediction) => grade(gold, &prediction, options),
        Err(_) => Grade {
            verdict: Verdict::Different,
            reason: GradeReason::NoAnswer,
            gold_form: canonical_answer(gold),
            pred_form: None,
        },
    }
}

/// The form that stands for every form equal to this one.
#[must_use]
pub fn representative(canonical: &str) -> &str {
    canonical
}

/// Whether two canonical forms are the same answer.
#[must_use]
pub fn equivalent(left: &str, right: &str) -> bool {
    representative(left) == representative(right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalize::canonical_answer;
    use proptest::prelude::*;

    #[test]
    fn equal_numbers_in_different_dress_are_equivalent() {
        let forms: Vec<String> = ["0.5", "1/2", r"\frac{2}{4}", "$.50$"].iter().filter_map(|raw| canonical_answer(raw)).collect();
        assert_eq!(forms.len(), 4);
        assert!(forms.iter().all(|form| equivalent(form, &forms[0])));
    }

    #[test]
    fn two_answers_with_the_word_no_are_not_therefore_equal() {
        let left = canonical_answer("no solution").expect("free text has a form");
        let right = canonical_answer("no idea at all").expect("free text has a form");
        assert!(!equivalent(&left, &right));
    }

    proptest! {
        #[test]
        fn it_is_an_equivalence_relation(a in "[0-2]{1,2}", b in "[0-2]{1,2}", c in "[0-2]{1,2}") {
            prop_assert!(equivalent(&a, &a));
            prop_assert_eq!(equivalent(&a, &b), equivalent(&b, &a));
            prop_assert!(!(equivalent(&a, &b) && equivalent(&b, &c)) || equivalent(&a, &c));
        }
    }
}
