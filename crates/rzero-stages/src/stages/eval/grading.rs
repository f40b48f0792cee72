//! One completion of one problem: where its answer is looked for, how it is read, and what the grader says of it.
//!
//! | problem | how its answer is read |
//! | --- | --- |
//! | with options | [`read_choice`]: a letter |
//! | of a benchmark that the profile lists, or in a domain of free text | [`extract_answer`], then the grader: any answer it can read |
//! | any other | [`read_answer`] by the rule of the domain, where an answer is a number |
//!
//! A truncated completion has no answer in any of them, as in a vote. What cannot be read is wrong, and `answer_status` says why.

use rzero_algo::answer::{AnswerRule, extract_answer, read_answer};
use rzero_algo::choice::{gold_letter, read_choice};
use rzero_algo::equivalence::{GradeOptions, grade};
use rzero_schema::profile::Profile;
use rzero_schema::tables::EvalItem;
use rzero_schema::vocab::{AnswerForm, AnswerStatus, Extraction, FinishReason, GradeReason, Verdict};

/// How the completions of one benchmark are read and graded.
#[derive(Debug, Clone)]
pub(super) struct GradingRule {
    /// The rule of answers that are numbers; none where an answer is any text.
    numbers: Option<AnswerRule>,
    extraction: Extraction,
    options: GradeOptions,
}

/// What became of one completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Graded {
    pub(super) status: AnswerStatus,
    pub(super) answer: Option<String>,
    pub(super) verdict: Verdict,
    pub(super) reason: GradeReason,
}

impl Graded {
    /// A completion without an answer that can be read.
    pub(super) fn unread(status: AnswerStatus) -> Self {
        Self { status, answer: None, verdict: Verdict::Different, reason: GradeReason::NoAnswer }
    }
}

impl GradingRule {
    /// The rule of a benchmark.
    pub(super) fn new(profile: &Profile, benchmark: &str) -> Self {
        match profile.eval.benchmarks.iter().find(|settings| settings.name == benchmark) {
            Some(settings) => Self {
                numbers: None,
                extraction: settings.extraction,
                options: GradeOptions { is_gold_rounded: settings.is_gold_rounded },
            },
            None => {
                let (form, extraction) = (profile.domain.answers, profile.eval.extraction);
                let numbers = AnswerRule { form, max_chars: profile.domain.max_answer_chars, extraction };
                Self { numbers: (form == AnswerForm::Number).then_some(numbers), extraction, options: GradeOptions::default() }
            }
        }
    }

    /// Reads and grades what a model wrote.
    pub(super) fn grade(&self, item: &EvalItem, completion: &str, finish: FinishReason) -> Graded {
        if finish == FinishReason::Length {
            return Graded::unread(AnswerStatus::Truncated);
        }
        if !item.options.is_empty() {
            return graded_choice(item, completion, self.extraction);
        }
        let prediction = match extract_answer(completion, self.extraction) {
            Ok(prediction) => prediction,
            Err(status) => return Graded::unread(status),
        };
        let grade = grade(&item.answer, &prediction, &self.options);
        // The verdict is on what was written, the form is what votes.
        let (status, answer) = match &self.numbers {
            Some(rule) => {
                let read = read_answer(completion, finish, rule);
                (read.status, read.answer)
            }
            None if grade.pred_form.is_some() => (AnswerStatus::Parsed, grade.pred_form),
            None => (AnswerStatus::NotReadable, None),
        };
        match answer {
            Some(answer) => Graded { status, answer: Some(answer), verdict: grade.verdict, reason: grade.reason },
            None if self.numbers.is_some() => Graded::unread(status),
            None => Graded { status, answer: None, verdict: grade.verdict, reason: grade.reason },
        }
    }
}

fn graded_choice(item: &EvalItem, completion: &str, extraction: Extraction) -> Graded {
    let choice = match read_choice(completion, &item.options, extraction) {
        Ok(choice) => choice,
        Err(status) => return Graded::unread(status),
    };
    let (verdict, reason) = match gold_letter(&item.answer, &item.options) {
        Some(gold) if gold == choice => (Verdict::Equal, GradeReason::SameChoice),
        Some(_) => (Verdict::Different, GradeReason::OtherChoice),
        None => (Verdict::Unknown, GradeReason::UnreadableGold),
    };
    Graded { status: AnswerStatus::Parsed, answer: Some(choice.to_string()), verdict, reason }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    fn profile(setting: &[&str]) -> Profile {
        let overrides: Vec<String> = setting.iter().map(|text| (*text).to_owned()).collect();
        let domain = |_: &str| Ok(include_str!("../../../../../pipelines/domains/arithmetic/domain.toml").to_owned());
        Profile::from_toml(include_str!("../../../../../pipelines/profiles/smoke.toml"), &overrides, domain).unwrap()
    }

    fn item(benchmark: &str, answer: &str, options: &[&str]) -> EvalItem {
        EvalItem {
            item_id: "one".to_owned(),
            row: 0,
            benchmark: benchmark.to_owned(),
            question: "?".to_owned(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            answer: answer.to_owned(),
            subject: String::new(),
            level: 1,
            source: String::new(),
            license: String::new(),
            revision: String::new(),
            digest: String::new(),
        }
    }

    fn grade(rule: &GradingRule, item: &EvalItem, completion: &str) -> (AnswerStatus, Option<String>, Verdict) {
        let graded = rule.grade(item, completion, FinishReason::Stop);
        (graded.status, graded.answer, graded.verdict)
    }

    #[test]
    fn numbers_are_read_by_the_domain_and_free_answers_by_the_grader() {
        let listed = r#"eval.benchmarks=[{ name = "free", solver_prompt = "p", extraction = "box", is_gold_rounded = false }]"#;
        let profile = profile(&[listed]);
        let (numbers, free) = (GradingRule::new(&profile, "ladder"), GradingRule::new(&profile, "free"));
        let (seven, blue) = (item("ladder", "7", &[]), item("free", "blue whale", &[]));
        assert_eq!(grade(&numbers, &seven, r"=\boxed{7.0}"), (AnswerStatus::Parsed, Some("7".to_owned()), Verdict::Equal));
        assert_eq!(grade(&numbers, &seven, r"\boxed{8}").2, Verdict::Different);
        assert_eq!(grade(&numbers, &seven, r"\boxed{seven}"), (AnswerStatus::NotReadable, None, Verdict::Different));
        assert_eq!(grade(&numbers, &seven, "7"), (AnswerStatus::NoBox, None, Verdict::Different));
        let (status, answer, verdict) = grade(&free, &blue, r"\boxed{\text{Blue  Whale}}");
        assert_eq!((status, answer.is_some(), verdict), (AnswerStatus::Parsed, true, Verdict::Equal));
        assert_eq!(grade(&free, &blue, r"\boxed{1/0}").2, Verdict::Unknown);
        let cut = free.grade(&blue, r"\boxed{blue whale} and", FinishReason::Length);
        assert_eq!(cut, Graded::unread(AnswerStatus::Truncated));
    }

    #[test]
    fn a_choice_is_read_whatever_the_domain_and_a_gold_that_is_no_letter_is_never_met() {
        let rule = GradingRule::new(&profile(&[]), "choices");
        let with_gold = |gold| item("choices", gold, &["12", "14"]);
        assert_eq!(grade(&rule, &with_gold("B"), r"\boxed{(b)}"), (AnswerStatus::Parsed, Some("B".to_owned()), Verdict::Equal));
        assert_eq!(grade(&rule, &with_gold("B"), r"\boxed{14}").2, Verdict::Equal);
        assert_eq!(grade(&rule, &with_gold("B"), r"\boxed{A}").2, Verdict::Different);
        assert_eq!(grade(&rule, &with_gold("B"), r"\boxed{A, B}"), (AnswerStatus::NotReadable, None, Verdict::Different));
        assert_eq!(grade(&rule, &with_gold("F"), r"\boxed{A}").2, Verdict::Unknown);
    }
}
