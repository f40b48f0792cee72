//! Rational functions by their values at fixed points of a prime field.
//!
//! The field has 2^64 - 2^32 + 1 elements. Every variable, and pi and e with them, stands for a pseudo-random element that follows from its
//! name; i is a root of -1. Two rational functions that are the same have the same values; two that are not differ at a point
//! but for a chance of degree / 2^64 (Schwartz 1980, Zippel 1979), and there are three points. Numbers too long to write out are compared
//! in the same way: `3^100000` is one power.

use crate::algebra::expr::{Constant, Expr};
use crate::algebra::simplify::rational;
use crate::algebra::{Budget, NoForm};
use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{ToPrimitive, Zero};

/// The prime.
const PRIME: u64 = 0xffff_ffff_0000_0001;
/// Generator of the multiplicative group.
const GENERATOR: u64 = 7;
/// What the values of one side may take.
const MAX_STEPS: u32 = 1_500;
/// Points at which functions are compared.
const NUM_POINTS: u8 = 3;

fn add(left: u64, right: u64) -> u64 {
    ((u128::from(left) + u128::from(right)) % u128::from(PRIME)) as u64
}

fn multiply(left: u64, right: u64) -> u64 {
    ((u128::from(left) * u128::from(right)) % u128::from(PRIME)) as u64
}

fn power(base: u64, mut exponent: u64) -> u64 {
    let (mut square, mut result) = (base, 1);
    while exponent > 0 {
        if exponent % 2 == 1 {
            result = multiply(result, square);
        }
        square = multiply(square, square);
        exponent /= 2;
    }
    result
}

fn inverse(value: u64) -> Result<u64, NoForm> {
    if value == 0 { Err(NoForm::Undefined) } else { Ok(power(value, PRIME - 2)) }
}

fn reduced(number: &BigInt, modulus: u64) -> u64 {
    number.mod_floor(&BigInt::from(modulus)).to_u64().unwrap_or(0)
}

fn of_rational(number: &BigRational) -> Result<u64, NoForm> {
    Ok(multiply(reduced(number.numer(), PRIME), inverse(reduced(number.denom(), PRIME))?))
}

/// The element that stands for a name at a point.
fn element(point: u8, name: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[point]).update(name.as_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes) % (PRIME - 2) + 2
}

/// Value of a rational function at a point.
pub(crate) fn value(expr: &Expr, point: u8, budget: &mut Budget) -> Result<u64, NoForm> {
    budget.spend(2)?;
    match expr {
        Expr::Number(number) => of_rational(number),
        Expr::Constant(Constant::Pi) => Ok(element(point, "\\pi")),
        Expr::Constant(Constant::E) => Ok(element(point, "\\e")),
        Expr::Constant(Constant::I) => Ok(power(GENERATOR, (PRIME - 1) / 4)),
        Expr::Variable(name) => Ok(element(point, name)),
        Expr::Sum(parts) => parts.iter().try_fold(0, |sum, part| Ok(add(sum, value(part, point, budget)?))),
        Expr::Product(parts) => parts.iter().try_fold(1, |product, part| Ok(multiply(product, value(part, point, budget)?))),
        Expr::Power(pair) => {
            let exponent = rational(&pair.1, budget).filter(BigRational::is_integer).ok_or(NoForm::Other)?.to_integer();
            let base = value(&pair.0, point, budget)?;
            budget.spend(20)?;
            let base = if exponent < BigInt::zero() { inverse(base)? } else { base };
            if base == 0 && exponent.is_zero() {
                return Err(NoForm::Undefined);
            }
            // By Fermat, exponents count modulo PRIME - 1; of a base that is not zero.
            let exponent = BigInt::from(exponent.magnitude().clone());
            Ok(if base == 0 { 0 } else { power(base, reduced(&exponent, PRIME - 1)) })
        }
        Expr::Percent(part) => Ok(multiply(value(part, point, budget)?, inverse(100)?)),
        Expr::Degrees(part) => Ok(multiply(multiply(value(part, point, budget)?, element(point, "\\pi")), inverse(180)?)),
        Expr::Constant(Constant::Infinity)
        | Expr::Call(..)
        | Expr::Log(_)
        | Expr::Binomial(_)
        | Expr::Apply(..)
        | Expr::Big(_)
        | Expr::PlusMinus(..) => Err(NoForm::Other),
    }
}

/// Whether two rational functions are the same.
pub(crate) fn are_equal(left: &Expr, right: &Expr) -> Result<bool, NoForm> {
    // A budget for each side, so that the order of the two decides nothing.
    let mut budgets = [Budget::new(MAX_STEPS); 2];
    for point in 0..NUM_POINTS {
        if value(left, point, &mut budgets[0])? != value(right, point, &mut budgets[1])? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether two functions are multiples of each other, by their values at two points.
pub(crate) fn are_proportional(left_0: u64, right_0: u64, left_1: u64, right_1: u64) -> bool {
    multiply(left_0, right_1) == multiply(left_1, right_0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_one() {
        let root = power(GENERATOR, (PRIME - 1) / 4);
        assert_eq!(multiply(root, root), PRIME - 1);
        for value in [1, 2, 7, PRIME - 1, element(0, "x")] {
            assert_eq!(inverse(value).map(|inverse| multiply(value, inverse)), Ok(1));
        }
        assert_eq!(inverse(0), Err(NoForm::Undefined));
        assert_ne!(element(0, "x"), element(1, "x"));
    }
}
