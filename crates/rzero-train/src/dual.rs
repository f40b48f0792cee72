//! A number with its derivative: what lets `loss.rs` be written as a formula and nothing else.
//!
//! The loss of a token depends on the policy through one number only, its log-probability. So one forward-mode dual number gives
//! the exact derivative of any formula written with the operations below, at no cost worth naming.

use std::ops::{Add, Mul, Neg, Sub};

/// A value and its derivative with respect to the token's new log-probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dual {
    /// The value.
    pub value: f64,
    /// d value / d logp_new.
    pub slope: f64,
}

impl Dual {
    /// A number that does not depend on the policy.
    #[must_use]
    pub fn constant(value: f64) -> Self {
        Self { value, slope: 0.0 }
    }

    /// The variable itself.
    #[must_use]
    pub fn variable(value: f64) -> Self {
        Self { value, slope: 1.0 }
    }

    /// e^self.
    #[must_use]
    pub fn exp(self) -> Self {
        let value = self.value.exp();
        Self { value, slope: value * self.slope }
    }

    /// The greater of two; the first where they are equal.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        if other.value > self.value { other } else { self }
    }

    /// The lesser of two; the first where they are equal.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        if other.value < self.value { other } else { self }
    }

    /// Held within bounds; no derivative beyond them.
    #[must_use]
    pub fn clamp(self, low: f64, high: f64) -> Self {
        if self.value < low {
            Self::constant(low)
        } else if self.value > high {
            Self::constant(high)
        } else {
            self
        }
    }
}

impl Add for Dual {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { value: self.value + other.value, slope: self.slope + other.slope }
    }
}

impl Sub for Dual {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Dual {
    type Output = Self;
    fn neg(self) -> Self {
        Self { value: -self.value, slope: -self.slope }
    }
}

impl Mul for Dual {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Self { value: self.value * other.value, slope: self.value * other.slope + self.slope * other.value }
    }
}

impl Add<f64> for Dual {
    type Output = Self;
    fn add(self, other: f64) -> Self {
        Self { value: self.value + other, ..self }
    }
}

impl Sub<f64> for Dual {
    type Output = Self;
    fn sub(self, other: f64) -> Self {
        self + -other
    }
}

impl Mul<f64> for Dual {
    type Output = Self;
    fn mul(self, other: f64) -> Self {
        Self { value: self.value * other, slope: self.slope * other }
    }
}
