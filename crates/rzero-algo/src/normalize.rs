//! Canonical forms of answers: what two differently written but equal answers have in common.
//!
//! | written | canonical |
//! | --- | --- |
//! | `7`, `+7`, `007`, `7.`, `7.0`, `$7$`, `\text{7}`, `14/2`, `3+4` | `7` |
//! | `1,234,567`, `1{,}234{,}567`, `1,\!234,\!567`, `1 234 567` | `1234567` |
//! | `-0.5`, `−1/2`, `-\frac{1}{2}`, `\dfrac{-1}{2}`, `\frac12` with a sign | `-1/2` |
//! | `\sqrt{8}`, `2 * 2^{1/2}`, `\frac{4}{\sqrt2}` | `2*sqrt(2)` |
//! | `(x+1)^2`, `1+2x+x^2` | `x^2 + 2*x + 1` |
//! | `\{2, 1\}`, `x = 1 \text{ or } x = 2` | `\{2, 1\}`, `\{x = 1, x = 2\}` |
//! | `x > 3`, `(3, \infty)` | `x \in (3, inf)`, `(3, inf)` |
//! | `Blue  Whale.`, `\text{blue whale}` | `text:blue whale` |
//!
//! Numbers are exact and of any size up to [`MAX_DIGITS`]; nothing is rounded, so `0.333` is not a third. A form printed and read again is
//! the same form. What is no mathematics is text, compared without regard to case and spacing. Which forms are the same answer is
//! said in [`crate::equivalence`].
//!
//! | module | step |
//! | --- | --- |
//! | [`wrappers`] | dollar signs, boxes and text commands come off |
//! | [`literal`] | numbers are read at once |
//! | [`lexer`], [`symbols`], [`parser`] | text to tokens, tokens to an expression |
//! | [`read`], [`matrix`] | lists, sets, tuples, intervals, matrices |
//! | [`relations`], [`solve`] | names, equations, inequalities and the intervals that they are |
//! | [`values`], [`words`] | expressions with their units, ratios, digits in a base |
//! | [`form`] | the result |

mod form;
mod lexer;
mod literal;
mod matrix;
mod parser;
mod read;
mod relations;
mod solve;
mod symbols;
mod values;
mod words;
mod wrappers;

pub use form::Form;
pub(crate) use form::{Body, Interval, Name, Order, Relation, Value, has_repeats};
pub use literal::MAX_DIGITS;

use literal::{Reading, read_literal};
use num_rational::BigRational;
use rzero_schema::vocab::AnswerStatus;

/// Length bound of [`canonical_answer`], in characters: room for two numbers of [`MAX_DIGITS`] with separators.
const MAX_CHARS: usize = 8_000;
/// Longest text that is read as mathematics, in bytes; beyond it only numbers and text are.
const MAX_MATH_BYTES: usize = 4_096;
/// The last letter of a choice.
const LAST_CHOICE: char = 'J';

/// Canonical form of a raw answer as a string; nothing where it is empty, too long or unreadable.
#[must_use]
pub fn canonical_answer(raw: &str) -> Option<String> {
    canonical_form(raw, MAX_CHARS).ok().map(|form| form.to_string())
}

/// Canonical form of a raw answer of at most `max_chars` characters.
///
/// # Errors
/// [`AnswerStatus::EmptyBox`] for white space, [`AnswerStatus::AnswerTooLong`] over the bound, and
/// [`AnswerStatus::NotReadable`] for a denominator of zero, a number of more than [`MAX_DIGITS`] digits, control characters, or
/// nothing left once dollar signs and wrappers are gone.
pub fn canonical_form(raw: &str, max_chars: usize) -> Result<Form, AnswerStatus> {
    let raw = bounded(raw, max_chars)?;
    if let Some(text) = raw.strip_prefix("text:") {
        return text_form(text);
    }
    let answer = wrappers::without_wrappers(raw);
    match literal(answer) {
        Reading::Number(number) => return Ok(Form::of(Body::Value(Value::number(number)))),
        Reading::Refused => return Err(AnswerStatus::NotReadable),
        Reading::NoNumber => {}
    }
    if let Some((letter, rest)) = choice(answer) {
        return Ok(Form::of(Body::Choice(letter, rest.map(words::plain_text).filter(|rest| !rest.is_empty()))));
    }
    if answer.len() <= MAX_MATH_BYTES && !is_words(answer) {
        let (currency, amount) =
            wrappers::split_currency(answer).map_or((None, answer), |(name, rest)| (words::unit_name(name), rest));
        if let Some(mut form) = lexer::tokens(amount).and_then(|tokens| read::read(&tokens)) {
            if form.unit.is_none() && matches!(form.body, Body::Value(_)) {
                form.unit = currency;
            }
            return Ok(form);
        }
    }
    text_form(answer)
}

/// The number that an answer is, where answers are numbers and nothing else is worked out.
///
/// # Errors
/// As [`canonical_form`], and [`AnswerStatus::NotReadable`] for whatever is no number as it stands.
pub fn literal_number(raw: &str, max_chars: usize) -> Result<BigRational, AnswerStatus> {
    match literal(wrappers::without_wrappers(bounded(raw, max_chars)?)) {
        Reading::Number(number) => Ok(number),
        Reading::Refused | Reading::NoNumber => Err(AnswerStatus::NotReadable),
    }
}

/// Whether a text is a whole number of at most 18 digits in its canonical form, whatever kind of answer is asked for. Most answers are.
pub(crate) fn is_canonical_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = (1..=18).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_plain && (!digits.starts_with('0') || text == "0")
}

fn bounded(raw: &str, max_chars: usize) -> Result<&str, AnswerStatus> {
    let raw = raw.trim();
    if raw.is_empty() {
        return Err(AnswerStatus::EmptyBox);
    }
    if raw.len() > max_chars && raw.chars().nth(max_chars).is_some() {
        return Err(AnswerStatus::AnswerTooLong);
    }
    Ok(raw)
}

fn literal(answer: &str) -> Reading {
    if answer.bytes().all(|byte| byte.is_ascii() && byte != b'\\' && byte != b'{') {
        return read_literal(answer);
    }
    read_literal(&answer.replace('\u{2212}', "-").replace("{,}", ",").replace("\\!", ""))
}

fn text_form(answer: &str) -> Result<Form, AnswerStatus> {
    let text = words::plain_text(answer);
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(AnswerStatus::NotReadable);
    }
    Ok(Form::of(Body::Text(text)))
}

/// `C`, `(C)`, `C.`, `(C) 12`, `C: 12`; small letters as well, but for those that are numbers.
fn choice(answer: &str) -> Option<(char, Option<&str>)> {
    let has_open = answer.starts_with('(');
    let mut rest = answer[usize::from(has_open)..].chars();
    let letter = rest.next()?;
    if !('A'..=LAST_CHOICE).contains(&letter.to_ascii_uppercase()) || matches!(letter, 'e' | 'i') {
        return None;
    }
    let mut rest = rest.as_str();
    let is_closed = match rest.chars().next() {
        Some(')') => true,
        Some('.' | ':') if !has_open => true,
        _ => false,
    };
    if has_open && !is_closed {
        return None;
    }
    if is_closed {
        rest = &rest[1..];
        rest = rest.strip_prefix(['.', ':']).unwrap_or(rest);
    }
    let is_end =
        rest.is_empty() || (is_closed && rest.starts_with(char::is_whitespace) && (letter.is_ascii_uppercase() || !has_open));
    is_end.then(|| (letter.to_ascii_uppercase(), Some(rest.trim()).filter(|rest| !rest.is_empty())))
}

/// Whether an answer is words: letters and spaces, with a word that is no name of a number or variable.
fn is_words(answer: &str) -> bool {
    let is_text = answer.chars().all(|character| character.is_alphabetic() || matches!(character, ' ' | '-' | '\'' | '.' | ','));
    let is_name = |word: &str| {
        let is_product = word.len() == 2 && word.bytes().all(|letter| letter.is_ascii_lowercase() && !b"aeiou".contains(&letter));
        word.chars().count() <= 1 || matches!(word, "pi" | "inf" | "infinity" | "and" | "or") || is_product
    };
    is_text && answer.split(|c: char| !c.is_alphabetic()).any(|word| !is_name(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_have_one_form() {
        for (raw, expected) in [
            ("7", "7"),
            (" +7 ", "7"),
            ("007", "7"),
            ("7.", "7"),
            ("7.00", "7"),
            ("$7$", "7"),
            ("$7", "7"),
            ("$$ 7. $$", "7"),
            (r"\text{7}", "7"),
            (r"$\mathrm{ 7 }$", "7"),
            (r"\text{\text{7}}", "7"),
            ("14/2", "7"),
            ("-0", "0"),
            ("- 5", "-5"),
            ("\u{2212}5", "-5"),
            ("1,234,567", "1234567"),
            ("1{,}234", "1234"),
            (r"1,\!234", "1234"),
            ("1,234.5", "2469/2"),
            (".5", "1/2"),
            ("0.125", "1/8"),
            ("2/6", "1/3"),
            ("2 / 6", "1/3"),
            ("1/-3", "-1/3"),
            ("-1/-3", "1/3"),
            ("0.5/2", "1/4"),
            (r"\frac{1}{3}", "1/3"),
            (r"\dfrac{-2}{6}", "-1/3"),
            (r"-\tfrac{2}{6}", "-1/3"),
            (r"\frac {4} {2}", "2"),
            (r"\frac12", "1/2"),
            ("0.1", "1/10"),
        ] {
            assert_eq!(canonical_answer(raw).as_deref(), Some(expected), "{raw}");
        }
    }

    #[test]
    fn other_forms_are_written_in_one_way() {
        for (raw, expected) in [
            ("Blue  Whale.", "text:blue whale"),
            (r"\text{blue whale}", "text:blue whale"),
            ("1,23", r"\{1, 23\}"),
            ("1 1/2", "3/2"),
            ("3+4", "7"),
            ("--5", "5"),
            ("1/2/3", "1/6"),
            (r"\frac{1}{2}x", "x/2"),
            (r"\frac{1}", r"text:\frac 1"),
            ("1.2.3", "text:1.2.3"),
            ("x \u{2212} 1", "x - 1"),
            (r"\sqrt{8}", "2*sqrt(2)"),
            ("(x+1)^2", "x^2 + 2*x + 1"),
            ("x = 5", "x = 5"),
            ("10 centimeters", r"10 \text{cm}"),
            ("2 < x \\le 5", "x \\in (2, 5]"),
            ("٣", "text:٣"),
        ] {
            assert_eq!(canonical_answer(raw).as_deref(), Some(expected), "{raw}");
        }
    }

    #[test]
    fn a_domain_of_numbers_reads_numbers_and_works_nothing_out() {
        for (raw, expected) in [("7", Some("7")), (r"$\frac{1}{2}$", Some("1/2")), ("3+4", None), ("seven", None), ("x", None)] {
            assert_eq!(literal_number(raw, 30).ok().map(|number| number.to_string()).as_deref(), expected, "{raw}");
        }
    }

    #[test]
    fn unreadable_answers_say_why() {
        let status = |raw: &str| canonical_form(raw, 3_000).expect_err("refused");
        assert_eq!(status("  "), AnswerStatus::EmptyBox);
        assert_eq!(status("$ $"), AnswerStatus::NotReadable);
        assert_eq!(status("1/0"), AnswerStatus::NotReadable);
        assert_eq!(status(r"\frac{1}{0.0}"), AnswerStatus::NotReadable);
        assert_eq!(status("a\0b"), AnswerStatus::NotReadable);
        assert_eq!(status(&"9".repeat(MAX_DIGITS + 1)), AnswerStatus::NotReadable);
        assert_eq!(status(&"9".repeat(3_001)), AnswerStatus::AnswerTooLong);
    }

    #[test]
    fn a_tower_of_powers_takes_no_time() {
        assert_eq!(canonical_answer("9^9^9^9").as_deref(), Some("9^(9^(9^(9)))"));
    }

    #[test]
    fn the_largest_numbers_stay_exact() {
        let digits = "7".repeat(MAX_DIGITS);
        assert_eq!(canonical_answer(&digits), Some(digits.clone()));
        let half = format!("{digits}/{digits}");
        assert_eq!(canonical_answer(&half).as_deref(), Some("1"));
        assert!(canonical_answer(&format!("0.{}", "3".repeat(MAX_DIGITS - 1))).is_some());
    }

    proptest! {
        #[test]
        fn any_text_has_a_form_or_a_status(raw in r"([0-9.,/+$ -]|\\frac|\\text|\{|\}|\PC|\x00){0,40}") {
            let form = canonical_form(&raw, 30);
            if let Ok(form) = &form {
                prop_assert!(!form.to_string().is_empty());
            }
        }

        #[test]
        fn a_number_is_its_own_form(numerator in -9_999_i64..9_999, denominator in 1_i64..999) {
            let form = canonical_answer(&format!("{numerator}/{denominator}")).expect("a number");
            prop_assert_eq!(canonical_answer(&form), Some(form.clone()));
            let latex = format!("\\frac{{{numerator}}}{{{denominator}}}");
            prop_assert_eq!(canonical_answer(&latex), Some(form));
        }

        #[test]
        fn separators_do_not_change_a_number(value in 0_u64..u64::MAX) {
            let digits = value.to_string();
            let mut grouped = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at) % 3 == 0 {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            prop_assert_eq!(canonical_answer(&grouped), Some(digits));
        }
    }
}
