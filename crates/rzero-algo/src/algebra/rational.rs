//! Sums and products of rational numbers that know whole numbers when they see them.
//!
//! A common divisor is found bit by bit, which takes as long for a divisor of 1 as for any other; whole numbers need none.

use num_rational::BigRational;
use num_traits::One;

fn are_whole(left: &BigRational, right: &BigRational) -> bool {
    left.denom().is_one() && right.denom().is_one()
}

pub(crate) fn multiply(left: &BigRational, right: &BigRational) -> BigRational {
    if are_whole(left, right) { BigRational::from_integer(left.numer() * right.numer()) } else { left * right }
}

pub(crate) fn add(left: &BigRational, right: &BigRational) -> BigRational {
    if are_whole(left, right) { BigRational::from_integer(left.numer() + right.numer()) } else { left + right }
}

/// Bits of numerator and denominator.
pub(crate) fn size(number: &BigRational) -> u64 {
    number.numer().bits() + number.denom().bits()
}

/// What a sum or a product costs, in steps of a [`Budget`](super::Budget).
pub(crate) fn cost(left: &BigRational, right: &BigRational) -> u64 {
    let (left_words, right_words) = (size(left) / 64, size(right) / 64);
    if are_whole(left, right) { left_words * right_words / 16 } else { (left_words + right_words + 1).pow(2) * 5 }
}
