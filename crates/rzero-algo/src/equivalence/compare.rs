//! The verdict on two forms.

use crate::algebra::expr::Expr;
use crate::algebra::{Budget, NoForm, field, numeric};
use crate::equivalence::{GradeOptions, rounding};
use crate::normalize::{Body, Form, Interval, Name, Order, Relation, Value, has_repeats};
use num_traits::Signed;
use rzero_schema::vocab::{GradeReason, Verdict};

/// A verdict and why.
pub(crate) type Outcome = (Verdict, GradeReason);

/// What a pair of forms is given to be compared.
const BUDGET: u32 = 6_000;
/// What is taken of it for two values without canonical forms.
const HARD_COMPARISON: u64 = 800;
/// Most parts whose order is left open; of longer lists only the written forms are compared.
const MAX_MATCHED: usize = 24;

const fn equal(reason: GradeReason) -> Outcome {
    (Verdict::Equal, reason)
}

const fn different(reason: GradeReason) -> Outcome {
    (Verdict::Different, reason)
}

const fn unknown(reason: GradeReason) -> Outcome {
    (Verdict::Unknown, reason)
}

/// Whether a prediction is the gold answer. Symmetric but for a gold answer that is rounded.
pub(crate) fn compare(gold: &Form, prediction: &Form, options: &GradeOptions) -> Outcome {
    Comparison::new(*options).forms(gold, prediction)
}

/// Whether the bodies of two forms are the same, with nothing left out and nothing rounded.
pub(crate) fn same_bodies(left: &Form, right: &Form) -> bool {
    let mut comparison = Comparison::new(GradeOptions::default());
    comparison.bodies(&left.body, &right.body).0 == Verdict::Equal
}

/// The other value of a percentage or an angle: `50%` is a half, `90°` is pi/2.
pub(crate) fn other_value(form: &Form) -> Option<Form> {
    let Body::Value(value) = &form.body else { return None };
    let inner = Box::new(value.expr.clone());
    match form.unit.as_deref() {
        Some("%") => Some(Form { name: form.name.clone(), ..Form::value(Expr::Percent(inner)) }),
        Some("°") => Some(Form { name: form.name.clone(), ..Form::value(Expr::Degrees(inner)) }),
        _ => None,
    }
}

struct Comparison {
    budget: Budget,
    long_cost: u32,
    options: GradeOptions,
}

impl Comparison {
    const fn new(options: GradeOptions) -> Self {
        Self { budget: Budget::new(BUDGET), long_cost: numeric::MAX_LONG_COST, options }
    }

    fn forms(&mut self, gold: &Form, prediction: &Form) -> Outcome {
        let outcome = self.bodies(&gold.body, &prediction.body);
        if outcome.0 == Verdict::Equal {
            return beside(gold, prediction, outcome);
        }
        self.second_look(gold, prediction).unwrap_or(outcome)
    }

    /// What makes answers equal whose bodies are not.
    fn second_look(&mut self, gold: &Form, prediction: &Form) -> Option<Outcome> {
        // 50% and 1/2.
        for (one, other) in [(gold, prediction), (prediction, gold)] {
            if one.unit.is_some()
                && other.unit.is_none()
                && let Some(value) = other_value(one)
                && self.bodies(&value.body, &other.body).0 == Verdict::Equal
            {
                return Some(equal(GradeReason::SameBare));
            }
        }
        match (&gold.body, &prediction.body) {
            (Body::Value(left), Body::Value(right)) => {
                // f(x) = x and f(y) = y.
                if let (Some(a), Some(b)) = (parameter(gold), parameter(prediction))
                    && a != b
                {
                    let renamed = Value::new(right.expr.substituted(b, &Expr::Variable(a.to_owned())));
                    if self.values(left, &renamed).0 == Verdict::Equal {
                        return Some(equal(GradeReason::SameFunction));
                    }
                }
                if let (Some(left), Some(right)) = (as_equation(gold), as_equation(prediction))
                    && self.relations(&left, &right).0 == Verdict::Equal
                {
                    return Some(equal(GradeReason::SameFunction));
                }
                if beside(gold, prediction, equal(GradeReason::SameRounded)).0 == Verdict::Equal
                    && rounding::are_equal(left, right, self.options)
                {
                    return Some(equal(GradeReason::SameRounded));
                }
                None
            }
            (Body::Relation(relation), Body::Value(_)) => {
                let equation = as_equation(prediction)?;
                (self.relations(relation, &equation).0 == Verdict::Equal).then(|| equal(GradeReason::SameFunction))
            }
            (Body::Value(_), Body::Relation(relation)) => {
                let equation = as_equation(gold)?;
                (self.relations(&equation, relation).0 == Verdict::Equal).then(|| equal(GradeReason::SameFunction))
            }
            _ => None,
        }
    }

    fn bodies(&mut self, left: &Body, right: &Body) -> Outcome {
        match (left, right) {
            (Body::Value(left), Body::Value(right)) => self.values(left, right),
            (Body::Choice(left, _), Body::Choice(right, _)) => {
                if left == right {
                    equal(GradeReason::SameChoice)
                } else {
                    different(GradeReason::OtherChoice)
                }
            }
            (Body::Choice(letter, None), Body::Value(value)) | (Body::Value(value), Body::Choice(letter, None)) => {
                match &value.expr {
                    Expr::Variable(name) if name.len() == 1 && name.eq_ignore_ascii_case(&letter.to_string()) => {
                        equal(GradeReason::SameChoice)
                    }
                    _ if value.expr.is_constant() => different(GradeReason::OtherKind),
                    _ => self.values(&Value::new(Expr::Variable(letter.to_ascii_lowercase().to_string())), value),
                }
            }
            (Body::Text(left), Body::Text(right)) => texts(left, right),
            (Body::Text(text), _) | (_, Body::Text(text)) => {
                if is_plain(text) {
                    different(GradeReason::OtherKind)
                } else {
                    unknown(GradeReason::NotComparable)
                }
            }
            (Body::Time(h, m), Body::Time(other_h, other_m)) => {
                if (h, m) == (other_h, other_m) {
                    equal(GradeReason::SameForm)
                } else {
                    different(GradeReason::OtherValue)
                }
            }
            (Body::Time(h, m), Body::Value(value)) | (Body::Value(value), Body::Time(h, m)) => {
                // 4:30 may be a ratio after all.
                let ratio = Value::new(Expr::quotient(Expr::integer(i64::from(*h)), Expr::integer(i64::from(*m))));
                self.values(&ratio, value)
            }
            (Body::Based(digits, base), Body::Based(other_digits, other_base)) => {
                if (digits, base) == (other_digits, other_base) {
                    equal(GradeReason::SameForm)
                } else {
                    different(GradeReason::OtherValue)
                }
            }
            (Body::Ratio(left), Body::Ratio(right)) => self.ratios(left, right),
            (Body::Tuple(left), Body::Tuple(right)) => self.in_order(left, right),
            (Body::Interval(left), Body::Interval(right)) => self.intervals(left, right),
            (Body::List(left), Body::List(right)) | (Body::Union(left), Body::Union(right)) => self.in_any_order(left, right),
            // A set of one is what it holds.
            (Body::List(parts), other) | (other, Body::List(parts)) => match parts.as_slice() {
                [part] => {
                    let other = Form::of(other.clone());
                    self.forms(part, &other)
                }
                _ => different(GradeReason::OtherParts),
            },
            (Body::Matrix(left), Body::Matrix(right)) => {
                let shape = |rows: &[Vec<Form>]| (rows.len(), rows.first().map_or(0, Vec::len));
                if shape(left) != shape(right) {
                    return different(GradeReason::OtherParts);
                }
                self.in_order(&left.concat(), &right.concat())
            }
            (Body::Relation(left), Body::Relation(right)) => self.relations(left, right),
            _ => different(GradeReason::OtherKind),
        }
    }

    /// Numbers and functions: exactly where there are canonical forms, then in a prime field, then by intervals.
    fn values(&mut self, left: &Value, right: &Value) -> Outcome {
        if let (Ok(left), Ok(right)) = (&left.polynomial, &right.polynomial) {
            return match (left == right, left.is_number()) {
                (true, true) => equal(GradeReason::SameValue),
                (true, false) => equal(GradeReason::SameFunction),
                (false, _) => different(GradeReason::OtherValue),
            };
        }
        if left.expr == right.expr {
            return equal(GradeReason::SameForm);
        }
        let no_value = |value: &Value| value.polynomial == Err(NoForm::Undefined);
        if no_value(left) || no_value(right) {
            return unknown(GradeReason::NotComparable);
        }
        if left.is_infinite() || right.is_infinite() {
            return different(GradeReason::OtherValue);
        }
        let mut is_too_much = [left, right].iter().any(|value| value.polynomial == Err(NoForm::TooMuchWork));
        if self.budget.spend(HARD_COMPARISON).is_err() {
            return unknown(GradeReason::TooMuchWork);
        }
        for reason in [GradeReason::SameFunction, GradeReason::SameNumerically] {
            let compared = match reason {
                GradeReason::SameFunction => field::are_equal(&left.expr, &right.expr),
                _ => numeric::are_equal(&left.expr, &right.expr, &mut self.long_cost),
            };
            match compared {
                Ok(true) => return equal(reason),
                Ok(false) => return different(GradeReason::OtherValue),
                Err(NoForm::TooMuchWork) => is_too_much = true,
                Err(NoForm::Other | NoForm::Undefined) => {}
            }
        }
        if left.to_string() == right.to_string() {
            return equal(GradeReason::SameForm);
        }
        unknown(if is_too_much { GradeReason::TooMuchWork } else { GradeReason::NotComparable })
    }

    fn in_order(&mut self, left: &[Form], right: &[Form]) -> Outcome {
        if left.len() != right.len() {
            return different(GradeReason::OtherParts);
        }
        let mut is_known = true;
        for (left, right) in left.iter().zip(right) {
            match self.forms(left, right) {
                (Verdict::Equal, _) => {}
                (Verdict::Different, _) => return different(GradeReason::OtherParts),
                (Verdict::Unknown, _) => is_known = false,
            }
        }
        if is_known { equal(GradeReason::SameParts) } else { unknown(GradeReason::NotComparable) }
    }

    /// Each part of one side has its own part of the other. All pairs are looked at, so that the order of parts decides nothing.
    fn in_any_order(&mut self, left: &[Form], right: &[Form]) -> Outcome {
        if left.len() != right.len() {
            return different(GradeReason::OtherParts);
        }
        if left.len() <= MAX_MATCHED && (has_repeats(left) || has_repeats(right)) {
            return self.in_order(left, right);
        }
        if left.len() > MAX_MATCHED {
            let sorted = |parts: &[Form]| {
                let mut texts: Vec<String> = parts.iter().map(ToString::to_string).collect();
                texts.sort_unstable();
                texts
            };
            let is_same = sorted(left) == sorted(right);
            return if is_same { equal(GradeReason::SameParts) } else { unknown(GradeReason::TooMuchWork) };
        }
        // Sets of sets of sets: what is looked at is bounded by the budget, whichever side it stands on.
        if self.budget.spend(10 * (left.len() * right.len()) as u64).is_err() {
            return unknown(GradeReason::TooMuchWork);
        }
        let verdicts: Vec<Vec<Verdict>> =
            left.iter().map(|part| right.iter().map(|other| self.forms(part, other).0).collect()).collect();
        let mut partner_of: Vec<Option<usize>> = vec![None; right.len()];
        if (0..left.len()).all(|at| augment(at, &verdicts, &mut partner_of, &mut vec![false; right.len()])) {
            return equal(GradeReason::SameParts);
        }
        let has_no_other = (0..left.len()).any(|at| {
            verdicts[at].iter().all(|verdict| *verdict == Verdict::Different)
                || verdicts.iter().all(|row| row[at] == Verdict::Different)
        });
        let is_known = verdicts.iter().flatten().all(|verdict| *verdict != Verdict::Unknown);
        if has_no_other || is_known { different(GradeReason::OtherParts) } else { unknown(GradeReason::NotComparable) }
    }

    fn intervals(&mut self, left: &Interval, right: &Interval) -> Outcome {
        if (left.is_low_open, left.is_high_open) != (right.is_low_open, right.is_high_open) {
            return different(GradeReason::OtherParts);
        }
        let form = |value: &Value| Form::of(Body::Value(value.clone()));
        self.in_order(&[form(&left.low), form(&left.high)], &[form(&right.low), form(&right.high)])
    }

    fn ratios(&mut self, left: &[Value], right: &[Value]) -> Outcome {
        if left.len() != right.len() {
            return different(GradeReason::OtherParts);
        }
        let product = |a: &Value, b: &Value| Value::new(Expr::Product(vec![a.expr.clone(), b.expr.clone()]));
        let all = (1..left.len()).map(|at| self.values(&product(&left[0], &right[at]), &product(&right[0], &left[at])));
        let outcomes: Vec<Outcome> = all.collect();
        match outcomes.iter().find(|outcome| outcome.0 != Verdict::Equal) {
            None => equal(GradeReason::SameParts),
            Some((Verdict::Unknown, reason)) => unknown(*reason),
            Some(_) => different(GradeReason::OtherParts),
        }
    }

    fn relations(&mut self, left: &Relation, right: &Relation) -> Outcome {
        if left.orders != right.orders {
            return different(GradeReason::OtherKind);
        }
        if let ([order], Some(left), Some(right)) = (left.orders.as_slice(), difference(left), difference(right)) {
            let outcome = self.multiples(&left, &right, *order);
            if outcome.0 != Verdict::Unknown {
                return outcome;
            }
        }
        let forms = |relation: &Relation| -> Vec<Form> {
            relation.sides.iter().map(|side| Form::of(Body::Value(side.clone()))).collect()
        };
        let (left_sides, mut right_sides) = (forms(left), forms(right));
        let outcome = self.in_order(&left_sides, &right_sides);
        if outcome.0 != Verdict::Equal && left.orders.iter().all(|order| matches!(order, Order::Equal | Order::NotEqual)) {
            right_sides.reverse();
            let turned = self.in_order(&left_sides, &right_sides);
            if turned.0 == Verdict::Equal {
                return turned;
            }
        }
        outcome
    }

    /// Whether `left = 0` says the same as `right = 0`: one is a multiple of the other, a positive one for inequalities.
    fn multiples(&mut self, left: &Value, right: &Value, order: Order) -> Outcome {
        if let (Ok(left), Ok(right)) = (&left.polynomial, &right.polynomial) {
            if left.is_zero() || right.is_zero() {
                return if left == right { equal(GradeReason::SameFunction) } else { different(GradeReason::OtherValue) };
            }
            let sign = |side: &crate::algebra::polynomial::Polynomial| side.first_coefficient().is_some_and(Signed::is_negative);
            let is_turned = sign(left) != sign(right) && matches!(order, Order::Less | Order::LessOrEqual);
            return if !is_turned && left.clone().primitive() == right.clone().primitive() {
                equal(GradeReason::SameFunction)
            } else {
                different(GradeReason::OtherValue)
            };
        }
        if matches!(order, Order::Less | Order::LessOrEqual) {
            return self.values(left, right);
        }
        // l(p) r(q) = l(q) r(p) for all points p, q.
        let at = |value: &Value, point: u8| field::value(&value.expr, point, &mut Budget::new(BUDGET / 8));
        let values = [at(left, 0), at(right, 0), at(left, 1), at(right, 1)];
        let [Ok(left_0), Ok(right_0), Ok(left_1), Ok(right_1)] = values else { return unknown(GradeReason::NotComparable) };
        if field::are_proportional(left_0, right_0, left_1, right_1) {
            equal(GradeReason::SameFunction)
        } else {
            different(GradeReason::OtherValue)
        }
    }
}

/// Finds a partner for a part, moving others to new ones where it must (Kuhn 1955).
fn augment(at: usize, verdicts: &[Vec<Verdict>], partner_of: &mut [Option<usize>], is_seen: &mut [bool]) -> bool {
    for other in 0..partner_of.len() {
        if verdicts[at][other] == Verdict::Equal && !is_seen[other] {
            is_seen[other] = true;
            if partner_of[other].is_none_or(|partner| augment(partner, verdicts, partner_of, is_seen)) {
                partner_of[other] = Some(at);
                return true;
            }
        }
    }
    false
}

/// The outcome for equal bodies, once units and names have been looked at.
fn beside(gold: &Form, prediction: &Form, outcome: Outcome) -> Outcome {
    if let (Some(left), Some(right)) = (&gold.unit, &prediction.unit)
        && left != right
    {
        return different(GradeReason::OtherUnit);
    }
    if let (Some(left), Some(right)) = (&gold.name, &prediction.name)
        && !are_same_names(left, right)
    {
        return different(GradeReason::OtherUnit);
    }
    let leaves_out = gold.unit.is_some() != prediction.unit.is_some() || gold.name.is_some() != prediction.name.is_some();
    if leaves_out { equal(GradeReason::SameBare) } else { outcome }
}

/// `y = 2x` and `f(x) = 2x` differ in nothing that matters; `x = 12` and `y = 12` do.
fn are_same_names(left: &Name, right: &Name) -> bool {
    left.text == right.text || left.parameter.is_some() != right.parameter.is_some()
}

fn parameter(form: &Form) -> Option<&str> {
    form.name.as_ref()?.parameter.as_deref()
}

/// `y = 2x + 3` as the equation that it is as well.
fn as_equation(form: &Form) -> Option<Relation> {
    let name = form.name.as_ref().filter(|name| name.parameter.is_none() && !name.is_member)?;
    let Body::Value(value) = &form.body else { return None };
    if value.expr.is_constant() {
        return None;
    }
    let sides = vec![Value::new(Expr::Variable(name.text.clone())), value.clone()];
    Some(Relation { sides, orders: vec![Order::Equal] })
}

/// The right side of a relation less its left one.
fn difference(relation: &Relation) -> Option<Value> {
    match relation.sides.as_slice() {
        [left, right] => Some(Value::new(Expr::Sum(vec![right.expr.clone(), left.expr.clone().negated()]))),
        _ => None,
    }
}

fn texts(left: &str, right: &str) -> Outcome {
    let letters = |text: &str| text.chars().filter(|character| !character.is_whitespace()).collect::<String>();
    if left == right || letters(left) == letters(right) {
        equal(GradeReason::SameForm)
    } else if is_plain(left) && is_plain(right) {
        different(GradeReason::OtherText)
    } else {
        unknown(GradeReason::NotComparable)
    }
}

/// Whether a text is words, and no mathematics that could not be read.
fn is_plain(text: &str) -> bool {
    !text.contains(['\\', '^', '_', '=', '<', '>']) && !text.chars().any(|character| character.is_ascii_digit())
}
