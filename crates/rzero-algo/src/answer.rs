//! Reading what a model wrote: the boxed answer of a completion, and the question of a Challenger's completion.
//!
//! [`extract`] says which box counts, and where else an answer may be looked for.

mod extract;

pub use extract::{BOX_OPEN, extract_answer, extract_boxed};

use crate::choice::read_choice;
use crate::domain::is_question;
use crate::normalize::{canonical_form, is_canonical_integer, literal_number};
use rzero_schema::vocab::{AnswerForm, AnswerStatus, ChallengeStatus, Extraction, FinishReason, QuestionKind};
use std::borrow::Cow;

/// How a question begins.
pub const QUESTION_OPEN: &str = "<question>";
/// How a question ends.
pub const QUESTION_CLOSE: &str = "</question>";

/// What counts as an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerRule {
    /// What an answer is.
    pub form: AnswerForm,
    /// Longest answer, in characters.
    pub max_chars: usize,
    /// Where it is looked for.
    pub extraction: Extraction,
}

/// A completion's final answer, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadAnswer {
    /// What became of the answer.
    pub status: AnswerStatus,
    /// Canonical form; present exactly where the status is [`AnswerStatus::Parsed`].
    pub answer: Option<String>,
}

/// Reads the final answer of a Solver's completion.
///
/// A truncated completion does not vote even where a box already stands in it: what the model would have said last is unknown,
/// and a length limit must not decide a label.
#[must_use]
pub fn read_answer(completion: &str, finish: FinishReason, rule: &AnswerRule) -> ReadAnswer {
    match answer_form(completion, finish, rule) {
        Ok(answer) => ReadAnswer { status: AnswerStatus::Parsed, answer: Some(answer.into_owned()) },
        Err(status) => ReadAnswer { status, answer: None },
    }
}

/// The canonical form that [`read_answer`] gives, borrowed where the completion holds it as it is.
///
/// # Errors
/// Why there is no answer.
pub fn answer_form<'a>(completion: &'a str, finish: FinishReason, rule: &AnswerRule) -> Result<Cow<'a, str>, AnswerStatus> {
    if finish == FinishReason::Length {
        return Err(AnswerStatus::Truncated);
    }
    match rule.form {
        AnswerForm::Rubric => return text_form(completion.trim(), rule.max_chars),
        AnswerForm::Choice => {
            let letter = read_choice(completion, &ANY_CHOICE, rule.extraction)?;
            return Ok(letter.to_string().into());
        }
        AnswerForm::Number | AnswerForm::Maths | AnswerForm::Exact => {}
    }
    let content = extract_answer(completion, rule.extraction)?;
    if rule.form == AnswerForm::Exact {
        return text_form(content.trim(), rule.max_chars);
    }
    if content.len() <= rule.max_chars && is_canonical_integer(&content) {
        return Ok(content);
    }
    match rule.form {
        // Where every answer is a number, words and unfinished sums are no answers.
        AnswerForm::Number => literal_number(&content, rule.max_chars).map(|number| number.to_string().into()),
        _ => canonical_form(&content, rule.max_chars).map(|form| form.to_string().into()),
    }
}

/// Letters that may be chosen where the question itself names the options.
const ANY_CHOICE: [String; 26] = [const { String::new() }; 26];

/// The form of a text that is the same as another only where it is letter by letter.
fn text_form<'a>(text: &str, max_chars: usize) -> Result<Cow<'a, str>, AnswerStatus> {
    if text.is_empty() {
        return Err(AnswerStatus::EmptyBox);
    }
    if text.chars().nth(max_chars).is_some() {
        return Err(AnswerStatus::AnswerTooLong);
    }
    Ok(format!("text:{text}").into())
}

/// What a domain asks of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuestionRule {
    /// What counts as one.
    pub kind: QuestionKind,
    /// Longest question, in characters.
    pub max_question_chars: usize,
    /// Least number of operators; asked of expressions only.
    pub min_operators: u32,
}

/// A well-formed question of the Challenger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The question, without the white space around it.
    pub question: String,
    /// What stands in the Challenger's own box, as written. Never a label.
    pub proposed_answer: String,
}

/// Reads a Challenger's completion as a question: one pair of question tags, and after it a balanced box.
///
/// # Errors
/// The first rule that the completion breaks, in the order of [`ChallengeStatus`].
pub fn well_formed_challenge(
    completion: &str,
    finish: FinishReason,
    domain: &QuestionRule,
) -> Result<Challenge, ChallengeStatus> {
    if finish == FinishReason::Length {
        return Err(ChallengeStatus::Truncated);
    }
    let Some(opening) = completion.find(QUESTION_OPEN) else {
        return Err(ChallengeStatus::NoQuestion);
    };
    let Some(closing) = completion.find(QUESTION_CLOSE) else {
        return Err(ChallengeStatus::NoQuestion);
    };
    let start = opening + QUESTION_OPEN.len();
    let after = closing + QUESTION_CLOSE.len();
    if completion[start..].contains(QUESTION_OPEN) || completion[after..].contains(QUESTION_CLOSE) {
        return Err(ChallengeStatus::SeveralQuestions);
    }
    if closing < start {
        return Err(ChallengeStatus::NoQuestion);
    }
    let question = completion[start..closing].trim();
    if question.is_empty() {
        return Err(ChallengeStatus::EmptyQuestion);
    }
    if question.chars().nth(domain.max_question_chars).is_some() {
        return Err(ChallengeStatus::QuestionTooLong);
    }
    let Ok(proposed_answer) = extract_boxed(&completion[after..]) else {
        return Err(ChallengeStatus::NoBoxedAnswer);
    };
    if !is_question(question, domain.kind, domain.min_operators) {
        return Err(ChallengeStatus::NotInDomain);
    }
    Ok(Challenge { question: question.to_owned(), proposed_answer: proposed_answer.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: QuestionRule = QuestionRule { kind: QuestionKind::Text, max_question_chars: 60, min_operators: 0 };
    const ARITHMETIC: QuestionRule = QuestionRule { kind: QuestionKind::Expression, max_question_chars: 26, min_operators: 1 };

    fn challenge(completion: &str, rule: &QuestionRule) -> Result<Challenge, ChallengeStatus> {
        well_formed_challenge(completion, FinishReason::Stop, rule)
    }

    #[test]
    fn a_domain_says_what_an_answer_is() {
        let read = |form, completion: &str| {
            let rule = AnswerRule { form, max_chars: 20, extraction: Extraction::Box };
            answer_form(completion, FinishReason::Stop, &rule).map(Cow::into_owned)
        };
        assert_eq!(read(AnswerForm::Exact, r"so \boxed{ Blue  Whale }").as_deref(), Ok("text:Blue  Whale"));
        assert_eq!(read(AnswerForm::Choice, r"it is \boxed{(c)}").as_deref(), Ok("C"));
        assert_eq!(read(AnswerForm::Choice, r"\boxed{maybe}"), Err(AnswerStatus::NotReadable));
        assert_eq!(read(AnswerForm::Rubric, " A lamp that lasts. ").as_deref(), Ok("text:A lamp that lasts."));
        assert_eq!(read(AnswerForm::Rubric, "  "), Err(AnswerStatus::EmptyBox));
        assert_eq!(read(AnswerForm::Rubric, "more than twenty characters"), Err(AnswerStatus::AnswerTooLong));
    }

    #[test]
    fn words_do_not_vote_where_answers_are_numbers() {
        let arithmetic = AnswerRule { form: AnswerForm::Number, max_chars: 100, extraction: Extraction::Box };
        let read = |text| read_answer(text, FinishReason::Stop, &arithmetic);
        assert_eq!(read(r"\boxed{3+4}").status, AnswerStatus::NotReadable);
        assert_eq!(read(r"\boxed{-7}").answer.as_deref(), Some("-7"));
    }

    fn rule(max_chars: usize) -> AnswerRule {
        AnswerRule { form: AnswerForm::Maths, max_chars, extraction: Extraction::Box }
    }

    #[test]
    fn a_missing_answer_has_no_canonical_form_and_so_cannot_vote() {
        let read = read_answer("I do not know. None", FinishReason::Stop, &rule(100));
        assert_eq!(read, ReadAnswer { status: AnswerStatus::NoBox, answer: None });
    }

    #[test]
    fn a_one_character_answer_is_read_whole() {
        let read = read_answer(r"\boxed{7}", FinishReason::Stop, &rule(1));
        assert_eq!(read, ReadAnswer { status: AnswerStatus::Parsed, answer: Some("7".to_owned()) });
    }

    #[test]
    fn an_answer_that_contains_the_word_text_is_kept() {
        let answer = |text| read_answer(text, FinishReason::Stop, &rule(100)).answer;
        assert_eq!(answer(r"\boxed{\text{Blue  Whale}}").as_deref(), Some("text:blue whale"));
        assert_eq!(answer(r"\boxed{a context}").as_deref(), Some("text:a context"));
        assert_eq!(answer(r"\boxed{\text{12}}").as_deref(), Some("12"));
    }

    #[test]
    fn a_truncated_completion_does_not_vote_though_a_box_stands() {
        let read = read_answer(r"\boxed{7} but wait", FinishReason::Length, &rule(100));
        assert_eq!(read, ReadAnswer { status: AnswerStatus::Truncated, answer: None });
    }

    #[test]
    fn an_answer_over_the_bound_is_counted_as_such() {
        assert_eq!(read_answer(r"\boxed{12345}", FinishReason::Stop, &rule(4)).status, AnswerStatus::AnswerTooLong);
    }

    #[test]
    fn a_challenge_needs_one_pair_of_tags_and_then_a_box() {
        let ok = challenge("<question> What is 2? </question> \\boxed{ 2 }", &TEXT);
        assert_eq!(ok, Ok(Challenge { question: "What is 2?".to_owned(), proposed_answer: "2".to_owned() }));
        for (completion, status) in [
            ("What is 2? \\boxed{2}", ChallengeStatus::NoQuestion),
            ("<question>What is 2? \\boxed{2}", ChallengeStatus::NoQuestion),
            ("</question><question>a \\boxed{2}", ChallengeStatus::NoQuestion),
            ("<question>a</question><question>b</question>\\boxed{2}", ChallengeStatus::SeveralQuestions),
            ("<question>a</question></question>\\boxed{2}", ChallengeStatus::SeveralQuestions),
            ("<question><question>a</question>\\boxed{2}", ChallengeStatus::SeveralQuestions),
            ("<question> \n </question>\\boxed{2}", ChallengeStatus::EmptyQuestion),
            ("<question>a \\boxed{2}</question>", ChallengeStatus::NoBoxedAnswer),
            ("\\boxed{2}<question>a</question>", ChallengeStatus::NoBoxedAnswer),
            ("<question>a</question>\\boxed{2", ChallengeStatus::NoBoxedAnswer),
            ("<question>a</question>\\boxed{}", ChallengeStatus::NoBoxedAnswer),
        ] {
            assert_eq!(challenge(completion, &TEXT), Err(status), "{completion}");
        }
        let long = format!("<question>{}</question>\\boxed{{2}}", "é".repeat(61));
        assert_eq!(challenge(&long, &TEXT), Err(ChallengeStatus::QuestionTooLong));
        let truncated = well_formed_challenge("<question>a</question>\\boxed{2}", FinishReason::Length, &TEXT);
        assert_eq!(truncated, Err(ChallengeStatus::Truncated));
    }

    #[test]
    fn a_question_that_contains_the_letters_box_or_text_is_kept() {
        for question in ["How many apples are in the box?", "A textbook has 7 boxes.", "What is \\boxed{?}"] {
            let read = challenge(&format!("<question>{question}</question>\\boxed{{7}}"), &TEXT);
            assert_eq!(read.map(|challenge| challenge.question), Ok(question.to_owned()));
        }
    }

    #[test]
    fn an_arithmetic_question_must_parse_with_enough_operators() {
        for (question, is_in_domain) in
            [("12+3*4", true), ("(-5)*3", true), ("7", false), ("2+", false), ("x+1", false), ("2 + 3", false)]
        {
            let read = challenge(&format!("<question>{question}</question>\\boxed{{0}}"), &ARITHMETIC);
            assert_eq!(read.is_ok(), is_in_domain, "{question}");
            assert!(is_in_domain || read == Err(ChallengeStatus::NotInDomain));
        }
    }

    #[test]
    fn a_megabyte_of_open_or_nested_boxes_takes_linear_time() {
        let open = BOX_OPEN.repeat(1 << 17);
        assert_eq!(extract_boxed(&open), Err(AnswerStatus::UnbalancedBox));
        let nested = format!("{open}3{}", "}".repeat(1 << 17));
        assert_eq!(extract_boxed(&nested).map(str::len), Ok(nested.len() - BOX_OPEN.len() - 1));
        let half_closed = format!("{open}3{}", "}".repeat(1 << 16));
        assert!(extract_boxed(&half_closed).is_ok());
        assert_eq!(extract_boxed(&"{".repeat(1 << 20)), Err(AnswerStatus::NoBox));
        let tags = QUESTION_OPEN.repeat(1 << 16);
        assert_eq!(challenge(&tags, &TEXT), Err(ChallengeStatus::NoQuestion));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in r"(\\boxed\{|\{|\}|\\|<question>|</question>|[0-9+*() ]|\PC|\x00){0,60}") {
            let answer = read_answer(&text, FinishReason::Stop, &rule(50));
            prop_assert_eq!(answer.answer.is_some(), answer.status == AnswerStatus::Parsed);
            for rule in [&TEXT, &ARITHMETIC] {
                if let Ok(read) = challenge(&text, rule) {
                    prop_assert!(!read.question.is_empty() && !read.proposed_answer.is_empty());
                    prop_assert!(read.question.chars().count() <= rule.max_question_chars);
                }
            }
        }

        #[test]
        fn whole_numbers_are_read_as_by_the_readers_of_numbers_and_of_forms(text in "-?0{0,2}[0-9]{1,20}(\\.0)?") {
            let completion = format!("\\boxed{{{text}}}");
            for form in [AnswerForm::Number, AnswerForm::Maths] {
                let slowly = match form {
                    AnswerForm::Maths => canonical_form(&text, 12).map(|form| form.to_string()),
                    _ => literal_number(&text, 12).map(|number| number.to_string()),
                };
                let rule = AnswerRule { form, max_chars: 12, extraction: Extraction::Box };
                let read = answer_form(&completion, FinishReason::Stop, &rule).map(Cow::into_owned);
                prop_assert_eq!(read, slowly);
            }
        }

        #[test]
        fn a_balanced_content_comes_back(content in r"[a-z0-9+]{1,8}(\{[a-z]{0,3}\}){0,3}", before in r"[^\\{}]{0,20}") {
            let text = format!("{before}\\boxed{{{content}}} done");
            prop_assert_eq!(extract_boxed(&text), Ok(content.as_str()));
        }
    }
}
