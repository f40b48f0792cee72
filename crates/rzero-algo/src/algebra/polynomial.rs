//! Sums of monomials with rational coefficients: the canonical form of an expression, where there is one.
//!
//! A monomial is a product of atoms with rational exponents. Atoms are the variables, and numbers that no polynomial relation
//! over Q is known between: pi, e, logarithms of primes, and the primes themselves, whose exponents lie in [0, 1), so that
//! `8^(1/2) = 2 * 2^(1/2)`. Positive radicals of different primes are linearly independent over Q (Besicovitch 1940), so such a sum is zero
//! only where every coefficient is. i has the exponent 0 or 1.

use crate::algebra::rational::{self, cost, size};
use crate::algebra::{Budget, NoForm};
use crate::normalize::MAX_DIGITS;
use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::{BigRational, Ratio};
use num_traits::{One, Signed, ToPrimitive, Zero};
use std::collections::BTreeMap;

/// A factor of a monomial.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Atom {
    /// i.
    Imaginary,
    /// A prime under a root; its exponent lies in [0, 1).
    Prime(u64),
    /// The natural logarithm of a prime.
    LnPrime(u64),
    Pi,
    E,
    Infinity,
    /// A variable.
    Variable(String),
    /// A function that nothing is known of, as it is printed, such as `f(2)`.
    Opaque(String),
}

impl Atom {
    /// Whether it is a number that is algebraic over Q.
    pub(crate) const fn is_algebraic(&self) -> bool {
        matches!(self, Self::Imaginary | Self::Prime(_))
    }

    /// Whether it is a number.
    pub(crate) const fn is_number(&self) -> bool {
        !matches!(self, Self::Variable(_) | Self::Opaque(_))
    }
}

/// Exponent of an atom.
pub(crate) type Exponent = Ratio<i32>;

/// Atoms with their exponents, none of them 0, in the order of the atoms.
pub(crate) type Monomial = Vec<(Atom, Exponent)>;

/// A sum of monomials, none of them with the coefficient 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Polynomial {
    terms: BTreeMap<Monomial, BigRational>,
}

/// Most terms of a sum.
const MAX_TERMS: usize = 300;
/// Largest exponent of an atom.
const MAX_EXPONENT: i32 = 1_000;
/// Largest coefficient, in bits of numerator and denominator.
const MAX_COEFFICIENT_BITS: u64 = 16_384;
/// Primes up to this are found as factors.
const MAX_TRIAL_FACTOR: u64 = 1_024;

impl Polynomial {
    pub(crate) fn constant(value: BigRational) -> Self {
        Self::term(Vec::new(), value)
    }

    pub(crate) fn atom(atom: Atom) -> Self {
        Self::term(vec![(atom, Exponent::one())], BigRational::one())
    }

    pub(crate) fn term(monomial: Monomial, coefficient: BigRational) -> Self {
        let mut terms = BTreeMap::new();
        if !coefficient.is_zero() {
            terms.insert(monomial, coefficient);
        }
        Self { terms }
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.terms.is_empty()
    }

    pub(crate) fn terms(&self) -> impl Iterator<Item = (&Monomial, &BigRational)> {
        self.terms.iter()
    }

    pub(crate) fn num_terms(&self) -> usize {
        self.terms.len()
    }

    /// The number it is, if it is a rational one.
    pub(crate) fn as_rational(&self) -> Option<BigRational> {
        match self.single_term() {
            _ if self.is_zero() => Some(BigRational::zero()),
            Some((monomial, coefficient)) if monomial.is_empty() => Some(coefficient.clone()),
            _ => None,
        }
    }

    /// Its term, if it has one only.
    pub(crate) fn single_term(&self) -> Option<(&Monomial, &BigRational)> {
        if self.terms.len() == 1 { self.terms.iter().next() } else { None }
    }

    /// Whether it holds no variable.
    pub(crate) fn is_number(&self) -> bool {
        self.atoms().all(Atom::is_number)
    }

    pub(crate) fn atoms(&self) -> impl Iterator<Item = &Atom> {
        self.terms.keys().flatten().map(|(atom, _)| atom)
    }

    fn add_term(&mut self, monomial: Monomial, coefficient: BigRational) {
        use std::collections::btree_map::Entry;
        match self.terms.entry(monomial) {
            Entry::Vacant(entry) => {
                if !coefficient.is_zero() {
                    entry.insert(coefficient);
                }
            }
            Entry::Occupied(mut entry) => {
                *entry.get_mut() = rational::add(entry.get(), &coefficient);
                if entry.get().is_zero() {
                    entry.remove();
                }
            }
        }
    }

    pub(crate) fn add(mut self, other: Self, budget: &mut Budget) -> Result<Self, NoForm> {
        budget.spend(1 + other.terms.len() as u64)?;
        for (monomial, coefficient) in other.terms {
            let largest = self.terms.get(&monomial).unwrap_or(&coefficient);
            budget.spend(cost(largest, &coefficient) / 2)?;
            self.add_term(monomial, coefficient);
        }
        self.bounded()
    }

    pub(crate) fn negated(mut self) -> Self {
        for coefficient in self.terms.values_mut() {
            *coefficient = -std::mem::take(coefficient);
        }
        self
    }

    pub(crate) fn multiply(&self, other: &Self, budget: &mut Budget) -> Result<Self, NoForm> {
        let mut product = Self::default();
        budget.spend(2 + 6 * self.terms.len() as u64 * other.terms.len() as u64)?;
        for (left, left_coefficient) in &self.terms {
            for (right, right_coefficient) in &other.terms {
                budget.spend(cost(left_coefficient, right_coefficient))?;
                let mut coefficient = rational::multiply(left_coefficient, right_coefficient);
                let monomial = merge(left, right, &mut coefficient)?;
                product.add_term(monomial, coefficient);
            }
            if product.terms.len() > MAX_TERMS {
                return Err(NoForm::TooMuchWork);
            }
        }
        product.bounded()
    }

    fn bounded(self) -> Result<Self, NoForm> {
        if self.terms.len() > MAX_TERMS || self.terms.values().any(|coefficient| size(coefficient) > MAX_COEFFICIENT_BITS) {
            return Err(NoForm::TooMuchWork);
        }
        Ok(self)
    }

    /// Whether no coefficient has more digits than can be read again.
    pub(crate) fn is_readable(&self) -> bool {
        self.terms.values().all(|number| [number.numer(), number.denom()].into_iter().all(has_readable_digits))
    }

    /// A whole power of it.
    pub(crate) fn power(&self, exponent: i64, budget: &mut Budget) -> Result<Self, NoForm> {
        if exponent < 0 {
            return self.inverted(budget)?.power(exponent.checked_neg().ok_or(NoForm::TooMuchWork)?, budget);
        }
        if let Some((monomial, coefficient)) = self.single_term() {
            let is_large =
                size(coefficient).max(2) - 2 > MAX_COEFFICIENT_BITS / u64::try_from(exponent.max(1)).unwrap_or(u64::MAX);
            if is_large || (!monomial.is_empty() && exponent > i64::from(MAX_EXPONENT)) {
                return Err(NoForm::TooMuchWork);
            }
        } else if exponent > i64::from(MAX_EXPONENT) {
            return Err(NoForm::TooMuchWork);
        }
        let (mut left, mut square, mut power) = (exponent, self.clone(), Self::constant(BigRational::one()));
        while left > 0 {
            if left % 2 == 1 {
                power = power.multiply(&square, budget)?;
            }
            left /= 2;
            if left > 0 {
                square = square.multiply(&square, budget)?;
            }
        }
        Ok(power)
    }

    /// One divided by it: of a single term, or of a number that is made of square roots and i.
    pub(crate) fn inverted(&self, budget: &mut Budget) -> Result<Self, NoForm> {
        if self.is_zero() {
            return Err(NoForm::Undefined);
        }
        if let Some((monomial, coefficient)) = self.single_term() {
            let mut inverse = coefficient.recip();
            let mut inverted = Monomial::new();
            for (atom, exponent) in monomial {
                inverted = merge(&inverted, &vec![(atom.clone(), -*exponent)], &mut inverse)?;
            }
            return Ok(Self::term(inverted, inverse));
        }
        // The conjugates by each root in turn: their product with the number itself is rational.
        let (mut above, mut below) = (Self::constant(BigRational::one()), self.clone());
        loop {
            let Some(root) = below.atoms().next().cloned() else { break };
            if !root.is_algebraic() {
                return Err(NoForm::Other);
            }
            let conjugate = below.conjugate(&root)?;
            below = below.multiply(&conjugate, budget)?;
            above = above.multiply(&conjugate, budget)?;
            if below.atoms().any(|atom| *atom == root) {
                return Err(NoForm::Other);
            }
        }
        let below = below.as_rational().filter(|below| !below.is_zero()).ok_or(NoForm::Other)?;
        above.multiply(&Self::constant(below.recip()), budget)
    }

    /// The same with the sign of one root the other way round; fails where it is no square root.
    fn conjugate(&self, root: &Atom) -> Result<Self, NoForm> {
        let mut conjugate = self.clone();
        for (monomial, coefficient) in &mut conjugate.terms {
            if let Some((_, exponent)) = monomial.iter().find(|(atom, _)| atom == root) {
                let is_square_root = matches!(root, Atom::Imaginary) || *exponent == Exponent::new(1, 2);
                if !is_square_root {
                    return Err(NoForm::Other);
                }
                *coefficient = -std::mem::take(coefficient);
            }
        }
        Ok(conjugate)
    }

    /// The same divided by the coefficient of its first term: one form for all multiples that are not zero.
    pub(crate) fn primitive(mut self) -> Self {
        if let Some(first) = self.terms.values().next().cloned() {
            for coefficient in self.terms.values_mut() {
                *coefficient /= &first;
            }
        }
        self
    }

    /// The coefficient of its first term.
    pub(crate) fn first_coefficient(&self) -> Option<&BigRational> {
        self.terms.values().next()
    }

    /// `constant + slope * variable`, if the two hold nothing but rational numbers.
    pub(crate) fn as_linear(&self) -> Option<(Atom, BigRational, BigRational)> {
        let mut constant = BigRational::zero();
        let mut slope = None;
        for (monomial, coefficient) in &self.terms {
            match monomial.as_slice() {
                [] => constant = coefficient.clone(),
                [(atom @ (Atom::Variable(_) | Atom::Opaque(_)), exponent)] if exponent.is_one() && slope.is_none() => {
                    slope = Some((atom.clone(), coefficient.clone()));
                }
                _ => return None,
            }
        }
        slope.map(|(atom, slope)| (atom, slope, constant))
    }

    /// The integral over a variable from one value to another.
    pub(crate) fn integrated(&self, variable: &str, low: &Self, high: &Self, budget: &mut Budget) -> Result<Self, NoForm> {
        let mut sum = Self::default();
        for (monomial, coefficient) in &self.terms {
            let is_it = |atom: &Atom| matches!(atom, Atom::Variable(name) if name == variable);
            let exponent = monomial.iter().find(|(atom, _)| is_it(atom)).map_or_else(Exponent::zero, |(_, exponent)| *exponent);
            let rest: Monomial = monomial.iter().filter(|(atom, _)| !is_it(atom)).cloned().collect();
            if !exponent.is_integer() || exponent.is_negative() {
                return Err(NoForm::Other);
            }
            let next = i64::from(*exponent.numer()) + 1;
            let difference = high.power(next, budget)?.add(low.power(next, budget)?.negated(), budget)?;
            let factor = Self::term(rest, coefficient / BigRational::from_integer(next.into()));
            sum = sum.add(difference.multiply(&factor, budget)?, budget)?;
        }
        Ok(sum)
    }
}

/// Product of two monomials; whole powers of primes and of i go to the coefficient.
fn merge(left: &Monomial, right: &Monomial, coefficient: &mut BigRational) -> Result<Monomial, NoForm> {
    let mut product = Monomial::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.as_slice(), right.as_slice());
    loop {
        let (atom, exponent) = match (left, right) {
            ([a, left_rest @ ..], [b, right_rest @ ..]) if a.0 == b.0 => {
                (left, right) = (left_rest, right_rest);
                (&a.0, a.1 + b.1)
            }
            ([a, rest @ ..], [b, ..]) if a.0 < b.0 => {
                left = rest;
                (&a.0, a.1)
            }
            (_, [b, rest @ ..]) => {
                right = rest;
                (&b.0, b.1)
            }
            ([a, rest @ ..], []) => {
                left = rest;
                (&a.0, a.1)
            }
            ([], []) => return Ok(product),
        };
        if exponent.numer().abs() > MAX_EXPONENT * exponent.denom() || *exponent.denom() > MAX_EXPONENT {
            return Err(NoForm::TooMuchWork);
        }
        let exponent = match atom {
            Atom::Imaginary => {
                let turns = exponent.numer().rem_euclid(4);
                if turns >= 2 {
                    *coefficient = -std::mem::take(coefficient);
                }
                Exponent::from_integer(turns % 2)
            }
            Atom::Prime(prime) => {
                let whole = exponent.floor();
                let power = BigRational::from_integer(BigInt::from(*prime)).pow(*whole.numer());
                *coefficient = rational::multiply(coefficient, &power);
                exponent - whole
            }
            Atom::Infinity => {
                *coefficient = coefficient.signum();
                Exponent::one()
            }
            _ => exponent,
        };
        if !exponent.is_zero() {
            product.push((atom.clone(), exponent));
        }
    }
}

/// Whether a number has at most [`MAX_DIGITS`] digits. Most are told by their bits, of which a digit takes more than three and less than four.
fn has_readable_digits(number: &BigInt) -> bool {
    number.bits() <= 3 * MAX_DIGITS as u64 || number.magnitude().to_string().len() <= MAX_DIGITS
}

/// A positive integer as primes with exponents; nothing where a factor is too large to be known for a prime.
pub(crate) fn factored(number: &BigInt, budget: &mut Budget) -> Result<Vec<(u64, u32)>, NoForm> {
    let mut rest = number.clone();
    let mut factors = Vec::new();
    if rest.bits() > 2_048 {
        return Err(NoForm::TooMuchWork);
    }
    let mut candidate = 2_u64;
    while candidate <= MAX_TRIAL_FACTOR && !rest.is_one() {
        if let Some(small) = rest.to_u64() {
            return factored_small(small, candidate, factors, budget);
        }
        budget.spend(2)?;
        let mut exponent = 0;
        loop {
            let (quotient, remainder) = rest.div_rem(&BigInt::from(candidate));
            if !remainder.is_zero() {
                break;
            }
            budget.spend(2)?;
            rest = quotient;
            exponent += 1;
        }
        if exponent > 0 {
            factors.push((candidate, exponent));
        }
        candidate += if candidate == 2 { 1 } else { 2 };
    }
    match rest.to_u64() {
        Some(small) => factored_small(small, candidate, factors, budget),
        None => Err(NoForm::Other),
    }
}

fn factored_small(
    mut rest: u64,
    mut candidate: u64,
    mut factors: Vec<(u64, u32)>,
    budget: &mut Budget,
) -> Result<Vec<(u64, u32)>, NoForm> {
    while rest > 1 && candidate.saturating_mul(candidate) <= rest && candidate <= MAX_TRIAL_FACTOR {
        let mut exponent = 0;
        while rest.is_multiple_of(candidate) {
            rest /= candidate;
            exponent += 1;
        }
        if exponent > 0 {
            factors.push((candidate, exponent));
        }
        candidate += if candidate == 2 { 1 } else { 2 };
    }
    budget.spend(candidate / 32)?;
    if rest > 1 {
        // What is left is a prime, the square of one, or too large to be known.
        let root = rest.isqrt();
        match () {
            () if rest <= MAX_TRIAL_FACTOR * MAX_TRIAL_FACTOR => factors.push((rest, 1)),
            () if root * root == rest && root <= MAX_TRIAL_FACTOR * MAX_TRIAL_FACTOR => factors.push((root, 2)),
            () => return Err(NoForm::Other),
        }
    }
    Ok(factors)
}
