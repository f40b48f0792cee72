//! Comparing expressions by their real values at fixed points.
//!
//! Every variable stands for a pseudo-random rational number that follows from its name and the point. Two expressions whose values
//! are surely apart at one point differ. Two that agree at every point where both have a value are taken for the same: to nine digits at up to
//! [`NUM_QUICK_POINTS`] points, then to 30 digits at one or more.

use crate::algebra::ball::{Ball, Closeness, Real};
use crate::algebra::expr::{Constant, Expr, Function};
use crate::algebra::simplify::{rational, simplify};
use crate::algebra::{Budget, NoForm};
use astro_float::BigFloat;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive};

/// Points in double precision.
const NUM_QUICK_POINTS: u8 = 8;
/// Points with long numbers.
const NUM_LONG_POINTS: u32 = 3;
/// Points of whole numbers.
const NUM_WHOLE_POINTS: u8 = 16;
/// Points at which functions of variables must have a value to be compared.
const MIN_POINTS: u8 = 3;
/// What the values of long numbers may cost in all, in square roots; one takes about five microseconds.
pub(crate) const MAX_LONG_COST: u32 = 100;

/// A pseudo-random whole number below a bound for a name at a point.
fn chance(point: u8, name: &str, bound: u64) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"real").update(&[point]).update(name.as_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    (u64::from_le_bytes(bytes) % bound) as i64
}

/// The number that stands for a variable: from 0.3 to 2.3, and of either sign at every other point.
fn coordinate(point: u8, name: &str) -> BigRational {
    let size = 300 + chance(point, name, 2_000);
    let is_negative = point % 2 == 1 && size % 2 == 0;
    BigRational::new((if is_negative { -size } else { size }).into(), 1_000.into())
}

/// Value of an expression at a point; none where it has no real value or its error has no bound.
fn value<T: Real>(expr: &Expr, point: u8) -> Option<Ball<T>> {
    match expr {
        Expr::Number(number) => Ball::rational(number),
        Expr::Constant(Constant::Pi) => Ball::pi(),
        Expr::Constant(Constant::E) => one().exp(),
        Expr::Constant(_) => None,
        Expr::Variable(name) => Ball::rational(&coordinate(point, name)),
        Expr::Sum(parts) => fold(parts, point, Ball::add),
        Expr::Product(parts) => fold(parts, point, Ball::multiply),
        Expr::Power(pair) => power(&pair.0, &pair.1, point),
        Expr::Call(function, part) => call(*function, part, point),
        Expr::Log(pair) => value(&pair.1, point)?.ln()?.divide(&value(&pair.0, point)?.ln()?),
        Expr::Degrees(part) => value(part, point)?.multiply(&Ball::pi()?)?.divide(&Ball::rational(&whole(180))?),
        Expr::Percent(part) => value(part, point)?.divide(&Ball::rational(&whole(100))?),
        // Exact or nothing: their values come from simplifying.
        Expr::Binomial(_) | Expr::Big(_) => exact(expr),
        Expr::Apply(..) | Expr::PlusMinus(..) => None,
    }
}

fn whole(value: i64) -> BigRational {
    BigRational::from_integer(value.into())
}

fn one<T: Real>() -> Ball<T> {
    Ball::exact(1)
}

fn exact<T: Real>(expr: &Expr) -> Option<Ball<T>> {
    Ball::rational(&rational(expr, &mut Budget::new(Budget::PER_EXPRESSION / 4))?)
}

fn fold<T: Real>(parts: &[Expr], point: u8, join: impl Fn(&Ball<T>, &Ball<T>) -> Option<Ball<T>>) -> Option<Ball<T>> {
    let (first, rest) = parts.split_first()?;
    rest.iter().try_fold(value(first, point)?, |sum, part| join(&sum, &value(part, point)?))
}

fn power<T: Real>(base: &Expr, exponent: &Expr, point: u8) -> Option<Ball<T>> {
    if let Some(number) = rational(exponent, &mut Budget::new(200)) {
        let above = number.numer().to_i32().filter(|above| above.unsigned_abs() <= 1 << 20);
        let below = number.denom().to_i32();
        if let (Some(above), Some(below)) = (above, below) {
            let base: Ball<T> = value(base, point)?;
            let powered = match below {
                1 => base.power(above.unsigned_abs())?,
                2 => base.sqrt()?.power(above.unsigned_abs())?,
                // Odd roots of negative numbers are real.
                _ if base.is_negative() && below % 2 == 1 => {
                    let root = base.abs()?.ln()?.multiply(&Ball::rational(&number.abs())?)?.exp()?;
                    if above % 2 == 0 { root } else { root.negated()? }
                }
                _ => base.ln()?.multiply(&Ball::rational(&number.abs())?)?.exp()?,
            };
            return if above < 0 { powered.inverted() } else { Some(powered) };
        }
    }
    let exponent: Ball<T> = value(exponent, point)?;
    if *base == Expr::Constant(Constant::E) {
        return exponent.exp();
    }
    value(base, point)?.ln()?.multiply(&exponent)?.exp()
}

fn call<T: Real>(function: Function, argument: &Expr, point: u8) -> Option<Ball<T>> {
    if function == Function::Factorial {
        return exact(&Expr::Call(function, Box::new(argument.clone())));
    }
    let argument: Ball<T> = value(argument, point)?;
    match function {
        Function::Sin => argument.sin(),
        Function::Cos => argument.cos(),
        Function::Tan => argument.sin()?.divide(&argument.cos()?),
        Function::Cot => argument.cos()?.divide(&argument.sin()?),
        Function::Sec => argument.cos()?.inverted(),
        Function::Csc => argument.sin()?.inverted(),
        Function::Arcsin => argument.asin(),
        Function::Arccos => Ball::pi()?.divide(&Ball::rational(&whole(2))?)?.sub(&argument.asin()?),
        Function::Arctan => argument.atan(),
        Function::Sinh | Function::Cosh | Function::Tanh => {
            let (up, down) = (argument.exp()?, argument.negated()?.exp()?);
            let (difference, sum) = (up.sub(&down)?, up.add(&down)?);
            match function {
                Function::Sinh => difference.divide(&Ball::rational(&whole(2))?),
                Function::Cosh => sum.divide(&Ball::rational(&whole(2))?),
                _ => difference.divide(&sum),
            }
        }
        Function::Ln => argument.ln(),
        Function::Abs => argument.abs(),
        Function::Floor => argument.floor(),
        Function::Ceil => argument.negated()?.floor()?.negated(),
        Function::Factorial => None,
    }
}

/// What a value with long numbers costs, in square roots.
fn cost(expr: &Expr) -> u32 {
    let own = match expr {
        Expr::Constant(Constant::E) => 3,
        Expr::Power(pair) => match &pair.1 {
            Expr::Number(number) if number.is_integer() => 0,
            Expr::Number(number) if *number.denom() == 2.into() => 1,
            _ => 12,
        },
        Expr::Log(_) => 14,
        Expr::Call(function, _) => match function {
            Function::Abs | Function::Floor | Function::Ceil | Function::Factorial => 0,
            Function::Sin | Function::Cos | Function::Sec | Function::Csc => 4,
            Function::Tan | Function::Cot | Function::Sinh | Function::Cosh | Function::Tanh => 8,
            Function::Ln => 7,
            Function::Arcsin | Function::Arccos | Function::Arctan => 12,
        },
        Expr::Degrees(_) => 1,
        _ => 0,
    };
    expr.children().into_iter().map(cost).fold(own, u32::saturating_add)
}

/// Whether two expressions have the same values; fails where neither can be told.
/// `long_cost` is what long numbers may still cost.
pub(crate) fn are_equal(left: &Expr, right: &Expr, long_cost: &mut u32) -> Result<bool, NoForm> {
    let is_counting = |expr: &Expr| {
        expr.any(&|part| {
            matches!(
                part,
                Expr::Call(Function::Factorial | Function::Floor | Function::Ceil, _) | Expr::Binomial(_) | Expr::Big(_)
            ) && !part.is_constant()
        })
    };
    if is_counting(left) || is_counting(right) {
        return at_whole_points(left, right);
    }
    let is_constant = left.is_constant() && right.is_constant();
    let num_points = if is_constant { 1 } else { NUM_QUICK_POINTS };
    let mut points = Vec::new();
    for point in 0..num_points {
        let (Some(left), Some(right)) = (value::<f64>(left, point), value::<f64>(right, point)) else { continue };
        match left.compare(&right) {
            Closeness::Apart => return Ok(false),
            Closeness::Same | Closeness::Unsure => points.push(point),
        }
    }
    // Numbers that double precision cannot hold may still have a value in the longer one.
    if is_constant && points.is_empty() {
        points.push(0);
    }
    if !is_constant && points.len() < usize::from(MIN_POINTS) {
        return Err(NoForm::Other);
    }
    let price = (cost(left) + cost(right)).max(1);
    let num_long = (*long_cost / price).min(if is_constant { 1 } else { NUM_LONG_POINTS });
    *long_cost -= num_long * price;
    if num_long == 0 {
        return Err(NoForm::TooMuchWork);
    }
    for point in points.into_iter().take(num_long as usize) {
        let (left, right) = (value::<BigFloat>(left, point), value::<BigFloat>(right, point));
        match left.ok_or(NoForm::Other)?.compare(&right.ok_or(NoForm::Other)?) {
            Closeness::Apart => return Ok(false),
            Closeness::Same => {}
            Closeness::Unsure => return Err(NoForm::Other),
        }
    }
    Ok(true)
}

/// Factorials and binomials of variables have values at whole numbers only, and what is rounded is told apart by large numbers.
fn at_whole_points(left: &Expr, right: &Expr) -> Result<bool, NoForm> {
    // A budget for each side, so that the order of the two decides nothing.
    let mut budgets = [Budget::new(Budget::PER_EXPRESSION); 2];
    let at = |expr: &Expr, point: u8| {
        expr.map(&|part| match part {
            Expr::Variable(name) => Expr::integer(1 + chance(point, &name, 24)),
            other => other,
        })
    };
    let mut num_agreed = 0;
    for point in 0..NUM_WHOLE_POINTS {
        let (left, right) = (at(left, point), at(right, point));
        match (simplify(&left, &mut budgets[0]), simplify(&right, &mut budgets[1])) {
            (Ok(left), Ok(right)) if left == right => num_agreed += 1,
            (Ok(left), Ok(right)) if left.is_number() && right.is_number() => return Ok(false),
            (Err(NoForm::TooMuchWork), _) | (_, Err(NoForm::TooMuchWork)) => return Err(NoForm::TooMuchWork),
            _ => match (value::<f64>(&left, 0), value::<f64>(&right, 0)) {
                (Some(left), Some(right)) if left.compare(&right) == Closeness::Apart => return Ok(false),
                (Some(left), Some(right)) if left.compare(&right) == Closeness::Same => num_agreed += 1,
                _ => {}
            },
        }
    }
    if num_agreed >= MIN_POINTS { Ok(true) } else { Err(NoForm::Other) }
}

/// Whether a real constant surely lies between two numbers.
pub(crate) fn is_between(expr: &Expr, low: &BigRational, high: &BigRational) -> bool {
    if !expr.is_constant() || cost(expr) > MAX_LONG_COST {
        return false;
    }
    let is_inside = |value: &Ball<BigFloat>| {
        let (above, below) = (value.sub(&Ball::rational(low)?)?, Ball::rational(high)?.sub(value)?);
        Some(above.is_positive() && below.is_positive())
    };
    value::<BigFloat>(expr, 0).as_ref().and_then(is_inside).unwrap_or(false)
}
