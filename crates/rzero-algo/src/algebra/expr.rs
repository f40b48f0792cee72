//! What an expression is.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Zero};

/// A number with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Constant {
    Pi,
    E,
    I,
    Infinity,
}

/// A function of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Function {
    Sin,
    Cos,
    Tan,
    Cot,
    Sec,
    Csc,
    Arcsin,
    Arccos,
    Arctan,
    Sinh,
    Cosh,
    Tanh,
    Ln,
    Abs,
    Floor,
    Ceil,
    Factorial,
}

impl Function {
    /// Every function with the names it goes by; the first is the one it is printed with.
    pub(crate) const NAMES: [(Self, &'static [&'static str]); 17] = [
        (Self::Sin, &["sin"]),
        (Self::Cos, &["cos"]),
        (Self::Tan, &["tan", "tg"]),
        (Self::Cot, &["cot", "ctg"]),
        (Self::Sec, &["sec"]),
        (Self::Csc, &["csc", "cosec"]),
        (Self::Arcsin, &["arcsin", "asin"]),
        (Self::Arccos, &["arccos", "acos"]),
        (Self::Arctan, &["arctan", "atan", "arctg"]),
        (Self::Sinh, &["sinh"]),
        (Self::Cosh, &["cosh"]),
        (Self::Tanh, &["tanh"]),
        (Self::Ln, &["ln", "log"]),
        (Self::Abs, &["abs"]),
        (Self::Floor, &["floor"]),
        (Self::Ceil, &["ceil"]),
        (Self::Factorial, &["factorial"]),
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, names)| names.contains(&name)).map(|(function, _)| *function)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(function, _)| *function == self).map_or("", |(_, names)| names[0])
    }

    /// The function that undoes it, for `\sin^{-1}`.
    pub(crate) const fn inverse(self) -> Option<Self> {
        match self {
            Self::Sin => Some(Self::Arcsin),
            Self::Cos => Some(Self::Arccos),
            Self::Tan => Some(Self::Arctan),
            _ => None,
        }
    }
}

/// What a big operator does with the values of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BigOperator {
    Sum,
    Product,
    Integral,
}

impl BigOperator {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Product => "prod",
            Self::Integral => "int",
        }
    }
}

/// `\sum_{variable=low}^{high} body` and its like.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Big {
    pub(crate) operator: BigOperator,
    pub(crate) variable: String,
    pub(crate) low: Expr,
    pub(crate) high: Expr,
    pub(crate) body: Expr,
}

/// An expression. Differences are sums with a factor of -1, quotients are products with a power of -1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    Number(BigRational),
    Constant(Constant),
    /// A variable by its name, subscript and primes included.
    Variable(String),
    Sum(Vec<Self>),
    Product(Vec<Self>),
    /// Base and exponent.
    Power(Box<(Self, Self)>),
    Call(Function, Box<Self>),
    /// Base and argument.
    Log(Box<(Self, Self)>),
    /// n over k.
    Binomial(Box<(Self, Self)>),
    /// A function that nothing is known of.
    Apply(String, Vec<Self>),
    Big(Box<Big>),
    /// Plus or minus its argument; the other way round for `\mp`.
    PlusMinus(Box<Self>, bool),
    /// An angle in degrees.
    Degrees(Box<Self>),
    /// Per cent.
    Percent(Box<Self>),
}

impl Expr {
    pub(crate) fn integer(value: i64) -> Self {
        Self::Number(BigRational::from_integer(BigInt::from(value)))
    }

    pub(crate) fn negated(self) -> Self {
        match self {
            Self::Number(number) => Self::Number(-number),
            other => Self::Product(vec![Self::integer(-1), other]),
        }
    }

    pub(crate) fn power(base: Self, exponent: Self) -> Self {
        Self::Power(Box::new((base, exponent)))
    }

    pub(crate) fn inverted(self) -> Self {
        match self {
            Self::Number(number) if !number.is_zero() => Self::Number(number.recip()),
            other => Self::power(other, Self::integer(-1)),
        }
    }

    pub(crate) fn quotient(above: Self, below: Self) -> Self {
        match (above, below) {
            (Self::Number(above), Self::Number(below)) if !below.is_zero() => Self::Number(above / below),
            (Self::Number(above), below) if above.is_one() => below.inverted(),
            (above, below) => Self::Product(vec![above, below.inverted()]),
        }
    }

    pub(crate) fn root(radicand: Self, degree: Self) -> Self {
        Self::power(radicand, degree.inverted())
    }

    /// The parts that it is made of.
    pub(crate) fn children(&self) -> Vec<&Self> {
        match self {
            Self::Number(_) | Self::Constant(_) | Self::Variable(_) => Vec::new(),
            Self::Sum(parts) | Self::Product(parts) | Self::Apply(_, parts) => parts.iter().collect(),
            Self::Power(pair) | Self::Log(pair) | Self::Binomial(pair) => vec![&pair.0, &pair.1],
            Self::Call(_, part) | Self::PlusMinus(part, _) | Self::Degrees(part) | Self::Percent(part) => vec![&**part],
            Self::Big(big) => vec![&big.low, &big.high, &big.body],
        }
    }

    /// Whether something holds of a part of it.
    pub(crate) fn any(&self, is_it: &dyn Fn(&Self) -> bool) -> bool {
        is_it(self) || self.children().into_iter().any(|child| child.any(is_it))
    }

    pub(crate) fn has_variable(&self, name: &str) -> bool {
        self.any(&|part| matches!(part, Self::Variable(variable) if variable == name))
    }

    pub(crate) fn is_constant(&self) -> bool {
        !self.any(&|part| matches!(part, Self::Variable(_) | Self::Apply(..)))
    }

    /// The expression with its parts replaced, from the leaves up.
    pub(crate) fn map(&self, change: &dyn Fn(Self) -> Self) -> Self {
        let all = |parts: &[Self]| parts.iter().map(|part| part.map(change)).collect();
        let pair = |pair: &(Self, Self)| Box::new((pair.0.map(change), pair.1.map(change)));
        change(match self {
            Self::Number(_) | Self::Constant(_) | Self::Variable(_) => self.clone(),
            Self::Sum(parts) => Self::Sum(all(parts)),
            Self::Product(parts) => Self::Product(all(parts)),
            Self::Apply(name, parts) => Self::Apply(name.clone(), all(parts)),
            Self::Power(parts) => Self::Power(pair(parts)),
            Self::Log(parts) => Self::Log(pair(parts)),
            Self::Binomial(parts) => Self::Binomial(pair(parts)),
            Self::Call(function, part) => Self::Call(*function, Box::new(part.map(change))),
            Self::PlusMinus(part, is_minus) => Self::PlusMinus(Box::new(part.map(change)), *is_minus),
            Self::Degrees(part) => Self::Degrees(Box::new(part.map(change))),
            Self::Percent(part) => Self::Percent(Box::new(part.map(change))),
            Self::Big(big) => Self::Big(Box::new(Big {
                operator: big.operator,
                variable: big.variable.clone(),
                low: big.low.map(change),
                high: big.high.map(change),
                body: big.body.map(change),
            })),
        })
    }

    /// The expression with another in place of a variable.
    pub(crate) fn substituted(&self, name: &str, value: &Self) -> Self {
        self.map(&|part| match part {
            Self::Variable(variable) if variable == name => value.clone(),
            other => other,
        })
    }

    /// Both readings of the signs in it: all upper ones, all lower ones. One reading where there are none.
    pub(crate) fn readings(&self) -> Vec<Self> {
        if !self.any(&|part| matches!(part, Self::PlusMinus(..))) {
            return vec![self.clone()];
        }
        [false, true]
            .into_iter()
            .map(|is_lower| {
                self.map(&|part| match part {
                    Self::PlusMinus(part, is_minus) if is_minus != is_lower => part.negated(),
                    Self::PlusMinus(part, _) => *part,
                    other => other,
                })
            })
            .collect()
    }
}
