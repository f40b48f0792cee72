//! Numbers as they are written: decimals of any length, thousands separators, scientific notation, plain fractions.
//!
//! Exact: 0.1 is a tenth. What a domain of numbers reads as an answer is a literal and nothing else; no sum is worked out.

use crate::algebra::rational::multiply;
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Pow, Zero};

/// Most digits of a numerator or a denominator as written.
pub const MAX_DIGITS: usize = 2_000;
/// Most digits of both in a fraction, whose common divisor has to be found.
const MAX_FRACTION_DIGITS: usize = 2 * MAX_DIGITS;
/// Most decimals that an exponent gives.
const MAX_DECIMALS: i32 = 400;
/// LaTeX commands for a fraction.
const FRACTION_COMMANDS: [&str; 4] = ["\\frac", "\\dfrac", "\\tfrac", "\\cfrac"];

/// Outcome of reading a text as a number.
#[derive(Debug, PartialEq)]
pub(crate) enum Reading {
    /// It is this number.
    Number(BigRational),
    /// It is written as a number and has no value here: too many digits, or a zero below the fraction line.
    Refused,
    /// It is not written as a number.
    NoNumber,
}

/// A decimal, `a/b`, or a LaTeX fraction with an optional sign before it.
pub(crate) fn read_literal(text: &str) -> Reading {
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

/// The value of an unsigned decimal such as `1,234.5`, `.5` or `2.5e-3`; nothing where it is none or has too many digits.
pub(crate) fn decimal_value(text: &str) -> Option<BigRational> {
    let (text, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let decimal = decimal_digits(text)?;
    if decimal.digits.len() + exponent.unsigned_abs() as usize > MAX_DIGITS {
        return None;
    }
    if exponent < -MAX_DECIMALS {
        return None;
    }
    let value = decimal.value()?;
    let scale = || BigRational::from_integer(10.into()).pow(exponent);
    Some(if exponent == 0 { value } else { multiply(&value, &scale()) })
}

/// `{a}{b}`, or two single digits as in `\frac12`.
fn fraction_arguments(arguments: &str) -> Option<(&str, &str)> {
    let arguments = arguments.trim();
    if arguments.len() == 2 && arguments.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(arguments.split_at(1));
    }
    let (above, rest) = split_group(arguments.strip_prefix('{')?)?;
    let (below, rest) = split_group(rest.trim_start().strip_prefix('{')?)?;
    rest.is_empty().then_some((above, below))
}

/// Splits the rest of a text behind an opening brace into the group's content and what follows its closing brace.
pub(crate) fn split_group(rest: &str) -> Option<(&str, &str)> {
    let mut depth = 0_usize;
    let mut is_escaped = false;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some((&rest[..at], &rest[at + 1..])),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn ratio(is_negative: bool, above: &str, below: &str) -> Reading {
    let (Some(above), Some(below)) = (decimal_digits(above), decimal_digits(below)) else {
        return Reading::NoNumber;
    };
    let (num_above, num_below) = (above.digits.len(), below.digits.len());
    if num_above > MAX_DIGITS || num_below > MAX_DIGITS || num_above.min(num_below) * 2 > MAX_FRACTION_DIGITS {
        return Reading::Refused;
    }
    let (Some(above), Some(below)) = (above.value(), below.value()) else {
        return Reading::NoNumber;
    };
    if below.is_zero() {
        return Reading::Refused;
    }
    let value = if below == BigRational::from_integer(1.into()) { above } else { above / below };
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
        let magnitude: BigInt = match self.digits.parse::<i64>() {
            Ok(small) => BigInt::from(small),
            Err(_) => self.digits.parse().ok()?,
        };
        let signed = if self.is_negative { -magnitude } else { magnitude };
        Some(if self.num_decimals == 0 {
            BigRational::from_integer(signed)
        } else {
            BigRational::new(signed, BigInt::from(10).pow(self.num_decimals))
        })
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
