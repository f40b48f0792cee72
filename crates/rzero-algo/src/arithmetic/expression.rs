//! Expressions: reading, evaluating, printing, and reducing them one operation at a time.
//!
//! ```text
//! sum     = product (("+" | "-") product)*
//! product = factor ("*" factor)*
//! factor  = number | "(" sum ")"
//! number  = "0" | a digit 1-9 and up to eight more digits
//! ```
//!
//! A minus sign may stand before the number with which a sum begins, at the start or behind a parenthesis: `-5+3`, `(-5)*3`. It
//! belongs to the number. No white space. Every value on the way to the result has at most nine digits, so every line of a worked
//! solution is an expression again.

use std::fmt;

/// Longest expression that is read, in bytes.
pub const MAX_LENGTH: usize = 200;
/// Deepest nesting of parentheses that is read.
pub const MAX_DEPTH: usize = 64;
/// Most digits of a number.
pub const MAX_DIGITS: usize = 9;
/// Largest magnitude of a number and of every intermediate value: [`MAX_DIGITS`] nines.
pub const MAX_MAGNITUDE: i64 = 999_999_999;

/// A binary operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
}

impl Operator {
    /// The sign as written.
    #[must_use]
    pub const fn sign(self) -> char {
        match self {
            Self::Add => '+',
            Self::Subtract => '-',
            Self::Multiply => '*',
        }
    }

    /// The exact result; nothing where an operand or the result exceeds [`MAX_MAGNITUDE`].
    #[must_use]
    pub fn apply(self, left: i64, right: i64) -> Option<i64> {
        let fits = |value: i64| (-MAX_MAGNITUDE..=MAX_MAGNITUDE).contains(&value).then_some(value);
        let (left, right) = (fits(left)?, fits(right)?);
        // Two operands of nine digits cannot overflow 64 bits.
        fits(match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
        })
    }

    fn precedence(self) -> u8 {
        match self {
            Self::Add | Self::Subtract => 1,
            Self::Multiply => 2,
        }
    }
}

/// An arithmetic expression as a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// A whole number.
    Number(i64),
    /// An operation on two expressions.
    Binary {
        /// The operation.
        operator: Operator,
        /// Its left operand.
        left: Box<Expression>,
        /// Its right operand.
        right: Box<Expression>,
    },
}

impl Expression {
    /// An operation on two expressions.
    #[must_use]
    pub fn binary(operator: Operator, left: Self, right: Self) -> Self {
        Self::Binary { operator, left: Box::new(left), right: Box::new(right) }
    }

    /// The exact value; nothing where a value on the way exceeds [`MAX_MAGNITUDE`].
    #[must_use]
    pub fn evaluate(&self) -> Option<i64> {
        match self {
            Self::Number(value) => (-MAX_MAGNITUDE..=MAX_MAGNITUDE).contains(value).then_some(*value),
            Self::Binary { operator, left, right } => operator.apply(left.evaluate()?, right.evaluate()?),
        }
    }

    /// How many operations it holds.
    #[must_use]
    pub fn num_operators(&self) -> u32 {
        match self {
            Self::Number(_) => 0,
            Self::Binary { left, right, .. } => 1 + left.num_operators() + right.num_operators(),
        }
    }

    /// Does the leftmost operation whose operands are numbers, with `result` as its outcome. A single number stays as it is.
    pub(super) fn reduce_leftmost(&mut self, result: &mut dyn FnMut(Operator, i64, i64) -> i64) {
        let Self::Binary { operator, left, right } = self else {
            return;
        };
        match (&mut **left, &mut **right) {
            (Self::Number(first), Self::Number(second)) => *self = Self::Number(result(*operator, *first, *second)),
            // A part that is no number holds at least one operation whose operands are.
            (Self::Number(_), part) | (part, _) => part.reduce_leftmost(result),
        }
    }

    fn write(&self, formatter: &mut fmt::Formatter<'_>, parent_precedence: u8, side: Side) -> fmt::Result {
        match self {
            Self::Number(value) if *value < 0 && (side == Side::Right || parent_precedence > 1) => {
                write!(formatter, "({value})")
            }
            Self::Number(value) => write!(formatter, "{value}"),
            Self::Binary { operator, left, right } => {
                let precedence = operator.precedence();
                let is_bracketed = precedence < parent_precedence || (precedence == parent_precedence && side == Side::Right);
                if is_bracketed {
                    formatter.write_str("(")?;
                }
                left.write(formatter, precedence, Side::Left)?;
                write!(formatter, "{}", operator.sign())?;
                right.write(formatter, precedence, Side::Right)?;
                if is_bracketed {
                    formatter.write_str(")")?;
                }
                Ok(())
            }
        }
    }
}

/// On which side of its parent's operator an expression stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl fmt::Display for Expression {
    /// Writes it with as few parentheses as keep the tree: reading the text gives the same tree again.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(formatter, 0, Side::Left)
    }
}

/// Reads an expression; nothing where the text is none, is too long or too deep, or has a value of more than nine digits.
#[must_use]
pub fn parse(text: &str) -> Option<Expression> {
    if text.len() > MAX_LENGTH {
        return None;
    }
    let mut parser = Parser { bytes: text.as_bytes(), at: 0 };
    let expression = parser.sum(0)?;
    (parser.at == text.len() && expression.evaluate().is_some()).then_some(expression)
}

/// The expression after each reduction: always the leftmost operation whose operands are numbers, until one number is left.
///
/// Every expression from [`parse`] reduces to its value. One built by hand whose values leave the nine digits stops before that.
#[must_use]
pub fn reduction_steps(expression: &Expression) -> Vec<Expression> {
    let mut steps = Vec::new();
    let mut current = expression.clone();
    while matches!(current, Expression::Binary { .. }) {
        let mut fits = true;
        current.reduce_leftmost(&mut |operator, left, right| {
            let value = operator.apply(left, right);
            fits = value.is_some();
            value.unwrap_or(0)
        });
        if !fits {
            break;
        }
        steps.push(current.clone());
    }
    steps
}

/// Where a number stands: a minus sign may stand before the first one of a sum only.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    First,
    Later,
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn sum(&mut self, depth: usize) -> Option<Expression> {
        if depth > MAX_DEPTH {
            return None;
        }
        let mut sum = self.product(depth, Place::First)?;
        loop {
            let operator = match self.peek() {
                Some(b'+') => Operator::Add,
                Some(b'-') => Operator::Subtract,
                _ => return Some(sum),
            };
            self.at += 1;
            sum = Expression::binary(operator, sum, self.product(depth, Place::Later)?);
        }
    }

    fn product(&mut self, depth: usize, place: Place) -> Option<Expression> {
        let mut product = self.factor(depth, place)?;
        while self.take(b'*') {
            product = Expression::binary(Operator::Multiply, product, self.factor(depth, Place::Later)?);
        }
        Some(product)
    }

    fn factor(&mut self, depth: usize, place: Place) -> Option<Expression> {
        if self.take(b'(') {
            let inner = self.sum(depth + 1)?;
            return self.take(b')').then_some(inner);
        }
        let is_negative = place == Place::First && self.take(b'-');
        let magnitude = self.number()?;
        Some(Expression::Number(if is_negative { -magnitude } else { magnitude }))
    }

    fn number(&mut self) -> Option<i64> {
        let start = self.at;
        let mut value = 0_i64;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            if self.at - start == MAX_DIGITS {
                return None;
            }
            value = value * 10 + i64::from(digit - b'0');
            self.at += 1;
        }
        let length = self.at - start;
        let has_leading_zero = length > 1 && self.bytes[start] == b'0';
        (length > 0 && !has_leading_zero).then_some(value)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arithmetic::true_answer;
    use proptest::prelude::*;

    fn value(text: &str) -> Option<i64> {
        parse(text).and_then(|expression| expression.evaluate())
    }

    #[test]
    fn expressions_have_their_school_value() {
        for (text, expected) in [
            ("7", 7),
            ("0", 0),
            ("2+3*4", 14),
            ("(2+3)*4", 20),
            ("10-3-2", 5),
            ("10-(3-2)", 9),
            ("-5+3", -2),
            ("(-5)*3", -15),
            ("-5*3", -15),
            ("2-(-3)", 5),
            ("((7))", 7),
            ("999999999", 999_999_999),
        ] {
            assert_eq!(value(text), Some(expected), "{text}");
            assert_eq!(true_answer(&format!(" {text}\n")), Some(expected.to_string()));
        }
    }

    #[test]
    fn what_is_not_in_the_domain_is_refused() {
        let deep = format!("{}1{}", "(".repeat(65), ")".repeat(65));
        let long = vec!["1"; 101].join("+");
        for text in [
            "",
            "+",
            "-",
            "()",
            "1+",
            "+1",
            "1++2",
            "2*-3",
            "2--3",
            "-(5)",
            "--5",
            "1 + 2",
            "01",
            "1/2",
            "2^3",
            "x",
            "1)",
            "(1",
            "1.5",
            "٣",
            "\0",
            "1\0",
            "9999999999",
            "999999999*9",
            "999999999+1",
            "= 3",
            &deep,
            &long,
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert!(parse(&format!("{}1{}", "(".repeat(64), ")".repeat(64))).is_some());
        assert!(parse(&vec!["1"; 100].join("+")).is_some());
        assert_eq!(parse(&"(".repeat(1 << 20)), None);
    }

    #[test]
    fn printing_keeps_the_tree_with_few_parentheses() {
        for text in ["2+3*4", "(2+3)*4", "10-(3-2)", "2*(3*4)", "(-5)*3", "-5+3", "3-(-5+2)", "(-5+2)*3", "1+(-5)*3", "2-(-3)"] {
            assert_eq!(parse(text).map(|expression| expression.to_string()).as_deref(), Some(text));
        }
        let redundant = parse("((1)+(2*3))").expect("an expression");
        assert_eq!(redundant.to_string(), "1+2*3");
        assert_eq!(redundant.num_operators(), 2);
    }

    #[test]
    fn reduction_goes_from_the_left() {
        let steps = |text: &str| -> Vec<String> {
            reduction_steps(&parse(text).expect("an expression")).iter().map(ToString::to_string).collect()
        };
        assert_eq!(steps("(1+2)*(3-7)"), ["3*(3-7)", "3*(-4)", "-12"]);
        assert_eq!(steps("1+2*3-4"), ["1+6-4", "7-4", "3"]);
        assert_eq!(steps("5"), Vec::<String>::new());
    }

    #[test]
    fn hand_built_expressions_out_of_bounds_have_no_value_and_no_panic() {
        let huge = Expression::binary(Operator::Multiply, Expression::Number(i64::MAX), Expression::Number(i64::MIN));
        assert_eq!(huge.evaluate(), None);
        assert!(reduction_steps(&huge).is_empty());
        assert_eq!(parse(&huge.to_string()), None);
    }

    fn expressions() -> impl Strategy<Value = Expression> {
        (-99_i64..100).prop_map(Expression::Number).prop_recursive(5, 16, 2, |inner| {
            let operator = prop_oneof![Just(Operator::Add), Just(Operator::Subtract), Just(Operator::Multiply)];
            (operator, inner.clone(), inner).prop_map(|(operator, left, right)| Expression::binary(operator, left, right))
        })
    }

    proptest! {
        #[test]
        fn any_text_parses_or_not(text in r"([0-9+*()-]|\PC){0,40}") {
            if let Some(expression) = parse(&text) {
                prop_assert_eq!(parse(&expression.to_string()), Some(expression));
            }
        }

        #[test]
        fn what_is_printed_reads_back(expression in expressions()) {
            let text = expression.to_string();
            if let Some(expected) = expression.evaluate() && text.len() <= MAX_LENGTH {
                prop_assert_eq!(parse(&text), Some(expression.clone()));
                let steps = reduction_steps(&expression);
                prop_assert_eq!(steps.len(), expression.num_operators() as usize);
                for step in &steps {
                    prop_assert_eq!(value(&step.to_string()), Some(expected));
                }
            }
        }
    }
}
