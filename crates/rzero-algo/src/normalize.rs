//! Canonical forms of answers: what two differently written but equal answers have in common.
//!
//! | written | canonical |
//! | --- | --- |
//! | `7`, `+7`, `007`, `7.`, `7.0`, `$7$`, `\text{7}`, `14/2` | `7` |
//! | `1,234,567`, `1{,}234{,}567`, `1,\!234,\!567` | `1234567` |
//! | `-0.5`, `−1/2`, `-\frac{1}{2}`, `\dfrac{-1}{2}`, `\frac12` with a sign | `-1/2` |
//! | `Blue  Whale.`, `\text{blue whale}` | `text:blue whale` |
//!
//! Numbers are exact and of any size up to [`MAX_DIGITS`]; nothing is rounded, so `0.333` is not a third. Everything that is not a
//! number is text, compared without regard to case and spacing. Deliberately absent: evaluating. `2^3`, `3+4` and `9^9^9^9` are
//! text, so no answer can make the reader hang; units, percent, mixed numbers and sets are text as well.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Zero};
use rzero_schema::vocab::AnswerStatus;
use std::fmt;

/// Most digits of a numerator or a denominator as written.
pub const MAX_DIGITS: usize = 2_000;
/// Length bound of [`canonical_answer`], in characters: room for two numbers of [`MAX_DIGITS`] with separators.
const MAX_CHARS: usize = 8_000;
/// How many layers of dollar signs and `\text{...}` are taken off.
const MAX_WRAPPERS: usize = 8;
/// LaTeX commands that only say how their content is set.
const TEXT_COMMANDS: [&str; 6] = ["\\text{", "\\textbf{", "\\textit{", "\\mathrm{", "\\mathbf{", "\\mbox{"];
/// LaTeX commands for a fraction.
const FRACTION_COMMANDS: [&str; 3] = ["\\frac", "\\dfrac", "\\tfrac"];

/// An answer in the form in which it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanonicalForm {
    /// An exact number, shown as `n`, or `n/d` in lowest terms with `d > 1`.
    Number(BigRational),
    /// Anything else, lower-cased, inner white space collapsed; shown behind `text:`.
    Text(String),
}

impl fmt::Display for CanonicalForm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) if number.denom().is_one() => {
                write!(formatter, "{}", number.numer())
            }
            Self::Number(number) => write!(formatter, "{}/{}", number.numer(), number.denom()),
            Self::Text(text) => write!(formatter, "text:{text}"),
        }
    }
}

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
pub fn canonical_form(raw: &str, max_chars: usize) -> Result<CanonicalForm, AnswerStatus> {
    let raw = raw.trim();
    if raw.is_empty() {
        return Err(AnswerStatus::EmptyBox);
    }
    if raw.chars().nth(max_chars).is_some() {
        return Err(AnswerStatus::AnswerTooLong);
    }
    let answer = without_wrappers(raw).replace('\u{2212}', "-");
    match read_number(&answer.replace("{,}", ",").replace("\\!", "")) {
        Reading::Number(number) => return Ok(CanonicalForm::Number(number)),
        Reading::Refused => return Err(AnswerStatus::NotReadable),
        Reading::NoNumber => {}
    }
    let words: Vec<&str> = answer.split_whitespace().collect();
    let text = words.join(" ").to_lowercase();
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(AnswerStatus::NotReadable);
    }
    Ok(CanonicalForm::Text(text))
}

/// Takes off dollar signs, closing full stops and commands that wrap the whole answer.
fn without_wrappers(raw: &str) -> &str {
    let mut answer = raw;
    for _ in 0..MAX_WRAPPERS {
        let inner = answer.trim().trim_matches('$').trim().trim_end_matches('.').trim();
        let inner = TEXT_COMMANDS.iter().find_map(|command| inner.strip_prefix(command).and_then(whole_group)).unwrap_or(inner);
        if inner.len() == answer.len() {
            break;
        }
        answer = inner;
    }
    answer
}

/// Content of a brace group whose opening brace is already gone, if the group ends exactly at the end of the text.
fn whole_group(rest: &str) -> Option<&str> {
    split_group(rest).and_then(|(content, after)| after.is_empty().then_some(content))
}

/// Splits the rest of a text behind an opening brace into the group's content and what follows its closing brace.
fn split_group(rest: &str) -> Option<(&str, &str)> {
    let mut depth = 0_usize;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some((&rest[..at], &rest[at + 1..])),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Outcome of reading a text as a number.
enum Reading {
    /// It is this number.
    Number(BigRational),
    /// It is written as a number and has no value here: too many digits, or a zero below the fraction line.
    Refused,
    /// It is not written as a number.
    NoNumber,
}

/// A decimal, `a/b`, or a LaTeX fraction with an optional sign before it.
fn read_number(text: &str) -> Reading {
    let (is_negative, unsigned) = split_sign(text.trim());
    for command in FRACTION_COMMANDS {
        if let Some(arguments) = unsigned.strip_prefix(command) {
            return match fraction_arguments(arguments) {
                Some((above, below)) => ratio(is_negative, above, below),
                None => Reading::NoNumber,
            };
        }
    }
    match text.split_once('/') {
        Some((above, below)) => ratio(false, above, below),
        None => ratio(false, text, "1"),
    }
}

/// `{a}{b}`, or two single digits as in `\frac12`.
fn fraction_arguments(arguments: &str) -> Option<(&str, &str)> {
    let arguments = arguments.trim();
    if arguments.len() == 2 && arguments.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(arguments.split_at(1));
    }
    let (above, rest) = split_group(arguments.strip_prefix('{')?)?;
    let below = whole_group(rest.trim_start().strip_prefix('{')?)?;
    Some((above, below))
}

fn ratio(is_negative: bool, above: &str, below: &str) -> Reading {
    let (Some(above), Some(below)) = (decimal_digits(above), decimal_digits(below)) else {
        return Reading::NoNumber;
    };
    if above.digits.len() > MAX_DIGITS || below.digits.len() > MAX_DIGITS {
        return Reading::Refused;
    }
    let (Some(above), Some(below)) = (above.value(), below.value()) else {
        return Reading::NoNumber;
    };
    if below.is_zero() {
        return Reading::Refused;
    }
    let value = above / below;
    Reading::Number(if is_negative { -value } else { value })
}

fn split_sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text.strip_prefix('+').map_or(text, str::trim_start)),
    }
}

/// A signed decimal as written: its value is the digits, divided by ten to the number of digits behind the point.
struct Decimal {
    is_negative: bool,
    digits: String,
    num_decimals: u32,
}

impl Decimal {
    fn value(&self) -> Option<BigRational> {
        let magnitude: BigInt = self.digits.parse().ok()?;
        let signed = if self.is_negative { -magnitude } else { magnitude };
        Some(BigRational::new(signed, BigInt::from(10).pow(self.num_decimals)))
    }
}

/// Reads `12`, `-1,234.5` or `.5`; thousands separators must stand where they belong.
fn decimal_digits(text: &str) -> Option<Decimal> {
    let (is_negative, unsigned) = split_sign(text.trim());
    let (whole, decimals) = match unsigned.split_once('.') {
        Some((whole, decimals)) if !decimals.is_empty() => (whole, decimals),
        Some(_) => return None,
        None => (unsigned, ""),
    };
    let are_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or_default();
    if whole.contains(',') {
        let is_grouped = (1..=3).contains(&first.len())
            && !first.starts_with('0')
            && groups.all(|group| group.len() == 3 && are_digits(group));
        if !is_grouped {
            return None;
        }
    }
    if !are_digits(first) || !are_digits(decimals) || (first.is_empty() && decimals.is_empty()) {
        return None;
    }
    let mut digits: String = whole.chars().filter(|digit| *digit != ',').collect();
    digits.push_str(decimals);
    Some(Decimal { is_negative, digits, num_decimals: u32::try_from(decimals.len()).ok()? })
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
    fn what_is_no_number_is_text() {
        for (raw, expected) in [
            ("Blue  Whale.", "text:blue whale"),
            (r"\text{blue whale}", "text:blue whale"),
            (r"\text{a} or \text{b}", r"text:\text{a} or \text{b}"),
            ("1,23", "text:1,23"),
            ("0,123", "text:0,123"),
            ("1,2345", "text:1,2345"),
            ("1 1/2", "text:1 1/2"),
            ("3+4", "text:3+4"),
            ("--5", "text:--5"),
            ("1/2/3", "text:1/2/3"),
            (r"\frac{1}{2}x", r"text:\frac{1}{2}x"),
            (r"\frac{1}", r"text:\frac{1}"),
            (r"\frac123", r"text:\frac123"),
            ("1.2.3", "text:1.2.3"),
            ("x \u{2212} 1", "text:x - 1"),
            ("٣", "text:٣"),
        ] {
            assert_eq!(canonical_answer(raw).as_deref(), Some(expected), "{raw}");
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
    fn a_tower_of_powers_is_text_and_takes_no_time() {
        assert_eq!(canonical_answer("9^9^9^9").as_deref(), Some("text:9^9^9^9"));
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
            if let Ok(CanonicalForm::Text(text)) = &form {
                prop_assert!(!text.is_empty());
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
