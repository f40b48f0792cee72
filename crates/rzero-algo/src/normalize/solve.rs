//! Inequalities in one variable become the interval of its values.

use crate::algebra::expr::{Constant, Expr, Function};
use crate::algebra::polynomial::Atom;
use crate::normalize::form::{Body, Form, Interval, Name, Order, Relation, Value};
use num_rational::BigRational;
use num_traits::{Signed, Zero};

/// One end of an interval.
struct End {
    value: Value,
    is_open: bool,
}

/// A half-line of values of one variable.
struct HalfLine {
    variable: String,
    end: End,
    is_below: bool,
}

/// The interval that a relation describes, with the variable as its name; nothing where it describes none.
pub(crate) fn solved(relation: &Relation) -> Option<Form> {
    if relation.sides.len() > 3 {
        return None;
    }
    if let Some(absolute) = of_absolute_value(relation) {
        return Some(absolute);
    }
    let (mut low, mut high, mut variable) = (None, None, None);
    for (index, order) in relation.orders.iter().enumerate() {
        let is_open = match order {
            Order::Less => true,
            Order::LessOrEqual => false,
            Order::Equal | Order::NotEqual => return None,
        };
        let half_line = half_line(&relation.sides[index], &relation.sides[index + 1], is_open)?;
        if *variable.get_or_insert_with(|| half_line.variable.clone()) != half_line.variable {
            return None;
        }
        let place = if half_line.is_below { &mut high } else { &mut low };
        if place.replace(half_line.end).is_some() {
            return None;
        }
    }
    let infinity = Expr::Constant(Constant::Infinity);
    let low = low.unwrap_or_else(|| End { value: Value::new(infinity.clone().negated()), is_open: true });
    let high = high.unwrap_or_else(|| End { value: Value::new(infinity), is_open: true });
    let interval = Interval { low: low.value, high: high.value, is_low_open: low.is_open, is_high_open: high.is_open };
    let name = Name { text: variable?, parameter: None, is_member: true };
    Some(Form { name: Some(name), ..Form::of(Body::Interval(Box::new(interval))) })
}

/// The values of the one variable for which `left < right`.
fn half_line(left: &Value, right: &Value, is_open: bool) -> Option<HalfLine> {
    let name = |value: &Value| match &value.expr {
        Expr::Variable(name) => Some(name.clone()),
        Expr::Apply(name, _) => Some(name.clone()),
        _ => None,
    };
    match (name(left), name(right)) {
        (Some(variable), _) if right.expr.is_constant() => {
            return Some(HalfLine { variable, end: End { value: right.clone(), is_open }, is_below: true });
        }
        (_, Some(variable)) if left.expr.is_constant() => {
            return Some(HalfLine { variable, end: End { value: left.clone(), is_open }, is_below: false });
        }
        _ => {}
    }
    // constant + slope * x < 0
    let difference = left
        .polynomial
        .clone()
        .ok()?
        .add(right.polynomial.clone().ok()?.negated(), &mut crate::algebra::Budget::new(500))
        .ok()?;
    let (atom, slope, constant) = difference.as_linear()?;
    let (Atom::Variable(variable) | Atom::Opaque(variable)) = atom else { return None };
    let end = Value::number(-constant / &slope);
    Some(HalfLine { variable, end: End { value: end, is_open }, is_below: slope.is_positive() })
}

/// `a <= |x| <= b` is two intervals, `|x| < b` one.
fn of_absolute_value(relation: &Relation) -> Option<Form> {
    let inside = |value: &Value| match &value.expr {
        Expr::Call(Function::Abs, inside) => match &**inside {
            Expr::Variable(name) => Some(name.clone()),
            _ => None,
        },
        _ => None,
    };
    let at = relation.sides.iter().position(|side| inside(side).is_some())?;
    let variable = inside(&relation.sides[at])?;
    let bound =
        |index: usize| -> Option<BigRational> { relation.sides.get(index)?.rational().filter(|bound| !bound.is_negative()) };
    let is_open = |index: usize| match relation.orders.get(index) {
        Some(Order::Less) => Some(true),
        Some(Order::LessOrEqual) => Some(false),
        _ => None,
    };
    let interval = |low: Value, is_low_open: bool, high: Value, is_high_open: bool| {
        Form::of(Body::Interval(Box::new(Interval { low, high, is_low_open, is_high_open })))
    };
    let number = |number: BigRational| Value::number(number);
    let low = at.checked_sub(1).map(|index| Some((bound(index)?, is_open(index)?)));
    let high = relation.orders.get(at).map(|_| Some((bound(at + 1)?, is_open(at)?)));
    let infinity = Value::new(Expr::Constant(Constant::Infinity));
    let minus_infinity = Value::new(Expr::Constant(Constant::Infinity).negated());
    let form = match (low, high) {
        (None, Some(high)) => {
            let (high, is_open) = high?;
            interval(number(-high.clone()), is_open, number(high), is_open)
        }
        (Some(low), high) => {
            let (low, is_low_open) = low?;
            if low.is_zero() {
                return None;
            }
            let (high, is_high_open, minus_high) = match high {
                Some(high) => {
                    let (high, is_high_open) = high?;
                    (number(high.clone()), is_high_open, number(-high))
                }
                None => (infinity, true, minus_infinity),
            };
            let below = interval(minus_high, is_high_open, number(-low.clone()), is_low_open);
            let above = interval(number(low), is_low_open, high, is_high_open);
            Form::of(Body::Union(vec![below, above]))
        }
        (None, None) => return None,
    };
    Some(Form { name: Some(Name { text: variable, parameter: None, is_member: true }), ..form })
}
