//! Real numbers with a bound on their error: a middle and a radius (ball arithmetic, van der Hoeven 2009).
//!
//! Every operation yields a ball that holds all results for all numbers of its arguments' balls, rounding included. One code
//! serves two kinds of numbers: `f64`, which tells most numbers apart in nanoseconds, and [`BigFloat`] with 128 bits for those that it
//! cannot. Where a function has no real value on the whole ball, there is none.

use astro_float::{BigFloat, Consts, RoundingMode, Sign};
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive};
use std::cell::RefCell;

/// A kind of number that balls are made of.
pub(crate) trait Real: Clone {
    fn from_i64(value: i64) -> Self;
    fn from_integer(value: &BigInt) -> Self;
    fn add(&self, other: &Self) -> Self;
    fn sub(&self, other: &Self) -> Self;
    fn mul(&self, other: &Self) -> Self;
    fn div(&self, other: &Self) -> Self;
    fn sqrt(&self) -> Self;
    fn exp(&self) -> Self;
    fn ln(&self) -> Self;
    fn sin(&self) -> Self;
    fn cos(&self) -> Self;
    fn atan(&self) -> Self;
    fn abs(&self) -> Self;
    fn floor(&self) -> Self;
    fn pi() -> Self;
    fn is_finite(&self) -> bool;
    fn is_negative(&self) -> bool;
    fn is_zero(&self) -> bool;
    fn is_less(&self, other: &Self) -> bool;
    /// A bound on the relative error of each operation above, as a number: 2^-bits.
    fn epsilon() -> Self;
    /// A bound on what is lost where a number is too small to be written.
    fn smallest() -> Self;
    /// How close two numbers must be, relative to their size, to count as the same.
    fn tolerance() -> Self;
}

impl Real for f64 {
    fn from_i64(value: i64) -> Self {
        value as Self
    }
    fn from_integer(value: &BigInt) -> Self {
        value.to_f64().unwrap_or(Self::NAN)
    }
    fn add(&self, other: &Self) -> Self {
        self + other
    }
    fn sub(&self, other: &Self) -> Self {
        self - other
    }
    fn mul(&self, other: &Self) -> Self {
        self * other
    }
    fn div(&self, other: &Self) -> Self {
        self / other
    }
    fn sqrt(&self) -> Self {
        Self::sqrt(*self)
    }
    fn exp(&self) -> Self {
        Self::exp(*self)
    }
    fn ln(&self) -> Self {
        Self::ln(*self)
    }
    fn sin(&self) -> Self {
        Self::sin(*self)
    }
    fn cos(&self) -> Self {
        Self::cos(*self)
    }
    fn atan(&self) -> Self {
        Self::atan(*self)
    }
    fn abs(&self) -> Self {
        Self::abs(*self)
    }
    fn floor(&self) -> Self {
        Self::floor(*self)
    }
    fn pi() -> Self {
        std::f64::consts::PI
    }
    fn is_finite(&self) -> bool {
        Self::is_finite(*self)
    }
    fn is_negative(&self) -> bool {
        *self < 0.0
    }
    fn is_zero(&self) -> bool {
        *self == 0.0
    }
    fn is_less(&self, other: &Self) -> bool {
        self < other
    }
    fn epsilon() -> Self {
        // Library functions of all platforms are far better than eight units in the last place.
        8.0 * Self::EPSILON
    }
    fn smallest() -> Self {
        1e-300
    }
    fn tolerance() -> Self {
        1e-9
    }
}

/// Bits of the long numbers.
const BITS: usize = 128;
/// The middle is rounded somehow; the radius accounts for it.
const ROUNDING: RoundingMode = RoundingMode::None;

thread_local! {
    static CONSTS: RefCell<Option<Consts>> = RefCell::new(Consts::new().ok());
}

/// Calls a function that needs the cache of constants; not a number where there is no memory for it.
fn with_consts(call: impl FnOnce(&mut Consts) -> BigFloat) -> BigFloat {
    CONSTS.with_borrow_mut(|consts| consts.as_mut().map_or(astro_float::NAN, call))
}

fn two_to(exponent: i32) -> BigFloat {
    let mut power = BigFloat::from_word(1, BITS);
    power.set_exponent(exponent + 1);
    power
}

impl Real for BigFloat {
    fn from_i64(value: i64) -> Self {
        Self::from_i64(value, BITS)
    }
    fn from_integer(value: &BigInt) -> Self {
        // The digits are put together 64 bits at a time; lower ones no longer count and round off.
        let shift = two_to(64);
        let words = value.magnitude().to_u64_digits();
        let magnitude = words.iter().rev().fold(Self::from_word(0, BITS), |sum, word| {
            sum.mul(&shift, 2 * BITS, ROUNDING).add(&Self::from_u64(*word, 2 * BITS), 2 * BITS, ROUNDING)
        });
        if value.is_negative() { magnitude.neg() } else { magnitude }
    }
    fn add(&self, other: &Self) -> Self {
        self.add(other, BITS, ROUNDING)
    }
    fn sub(&self, other: &Self) -> Self {
        self.sub(other, BITS, ROUNDING)
    }
    fn mul(&self, other: &Self) -> Self {
        self.mul(other, BITS, ROUNDING)
    }
    fn div(&self, other: &Self) -> Self {
        self.div(other, BITS, ROUNDING)
    }
    fn sqrt(&self) -> Self {
        self.sqrt(BITS, ROUNDING)
    }
    fn exp(&self) -> Self {
        with_consts(|consts| self.exp(BITS, ROUNDING, consts))
    }
    fn ln(&self) -> Self {
        with_consts(|consts| self.ln(BITS, ROUNDING, consts))
    }
    fn sin(&self) -> Self {
        with_consts(|consts| self.sin(BITS, ROUNDING, consts))
    }
    fn cos(&self) -> Self {
        with_consts(|consts| self.cos(BITS, ROUNDING, consts))
    }
    fn atan(&self) -> Self {
        with_consts(|consts| self.atan(BITS, ROUNDING, consts))
    }
    fn abs(&self) -> Self {
        self.abs()
    }
    fn floor(&self) -> Self {
        self.floor()
    }
    fn pi() -> Self {
        with_consts(|consts| consts.pi(BITS, ROUNDING))
    }
    fn is_finite(&self) -> bool {
        // Of numbers beyond this the sine alone would take longer than an answer is given.
        !self.is_nan() && !self.is_inf() && self.exponent().is_none_or(|exponent| exponent <= 1_024)
    }
    fn is_negative(&self) -> bool {
        self.sign() == Some(Sign::Neg) && !self.is_zero()
    }
    fn is_zero(&self) -> bool {
        self.is_zero()
    }
    fn is_less(&self, other: &Self) -> bool {
        self.cmp(other).is_some_and(|order| order < 0)
    }
    fn epsilon() -> Self {
        two_to(4 - 128)
    }
    fn smallest() -> Self {
        // Its exponents have 32 bits; what is smaller than this is an error, not a number.
        two_to(-1_000_000)
    }
    fn tolerance() -> Self {
        two_to(-100)
    }
}

/// All numbers that lie at most `radius` from `middle`.
#[derive(Clone, Debug)]
pub(crate) struct Ball<T> {
    middle: T,
    radius: T,
}

impl<T: Real> Ball<T> {
    /// A ball that holds the rounding of its middle as well; none where that is no number.
    fn rounded(middle: T, radius: T) -> Option<Self> {
        // The radius is itself rounded, hence the little that is added to it.
        let radius = radius.add(&radius.add(&middle.abs()).mul(&T::epsilon())).add(&T::smallest());
        (middle.is_finite() && radius.is_finite()).then_some(Self { middle, radius })
    }

    pub(crate) fn exact(value: i64) -> Self {
        Self { middle: T::from_i64(value), radius: T::from_i64(0) }
    }

    pub(crate) fn rational(number: &BigRational) -> Option<Self> {
        let (above, below) = (T::from_integer(number.numer()), T::from_integer(number.denom()));
        // Both ends are rounded once, and so is the quotient.
        let middle = above.div(&below);
        let radius = middle.abs().mul(&T::epsilon());
        Self::rounded(middle, radius)
    }

    pub(crate) fn pi() -> Option<Self> {
        Self::rounded(T::pi(), T::from_i64(0))
    }

    fn low(&self) -> T {
        let low = self.middle.sub(&self.radius);
        low.sub(&low.abs().mul(&T::epsilon()))
    }

    fn high(&self) -> T {
        let high = self.middle.add(&self.radius);
        high.add(&high.abs().mul(&T::epsilon()))
    }

    /// Whether all its numbers are more than 0.
    pub(crate) fn is_positive(&self) -> bool {
        T::from_i64(0).is_less(&self.low())
    }

    pub(crate) fn is_negative(&self) -> bool {
        self.high().is_negative()
    }

    pub(crate) fn add(&self, other: &Self) -> Option<Self> {
        Self::rounded(self.middle.add(&other.middle), self.radius.add(&other.radius))
    }

    pub(crate) fn negated(&self) -> Option<Self> {
        Self::rounded(T::from_i64(0).sub(&self.middle), self.radius.clone())
    }

    pub(crate) fn sub(&self, other: &Self) -> Option<Self> {
        self.add(&other.negated()?)
    }

    pub(crate) fn multiply(&self, other: &Self) -> Option<Self> {
        let (left, right) = (self.middle.abs(), other.middle.abs());
        let radius = left.mul(&other.radius).add(&right.mul(&self.radius)).add(&self.radius.mul(&other.radius));
        Self::rounded(self.middle.mul(&other.middle), radius)
    }

    pub(crate) fn inverted(&self) -> Option<Self> {
        let size = self.middle.abs();
        let least = size.sub(&self.radius);
        let least = least.sub(&size.mul(&T::epsilon()));
        if !T::from_i64(0).is_less(&least) {
            return None;
        }
        Self::rounded(T::from_i64(1).div(&self.middle), self.radius.div(&size.mul(&least)))
    }

    pub(crate) fn divide(&self, other: &Self) -> Option<Self> {
        self.multiply(&other.inverted()?)
    }

    /// By the mean value theorem: what a change of argument within the radius can do to a function whose slope is at most this.
    fn of_slope(&self, value: T, slope: &T) -> Option<Self> {
        Self::rounded(value, self.radius.mul(slope))
    }

    pub(crate) fn sqrt(&self) -> Option<Self> {
        if self.middle.is_zero() && self.radius.is_zero() {
            return Some(self.clone());
        }
        let low = self.low();
        if !T::from_i64(0).is_less(&low) {
            return None;
        }
        self.of_slope(self.middle.sqrt(), &T::from_i64(1).div(&low.sqrt()))
    }

    pub(crate) fn exp(&self) -> Option<Self> {
        if T::from_i64(1_000).is_less(&self.middle.abs()) {
            return None;
        }
        self.of_slope(self.middle.exp(), &self.high().exp().mul(&T::from_i64(2)))
    }

    pub(crate) fn ln(&self) -> Option<Self> {
        let low = self.low();
        if !T::from_i64(0).is_less(&low) {
            return None;
        }
        // Near 1 the logarithm is small and its error relative to 1, not to itself.
        self.of_slope(self.middle.ln(), &T::from_i64(2).div(&low))?.widened()
    }

    pub(crate) fn sin(&self) -> Option<Self> {
        self.of_slope(self.middle.sin(), &T::from_i64(2))?.widened()
    }

    pub(crate) fn cos(&self) -> Option<Self> {
        self.of_slope(self.middle.cos(), &T::from_i64(2))?.widened()
    }

    pub(crate) fn atan(&self) -> Option<Self> {
        self.of_slope(self.middle.atan(), &T::from_i64(2))
    }

    /// arcsin x = arctan(x / sqrt(1 - x^2)).
    pub(crate) fn asin(&self) -> Option<Self> {
        self.divide(&Self::exact(1).sub(&self.multiply(self)?)?.sqrt()?)?.atan()
    }

    /// A little more room, for functions whose library error is absolute.
    fn widened(self) -> Option<Self> {
        let radius = self.radius.add(&T::epsilon());
        Self::rounded(self.middle, radius)
    }

    pub(crate) fn abs(&self) -> Option<Self> {
        Self::rounded(self.middle.abs(), self.radius.clone())
    }

    /// The whole number below all of them; none where they straddle one.
    pub(crate) fn floor(&self) -> Option<Self> {
        let (low, high) = (self.low().floor(), self.high().floor());
        if low.is_less(&high) || high.is_less(&low) { None } else { Some(Self { middle: low, radius: T::from_i64(0) }) }
    }

    pub(crate) fn power(&self, exponent: u32) -> Option<Self> {
        let (mut left, mut square, mut power) = (exponent, self.clone(), Self::exact(1));
        while left > 0 {
            if left % 2 == 1 {
                power = power.multiply(&square)?;
            }
            left /= 2;
            if left > 0 {
                square = square.multiply(&square)?;
            }
        }
        Some(power)
    }

    /// Whether two numbers are surely apart, surely within the tolerance, or neither.
    pub(crate) fn compare(&self, other: &Self) -> Closeness {
        if self.high().is_less(&other.low()) || other.high().is_less(&self.low()) {
            return Closeness::Apart;
        }
        let larger = if self.middle.abs().is_less(&other.middle.abs()) { other.middle.abs() } else { self.middle.abs() };
        let one = T::from_i64(1);
        // Numbers around 0 have no size to be relative to.
        let scale = if larger.is_less(&T::tolerance()) { one } else { larger };
        if self.radius.add(&other.radius).is_less(&scale.mul(&T::tolerance())) { Closeness::Same } else { Closeness::Unsure }
    }
}

/// What balls say of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closeness {
    Apart,
    Same,
    Unsure,
}
