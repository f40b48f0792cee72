//! The true answer to a question, where it is an expression, or one asked in words such as "What is 8 plus 5 - 3?".
//!
//! Anything else has none: a story is not understood, and a form that might be read in two ways is not read.

use super::expression::{MAX_LENGTH, parse};

/// How questions about an expression begin.
const BEGINNINGS: [&str; 9] =
    ["what is the value of", "what is the result of", "what is", "what's", "calculate", "compute", "evaluate", "solve", "find"];

/// Operators in words and in other signs.
const OPERATORS: [(&str, &str); 8] = [
    ("multiplied by", "*"),
    ("times", "*"),
    ("plus", "+"),
    ("minus", "-"),
    ("\u{d7}", "*"),
    ("\u{2212}", "-"),
    (" x ", "*"),
    ("added to", "+"),
];

/// Canonical form of the true answer to a question; nothing where the question is no expression.
#[must_use]
pub fn true_answer(question: &str) -> Option<String> {
    let question = question.trim();
    let expression = match parse(question) {
        Some(expression) => expression,
        None => parse(&in_signs(question)?)?,
    };
    expression.evaluate().map(|value| value.to_string())
}

/// A question about an expression as the expression alone.
fn in_signs(question: &str) -> Option<String> {
    if question.len() > 4 * MAX_LENGTH {
        return None;
    }
    let mut text = question.to_lowercase();
    if let Some(rest) = BEGINNINGS.iter().find_map(|beginning| text.strip_prefix(beginning)) {
        text = rest.trim_start_matches(':').to_owned();
    }
    let mut text = text.trim_end_matches(['?', '.', '=', ' ']).to_owned();
    for (word, sign) in OPERATORS {
        text = text.replace(word, sign);
    }
    // Digits that stand apart are two numbers, and no expression.
    let bytes = text.as_bytes();
    let is_apart = |at: usize| bytes[at] == b' ' && bytes[..at].trim_ascii_end().last().is_some_and(u8::is_ascii_digit);
    let meets_digit = |at: usize| bytes[at..].trim_ascii_start().first().is_some_and(u8::is_ascii_digit);
    if (0..bytes.len()).any(|at| is_apart(at) && meets_digit(at)) {
        return None;
    }
    text.retain(|letter| letter != ' ');
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_have_an_answer_in_signs_and_in_words_and_stories_have_none() {
        for (question, expected) in [
            ("2+3*4", Some("14")),
            (" 2 + 3 * 4 ", Some("14")),
            ("What is 8 plus 5 minus 3?", Some("10")),
            ("Calculate 4 \u{d7} 9 - 6.", Some("30")),
            ("what is 3 times (2 + 5) ?", Some("21")),
            ("Solve: 7 x 8 =", Some("56")),
            ("Calculate 1 \u{2212} 8.", Some("-7")),
            ("What is 12 34?", None),
            ("What is 12 / 4?", None),
            ("What is 5 subtracted from 9?", None),
            ("Tom has 3 apples and eats 2. How many are left?", None),
            ("What is love?", None),
            ("", None),
        ] {
            assert_eq!(true_answer(question).as_deref(), expected, "{question}");
        }
        assert_eq!(true_answer(&"what is ".repeat(1 << 16)), None);
    }
}
