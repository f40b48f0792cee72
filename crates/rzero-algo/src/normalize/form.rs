//! What an answer can be, and how it is written down.

use crate::algebra::expr::{Constant, Expr};
use crate::algebra::polynomial::Polynomial;
use crate::algebra::print::{print_expr, print_polynomial};
use crate::algebra::simplify::simplify;
use crate::algebra::{Budget, NoForm};
use num_rational::BigRational;
use std::fmt;

/// An answer in the form in which it is compared: a body, and what may be left out beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    pub(crate) body: Body,
    /// The unit of a value: `cm`, `%`, `°`.
    pub(crate) unit: Option<String>,
    /// What stands before `=` or `\in`: `x`, `f`, `(x,y)`.
    pub(crate) name: Option<Name>,
}

/// What an answer is called.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Name {
    pub(crate) text: String,
    /// The argument of a function, where one is defined.
    pub(crate) parameter: Option<String>,
    /// Whether it stands before a set rather than a value.
    pub(crate) is_member: bool,
}

/// The answer itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    /// A number or a function of variables.
    Value(Value),
    /// A letter of a choice, and what is written beside it.
    Choice(char, Option<String>),
    /// Words, in lower case, with single spaces.
    Text(String),
    /// Hours and minutes, as they are written.
    Time(u32, u32),
    /// Digits and the base that they are written in.
    Based(String, u32),
    /// Three numbers or more whose ratio it is.
    Ratio(Vec<Value>),
    /// Parts in order.
    Tuple(Vec<Form>),
    /// An interval; open at both ends it is also a pair.
    Interval(Box<Interval>),
    /// Parts in no order: a set, or values between commas. Where one is repeated it is no set, and the order counts.
    List(Vec<Form>),
    /// Sets put together.
    Union(Vec<Form>),
    /// Rows of a matrix.
    Matrix(Vec<Vec<Form>>),
    /// An equation, an inequality, or a chain of them.
    Relation(Box<Relation>),
}

/// An expression with its canonical polynomial, where it has one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Value {
    pub(crate) expr: Expr,
    pub(crate) polynomial: Result<Polynomial, NoForm>,
}

impl Value {
    pub(crate) fn new(expr: Expr) -> Self {
        let polynomial = match &expr {
            Expr::Number(number) => Ok(Polynomial::constant(number.clone())),
            // What is worked out has to be readable where it is printed: 1296! stays as it stands.
            _ => simplify(&expr, &mut Budget::new(Budget::PER_EXPRESSION))
                .and_then(|polynomial| if polynomial.is_readable() { Ok(polynomial) } else { Err(NoForm::TooMuchWork) }),
        };
        Self { expr, polynomial }
    }

    pub(crate) fn number(number: BigRational) -> Self {
        Self::new(Expr::Number(number))
    }

    /// The rational number that it is, if it is one.
    pub(crate) fn rational(&self) -> Option<BigRational> {
        self.polynomial.as_ref().ok()?.as_rational()
    }

    pub(crate) fn is_infinite(&self) -> bool {
        self.expr.any(&|part| *part == Expr::Constant(Constant::Infinity))
    }
}

/// A set of real numbers between two ends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Interval {
    pub(crate) low: Value,
    pub(crate) high: Value,
    pub(crate) is_low_open: bool,
    pub(crate) is_high_open: bool,
}

/// How two sides are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
}

/// Sides and what stands between each two of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Relation {
    pub(crate) sides: Vec<Value>,
    pub(crate) orders: Vec<Order>,
}

impl Form {
    pub(crate) const fn of(body: Body) -> Self {
        Self { body, unit: None, name: None }
    }

    pub(crate) fn value(expr: Expr) -> Self {
        Self::of(Body::Value(Value::new(expr)))
    }

    /// Whether the answer is a number in plain digits, possibly a fraction, and nothing else.
    #[must_use]
    pub fn is_rational(&self) -> bool {
        self.as_rational().is_some()
    }

    /// The rational number that it is, bare of unit and name.
    pub(crate) fn as_rational(&self) -> Option<BigRational> {
        match &self.body {
            Body::Value(value) if self.unit.is_none() && self.name.is_none() => value.rational(),
            _ => None,
        }
    }

    /// The same without what may be left out.
    pub(crate) fn bare(&self) -> Self {
        Self::of(self.body.clone())
    }
}

/// Whether a part stands twice.
pub(crate) fn has_repeats(parts: &[Form]) -> bool {
    parts.iter().enumerate().any(|(at, part)| parts[..at].contains(part))
}

fn join(forms: &[Form], separator: &str) -> String {
    forms.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.polynomial {
            Ok(polynomial) => formatter.write_str(&print_polynomial(polynomial)),
            Err(_) => formatter.write_str(&print_expr(&self.expr)),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
        })
    }
}

impl fmt::Display for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(formatter, "{value}"),
            Self::Choice(letter, None) => write!(formatter, "{letter}"),
            Self::Choice(letter, Some(rest)) => write!(formatter, "({letter}) {rest}"),
            Self::Text(text) => write!(formatter, "text:{text}"),
            Self::Time(hours, minutes) => write!(formatter, "{hours}:{minutes:02}"),
            Self::Based(digits, base) => write!(formatter, "{digits}_{{{base}}}"),
            Self::Ratio(parts) => {
                let parts: Vec<String> = parts.iter().map(|part| format!("({part})")).collect();
                formatter.write_str(&parts.join(":"))
            }
            Self::Tuple(parts) => write!(formatter, "({})", join(parts, ", ")),
            Self::Interval(interval) => write!(
                formatter,
                "{}{}, {}{}",
                if interval.is_low_open { '(' } else { '[' },
                interval.low,
                interval.high,
                if interval.is_high_open { ')' } else { ']' },
            ),
            Self::List(parts) if has_repeats(parts) => formatter.write_str(&join(parts, ", ")),
            Self::List(parts) => write!(formatter, "\\{{{}\\}}", join(parts, ", ")),
            Self::Union(parts) => formatter.write_str(&join(parts, " \\cup ")),
            Self::Matrix(rows) => {
                let rows: Vec<String> = rows.iter().map(|row| join(row, " & ")).collect();
                write!(formatter, "\\begin{{pmatrix}} {} \\end{{pmatrix}}", rows.join(" \\\\ "))
            }
            Self::Relation(relation) => {
                for (index, side) in relation.sides.iter().enumerate() {
                    if index > 0 {
                        write!(formatter, " {} ", relation.orders[index - 1])?;
                    }
                    write!(formatter, "{side}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            let parameter = name.parameter.as_ref().map_or(String::new(), |parameter| format!("({parameter})"));
            write!(formatter, "{}{parameter} {} ", name.text, if name.is_member { "\\in" } else { "=" })?;
        }
        write!(formatter, "{}", self.body)?;
        match self.unit.as_deref() {
            Some(unit @ ("%" | "°")) => write!(formatter, "{unit}"),
            Some(unit) => write!(formatter, " \\text{{{unit}}}"),
            None => Ok(()),
        }
    }
}
