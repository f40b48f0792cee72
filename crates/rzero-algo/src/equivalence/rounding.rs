//! Decimals that stand for numbers which they only round to: those that computers print, and gold answers that are known to be rounded.

use crate::algebra::expr::Expr;
use crate::algebra::{Budget, numeric};
use crate::equivalence::GradeOptions;
use crate::normalize::Value;
use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Pow, Signed};

/// Digits from which a decimal counts as printed by a computer.
const DOUBLE_DIGITS: usize = 15;
/// How far such a decimal may lie from what it stands for, relative to it.
const DOUBLE_TOLERANCE: i64 = 100_000_000_000_000;

/// Whether one of two numbers is a decimal to which the other rounds, within what is allowed.
pub(crate) fn are_equal(gold: &Value, prediction: &Value, options: GradeOptions) -> bool {
    for (one, other) in [(gold, prediction), (prediction, gold)] {
        if let Some(decimal) = one.rational().filter(|number| significant_digits(number) >= DOUBLE_DIGITS) {
            let tolerance = decimal.abs() / BigRational::from_integer(DOUBLE_TOLERANCE.into());
            if is_within(other, &decimal, &tolerance) {
                return true;
            }
        }
    }
    if options.is_gold_rounded
        && let Some((decimal, tolerance)) = rounded_decimal(&gold.expr)
    {
        return is_within(prediction, &decimal, &tolerance);
    }
    false
}

fn is_within(value: &Value, centre: &BigRational, tolerance: &BigRational) -> bool {
    match value.rational() {
        Some(number) => (number - centre).abs() <= *tolerance,
        None => numeric::is_between(&value.expr, &(centre - tolerance), &(centre + tolerance)),
    }
}

/// Significant digits of a decimal; 0 for a whole number and for a fraction that is no decimal.
fn significant_digits(number: &BigRational) -> usize {
    let (mut below, ten) = (number.denom().clone(), BigInt::from(10));
    if below.is_one() || below.bits() > 200 {
        return 0;
    }
    let mut num_decimals = 0_u32;
    for factor in [2_u32, 5].map(BigInt::from) {
        let mut times = 0;
        while below.is_multiple_of(&factor) {
            below /= &factor;
            times += 1;
        }
        num_decimals = num_decimals.max(times);
    }
    if !below.is_one() {
        return 0;
    }
    (number * BigRational::from_integer(Pow::pow(&ten, num_decimals))).numer().magnitude().to_string().len()
}

/// A decimal as it is written and half a unit of its last digit: `0.25`, `4.5 * 10^33`.
fn rounded_decimal(expr: &Expr) -> Option<(BigRational, BigRational)> {
    let half_unit = |number: &BigRational| {
        let num_decimals = (1_u32..=30).find(|decimals| (number * ten_to(*decimals)).is_integer())?;
        (!number.is_integer()).then(|| BigRational::new(1.into(), 2.into()) / ten_to(num_decimals))
    };
    match expr {
        Expr::Number(number) => Some((number.clone(), half_unit(number)?)),
        Expr::Product(parts) => match parts.as_slice() {
            [Expr::Number(number), scale @ Expr::Power(pair)] if pair.0 == Expr::integer(10) => {
                let scale = crate::algebra::simplify::rational(scale, &mut Budget::new(1_000))?;
                Some((number * &scale, half_unit(number)? * scale.abs()))
            }
            [sign @ Expr::Number(_), inner] if *sign == Expr::integer(-1) => {
                rounded_decimal(inner).map(|(number, tolerance)| (-number, tolerance))
            }
            _ => None,
        },
        _ => None,
    }
}

fn ten_to(exponent: u32) -> BigRational {
    BigRational::from_integer(Pow::pow(&BigInt::from(10), exponent))
}
