//! Functions with their arguments, and the big operators.

use super::{NoExpr, Parsed, Parser, parse_expr};
use crate::algebra::expr::{Big, BigOperator, Constant, Expr, Function};
use crate::normalize::lexer::{Lexeme, Token};

impl Parser<'_> {
    /// A function with its power and its argument: `\sin^2 x`, `\log_2 8`.
    pub(super) fn call(&mut self, function: Function) -> Parsed {
        let mut base = None;
        if function == Function::Ln && self.accept('_') {
            base = Some(self.argument()?);
        }
        let mut exponent = None;
        if self.accept('^') {
            exponent = Some(self.argument_of_power()?);
        }
        if function == Function::Ln && base.is_none() && self.accept('_') {
            base = Some(self.argument()?);
        }
        let argument = self.call_argument()?;
        let called = |function| Expr::Call(function, Box::new(argument.clone()));
        Ok(match (base, exponent) {
            (Some(base), None) => Expr::Log(Box::new((base, argument))),
            (Some(base), Some(exponent)) => Expr::power(Expr::Log(Box::new((base, argument))), exponent),
            (None, Some(exponent)) if exponent == Expr::integer(-1) => match function.inverse() {
                Some(inverse) => called(inverse),
                None => Expr::power(called(function), exponent),
            },
            (None, Some(exponent)) => Expr::power(called(function), exponent),
            (None, None) => called(function),
        })
    }

    pub(super) fn argument_of_power(&mut self) -> Parsed {
        if self.accept('-') { Ok(self.argument()?.negated()) } else { self.argument() }
    }

    /// What a function is applied to: parentheses, or the factors up to the next sign or function.
    pub(super) fn call_argument(&mut self) -> Parsed {
        self.nested(|parser| {
            if parser.is_at('(') {
                return parser.primary_inside();
            }
            if parser.accept('-') {
                return Ok(parser.call_argument()?.negated());
            }
            let mut factors = vec![parser.factor()?];
            loop {
                let is_function = match parser.peek() {
                    Some(Token::Command(name)) => Function::named(name).is_some(),
                    Some(Token::Word(word)) => Function::named(word).is_some(),
                    Some(Token::Symbol('(')) => true,
                    _ => false,
                };
                if is_function || !parser.starts_factor(&factors) {
                    break;
                }
                factors.push(parser.factor()?);
            }
            // `\sin \pi/3` is the sine of pi/3.
            if factors.len() == 1
                && matches!(factors[0], Expr::Constant(Constant::Pi))
                && parser.is_at('/')
                && let Some(Lexeme { token: Token::Number(_), .. }) = parser.tokens.get(parser.at + 1)
            {
                parser.at += 1;
                factors.push(parser.factor()?.inverted());
            }
            Ok(if factors.len() == 1 { factors.remove(0) } else { Expr::Product(factors) })
        })
    }

    /// `\sum_{k=1}^{n} body`, `\int_a^b f dx`.
    pub(super) fn big(&mut self, operator: BigOperator) -> Parsed {
        self.expect('_')?;
        let is_group = self.accept('{');
        let mut variable = None;
        if let (Some(Token::Word(name)), Some(next)) = (self.peek(), self.tokens.get(self.at + 1))
            && next.is_symbol('=')
        {
            variable = Some(name.clone());
            self.at += 2;
        }
        let low = if is_group { self.sum()? } else { self.argument_of_power()? };
        if is_group {
            self.expect('}')?;
        }
        self.expect('^')?;
        let high = self.argument_of_power()?;
        if operator != BigOperator::Integral {
            let variable = variable.ok_or(NoExpr)?;
            // An index called i is no root of -1.
            let body = self.product()?.map(&|part| match part {
                Expr::Constant(Constant::I) if variable == "i" => Expr::Variable(variable.clone()),
                other => other,
            });
            return Ok(Expr::Big(Box::new(Big { operator, variable, low, high, body })));
        }
        if let Some(variable) = variable {
            let body = self.product()?;
            return Ok(Expr::Big(Box::new(Big { operator, variable, low, high, body })));
        }
        // The last token names the variable: `dx`, or `d` and `x`.
        let end = self.tokens.len();
        let (variable, body_end) = match (&self.tokens.get(end.wrapping_sub(2)), self.tokens.last()) {
            (_, Some(Lexeme { token: Token::Word(word), .. })) if word.len() == 2 && word.starts_with('d') => {
                (word[1..].to_owned(), end - 1)
            }
            (Some(Lexeme { token: Token::Word(d), .. }), Some(Lexeme { token: Token::Word(word), .. })) if d == "d" => {
                (word.clone(), end - 2)
            }
            _ => return Err(NoExpr),
        };
        if self.at >= body_end {
            return Err(NoExpr);
        }
        let body = parse_expr(&self.tokens[self.at..body_end])?;
        self.at = end;
        Ok(Expr::Big(Box::new(Big { operator, variable, low, high, body })))
    }
}
