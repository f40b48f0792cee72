//! From an expression to its canonical polynomial, where it has one.
//!
//! Exact throughout: roots of rational numbers, trigonometric functions of multiples of 30 and 45 degrees, logarithms of rational
//! numbers, factorials and binomials of whole numbers, sums and products over whole ranges, integrals of polynomials.

use crate::algebra::expr::{Big, BigOperator, Constant, Expr, Function};
use crate::algebra::polynomial::{Atom, Exponent, Monomial, Polynomial, factored};
use crate::algebra::print::print_expr;
use crate::algebra::{Budget, NoForm};
use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

/// Largest argument of a factorial.
const MAX_FACTORIAL: i64 = 1_500;
/// Most terms of a sum or factors of a product.
const MAX_RANGE: i64 = 1_000;

/// The canonical polynomial of an expression.
pub(crate) fn simplify(expr: &Expr, budget: &mut Budget) -> Result<Polynomial, NoForm> {
    budget.spend(1)?;
    match expr {
        Expr::Number(number) => Ok(Polynomial::constant(number.clone())),
        Expr::Constant(constant) => Ok(Polynomial::atom(match constant {
            Constant::Pi => Atom::Pi,
            Constant::E => Atom::E,
            Constant::I => Atom::Imaginary,
            Constant::Infinity => Atom::Infinity,
        })),
        Expr::Variable(name) => Ok(Polynomial::atom(Atom::Variable(name.clone()))),
        Expr::Sum(parts) => {
            let mut sum = Polynomial::default();
            for part in parts {
                sum = sum.add(simplify(part, budget)?, budget)?;
            }
            Ok(sum)
        }
        Expr::Product(parts) => {
            let mut product = Polynomial::constant(BigRational::one());
            for part in parts {
                product = product.multiply(&simplify(part, budget)?, budget)?;
            }
            Ok(product)
        }
        Expr::Power(pair) => power(&pair.0, &pair.1, budget),
        Expr::Call(function, part) => call(*function, part, budget),
        Expr::Log(pair) => {
            let (base, argument) = (logarithm(&pair.0, budget)?, logarithm(&pair.1, budget)?);
            quotient_of_multiples(&argument, &base)
        }
        Expr::Binomial(pair) => {
            let (n, k) = (whole(&simplify(&pair.0, budget)?)?, whole(&simplify(&pair.1, budget)?)?);
            binomial(n, k, budget).map(Polynomial::constant)
        }
        Expr::Apply(..) => Ok(Polynomial::atom(Atom::Opaque(print_expr(expr)))),
        Expr::Big(big) => big_operator(expr, big, budget),
        Expr::PlusMinus(..) => Err(NoForm::Other),
        Expr::Degrees(part) => {
            let factor = Polynomial::term(vec![(Atom::Pi, Exponent::one())], BigRational::new(1.into(), 180.into()));
            simplify(part, budget)?.multiply(&factor, budget)
        }
        Expr::Percent(part) => {
            simplify(part, budget)?.multiply(&Polynomial::constant(BigRational::new(1.into(), 100.into())), budget)
        }
    }
}

/// The rational number that an expression is.
pub(crate) fn rational(expr: &Expr, budget: &mut Budget) -> Option<BigRational> {
    if let Expr::Number(number) = expr {
        return Some(number.clone());
    }
    simplify(expr, budget).ok()?.as_rational()
}

fn whole(value: &Polynomial) -> Result<i64, NoForm> {
    let number = value.as_rational().filter(BigRational::is_integer).ok_or(NoForm::Other)?;
    number.to_integer().to_i64().ok_or(NoForm::TooMuchWork)
}

fn power(base: &Expr, exponent: &Expr, budget: &mut Budget) -> Result<Polynomial, NoForm> {
    let exponent = simplify(exponent, budget)?;
    let Some(number) = exponent.as_rational() else {
        if matches!(base, Expr::Constant(Constant::E)) {
            return euler(&exponent, budget);
        }
        // 2^(1 + x) and the like are left to those who compare functions.
        return Err(NoForm::Other);
    };
    let base = simplify(base, budget)?;
    if base.is_zero() && !number.is_positive() {
        // 0^0 as well: what it is depends on whom one asks.
        return Err(NoForm::Undefined);
    }
    if number.is_integer() {
        let exponent = number.to_integer().to_i64().ok_or(NoForm::TooMuchWork)?;
        return base.power(exponent, budget);
    }
    let (above, below) = (number.numer().to_i32(), number.denom().to_i32());
    match (above, below) {
        (Some(above), Some(below)) if above.abs() <= 1_000 && below <= 1_000 => root(&base, Exponent::new(above, below), budget),
        _ => Err(NoForm::TooMuchWork),
    }
}

/// A broken power of a single term.
fn root(base: &Polynomial, exponent: Exponent, budget: &mut Budget) -> Result<Polynomial, NoForm> {
    if base.is_zero() {
        return Ok(Polynomial::default());
    }
    let (monomial, coefficient) = base.single_term().ok_or(NoForm::Other)?;
    let mut result = root_of_rational(&coefficient.abs(), exponent, budget)?;
    if coefficient.is_negative() {
        // Of a negative number the real root where there is one, and i times the root for a square root.
        if exponent.denom().is_odd() {
            if exponent.numer().is_odd() {
                result = result.negated();
            }
        } else if *exponent.denom() == 2 && monomial.iter().all(|(atom, _)| atom.is_number()) {
            let turns = i64::from(*exponent.numer());
            result = result.multiply(&Polynomial::atom(Atom::Imaginary).power(turns, budget)?, budget)?;
        } else {
            return Err(NoForm::Other);
        }
    }
    for (atom, inner) in monomial {
        let is_allowed = match atom {
            // Positive numbers, and a variable itself: the root of its square is its absolute value.
            Atom::Pi | Atom::E | Atom::Prime(_) => true,
            Atom::Variable(_) | Atom::Opaque(_) => inner.is_one(),
            Atom::LnPrime(_) | Atom::Imaginary | Atom::Infinity => false,
        };
        let (numer, denom) = (inner.numer().checked_mul(*exponent.numer()), inner.denom().checked_mul(*exponent.denom()));
        let (Some(numer), Some(denom), true) = (numer, denom, is_allowed) else { return Err(NoForm::Other) };
        let outer = Exponent::new(numer, denom);
        if outer.numer().abs() > 1_000_000 || *outer.denom() > 1_000 {
            return Err(NoForm::TooMuchWork);
        }
        let whole = *outer.floor().numer();
        let part: Monomial = vec![(atom.clone(), outer - outer.floor())];
        let part = if part[0].1.is_zero() {
            Polynomial::constant(BigRational::one())
        } else {
            Polynomial::term(part, BigRational::one())
        };
        result = result.multiply(&part, budget)?;
        if whole != 0 {
            result = result.multiply(&Polynomial::atom(atom.clone()).power(i64::from(whole), budget)?, budget)?;
        }
    }
    Ok(result)
}

fn root_of_rational(number: &BigRational, exponent: Exponent, budget: &mut Budget) -> Result<Polynomial, NoForm> {
    let mut result = Polynomial::constant(BigRational::one());
    for (part, sign) in [(number.numer(), 1), (number.denom(), -1)] {
        if part.is_one() {
            continue;
        }
        for (prime, times) in factored(part, budget)? {
            let times = i32::try_from(times).map_err(|_| NoForm::TooMuchWork)?;
            let outer = exponent * Exponent::from_integer(sign * times);
            let whole = outer.floor();
            let factor = BigRational::from_integer(BigInt::from(prime)).pow(*whole.numer());
            let broken = outer - whole;
            let monomial = if broken.is_zero() { Monomial::new() } else { vec![(Atom::Prime(prime), broken)] };
            result = result.multiply(&Polynomial::term(monomial, factor), budget)?;
        }
    }
    Ok(result)
}

/// e to a power that is no rational number: i times a multiple of pi, or a logarithm.
fn euler(exponent: &Polynomial, budget: &mut Budget) -> Result<Polynomial, NoForm> {
    let (monomial, coefficient) = exponent.single_term().ok_or(NoForm::Other)?;
    match monomial.as_slice() {
        [(Atom::Imaginary, _), (Atom::Pi, exponent)] if exponent.is_one() => {
            let (sine, cosine) = (sine_of_turns(coefficient)?, sine_of_turns(&(coefficient + half()))?);
            cosine.add(sine.multiply(&Polynomial::atom(Atom::Imaginary), budget)?, budget)
        }
        [(Atom::LnPrime(prime), exponent)] if exponent.is_one() => {
            let (Some(above), Some(below)) = (coefficient.numer().to_i32(), coefficient.denom().to_i32()) else {
                return Err(NoForm::TooMuchWork);
            };
            if above.abs() > 1_000 || below > 1_000 {
                return Err(NoForm::TooMuchWork);
            }
            root_of_rational(&BigRational::from_integer(BigInt::from(*prime)), Exponent::new(above, below), budget)
        }
        _ => Err(NoForm::Other),
    }
}

fn half() -> BigRational {
    BigRational::new(1.into(), 2.into())
}

fn call(function: Function, argument: &Expr, budget: &mut Budget) -> Result<Polynomial, NoForm> {
    match function {
        Function::Ln => logarithm(argument, budget),
        Function::Abs => {
            let value = simplify(argument, budget)?;
            value.as_rational().map(|value| Polynomial::constant(value.abs())).ok_or(NoForm::Other)
        }
        Function::Floor | Function::Ceil => {
            let value = simplify(argument, budget)?.as_rational().ok_or(NoForm::Other)?;
            Ok(Polynomial::constant(if function == Function::Floor { value.floor() } else { value.ceil() }))
        }
        Function::Factorial => factorial(whole(&simplify(argument, budget)?)?, budget).map(Polynomial::constant),
        Function::Sin | Function::Cos | Function::Tan | Function::Cot | Function::Sec | Function::Csc => {
            let turns = turns_of_pi(&simplify(argument, budget)?)?;
            let (sine, cosine) = (sine_of_turns(&turns)?, sine_of_turns(&(turns + half()))?);
            match function {
                Function::Sin => Ok(sine),
                Function::Cos => Ok(cosine),
                Function::Tan => sine.multiply(&cosine.inverted(budget)?, budget),
                Function::Cot => cosine.multiply(&sine.inverted(budget)?, budget),
                Function::Sec => cosine.inverted(budget),
                _ => sine.inverted(budget),
            }
        }
        Function::Arcsin | Function::Arccos | Function::Arctan => inverse_angle(function, &simplify(argument, budget)?, budget),
        Function::Sinh | Function::Cosh | Function::Tanh => {
            let is_zero = simplify(argument, budget)?.is_zero();
            let at_zero = if function == Function::Cosh { BigRational::one() } else { BigRational::zero() };
            if is_zero { Ok(Polynomial::constant(at_zero)) } else { Err(NoForm::Other) }
        }
    }
}

/// The rational q for which the value is q pi.
fn turns_of_pi(value: &Polynomial) -> Result<BigRational, NoForm> {
    if value.is_zero() {
        return Ok(BigRational::zero());
    }
    match value.single_term() {
        Some((monomial, coefficient)) if matches!(monomial.as_slice(), [(Atom::Pi, exponent)] if exponent.is_one()) => {
            Ok(coefficient.clone())
        }
        _ => Err(NoForm::Other),
    }
}

/// sin(q pi) for multiples of pi/6 and pi/4.
fn sine_of_turns(turns: &BigRational) -> Result<Polynomial, NoForm> {
    let twelfths = turns * BigRational::from_integer(12.into());
    if !twelfths.is_integer() {
        return Err(NoForm::Other);
    }
    let twelfth = twelfths.to_integer().mod_floor(&BigInt::from(24)).to_i64().unwrap_or(0);
    let (within, is_negative) = if twelfth >= 12 { (twelfth - 12, true) } else { (twelfth, false) };
    let root_half = |prime| Polynomial::term(vec![(Atom::Prime(prime), Exponent::new(1, 2))], half());
    let value = match within.min(12 - within) {
        0 => Polynomial::default(),
        2 => Polynomial::constant(half()),
        3 => root_half(2),
        4 => root_half(3),
        6 => Polynomial::constant(BigRational::one()),
        _ => return Err(NoForm::Other),
    };
    Ok(if is_negative { value.negated() } else { value })
}

/// The angle whose function is one of those that [`sine_of_turns`] knows.
fn inverse_angle(function: Function, value: &Polynomial, budget: &mut Budget) -> Result<Polynomial, NoForm> {
    let candidates = if function == Function::Arccos { 0..=12 } else { -6..=6 };
    for twelfth in candidates {
        let turns = BigRational::new(twelfth.into(), 12.into());
        let Ok(sine) = sine_of_turns(&turns) else { continue };
        let Ok(cosine) = sine_of_turns(&(&turns + half())) else { continue };
        let found = match function {
            Function::Arcsin => sine,
            Function::Arccos => cosine,
            _ if cosine.is_zero() => continue,
            _ => sine.multiply(&cosine.inverted(budget)?, budget)?,
        };
        if found == *value {
            return Ok(Polynomial::term(vec![(Atom::Pi, Exponent::one())], turns));
        }
    }
    Err(NoForm::Other)
}

/// ln of a rational number, of a power of e, or of a root.
fn logarithm(argument: &Expr, budget: &mut Budget) -> Result<Polynomial, NoForm> {
    let value = simplify(argument, budget)?;
    if value.is_zero() {
        return Err(NoForm::Undefined);
    }
    let (monomial, coefficient) = value.single_term().ok_or(NoForm::Other)?;
    if !coefficient.is_positive() {
        return Err(NoForm::Other);
    }
    let mut sum = Polynomial::default();
    for (part, sign) in [(coefficient.numer(), 1_i64), (coefficient.denom(), -1)] {
        for (prime, times) in factored(part, budget)? {
            let times = BigRational::from_integer(BigInt::from(sign * i64::from(times)));
            sum = sum.add(Polynomial::term(vec![(Atom::LnPrime(prime), Exponent::one())], times), budget)?;
        }
    }
    for (atom, exponent) in monomial {
        let times = BigRational::new(BigInt::from(*exponent.numer()), BigInt::from(*exponent.denom()));
        let part = match atom {
            Atom::E => Polynomial::constant(times),
            Atom::Prime(prime) => Polynomial::term(vec![(Atom::LnPrime(*prime), Exponent::one())], times),
            _ => return Err(NoForm::Other),
        };
        sum = sum.add(part, budget)?;
    }
    Ok(sum)
}

/// The rational number that one sum is of another.
fn quotient_of_multiples(above: &Polynomial, below: &Polynomial) -> Result<Polynomial, NoForm> {
    let Some(below_first) = below.first_coefficient() else { return Err(NoForm::Undefined) };
    let Some(above_first) = above.first_coefficient() else { return Ok(Polynomial::default()) };
    let ratio = above_first / below_first;
    let are_multiples = above.num_terms() == below.num_terms()
        && above.terms().zip(below.terms()).all(|((left, a), (right, b))| left == right && *a == b * &ratio);
    if are_multiples { Ok(Polynomial::constant(ratio)) } else { Err(NoForm::Other) }
}

fn factorial(n: i64, budget: &mut Budget) -> Result<BigRational, NoForm> {
    if n < 0 {
        return Err(NoForm::Undefined);
    }
    if n > MAX_FACTORIAL {
        return Err(NoForm::TooMuchWork);
    }
    budget.spend(n.unsigned_abs())?;
    Ok(BigRational::from_integer((2..=n).fold(BigInt::one(), |product, factor| product * factor)))
}

fn binomial(n: i64, k: i64, budget: &mut Budget) -> Result<BigRational, NoForm> {
    if n < 0 {
        return Err(NoForm::Other);
    }
    if k < 0 || k > n {
        return Ok(BigRational::zero());
    }
    let k = k.min(n - k);
    if k > MAX_FACTORIAL {
        return Err(NoForm::TooMuchWork);
    }
    budget.spend(2 * k.unsigned_abs())?;
    let value = (1..=k).fold(BigInt::one(), |value, index| value * (n - k + index) / index);
    Ok(BigRational::from_integer(value))
}

fn big_operator(expr: &Expr, big: &Big, budget: &mut Budget) -> Result<Polynomial, NoForm> {
    let (low, high) = (simplify(&big.low, budget)?, simplify(&big.high, budget)?);
    if big.operator == BigOperator::Integral {
        return simplify(&big.body, budget)?.integrated(&big.variable, &low, &high, budget);
    }
    let (Ok(low), Ok(high)) = (whole(&low), whole(&high)) else {
        // A range with a variable end: the operator as it stands.
        let is_finite = ![&big.low, &big.high].iter().any(|end| end.any(&|part| *part == Expr::Constant(Constant::Infinity)));
        return if is_finite { Ok(Polynomial::atom(Atom::Opaque(print_expr(expr)))) } else { Err(NoForm::Other) };
    };
    if high.saturating_sub(low) > MAX_RANGE {
        return Err(NoForm::TooMuchWork);
    }
    let is_sum = big.operator == BigOperator::Sum;
    let mut value = Polynomial::constant(if is_sum { BigRational::zero() } else { BigRational::one() });
    for index in low..=high {
        let term = simplify(&big.body.substituted(&big.variable, &Expr::integer(index)), budget)?;
        value = if is_sum { value.add(term, budget)? } else { value.multiply(&term, budget)? };
    }
    Ok(value)
}
