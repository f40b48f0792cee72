//! Fractions, mixed numbers, decimals that repeat.

use super::{NoExpr, Parsed, Parser};
use crate::algebra::expr::Expr;
use crate::normalize::lexer::{Lexeme, Token};
use crate::normalize::literal::decimal_value;
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Zero};

impl Parser<'_> {
    /// The two arguments of a fraction. `\frac12` is a half: of a number of two digits each is one.
    pub(super) fn fraction(&mut self) -> Result<(Expr, Expr), NoExpr> {
        if let Some(Token::Number(text)) = self.peek()
            && text.len() >= 2
            && text.bytes().all(|digit| digit.is_ascii_digit())
        {
            self.at += 1;
            let digit = |text: &str| decimal_value(text).map(Expr::Number).ok_or(NoExpr);
            if text.len() > 2 || matches!(self.peek(), Some(Token::Symbol('{'))) {
                // `\frac1{72}` never comes here; `\frac123` is a fraction times something, which nobody means.
                return Err(NoExpr);
            }
            return Ok((digit(&text[..1])?, digit(&text[1..])?));
        }
        Ok((self.argument()?, self.argument()?))
    }

    pub(super) fn number(&mut self, text: &str) -> Parsed {
        // 0.\overline{3}
        if text.contains('.') && self.accept_command("overline") {
            return self.repeating(text);
        }
        let value = decimal_value(text).ok_or(NoExpr)?;
        let is_whole = text.bytes().all(|digit| digit.is_ascii_digit() || digit == b',');
        if is_whole && let Some((broken, end)) = self.broken_part() {
            self.at = end;
            return Ok(Expr::Number(value + broken));
        }
        // 1 1/2
        if is_whole
            && let (Some(Token::Number(above)), Some(Token::Symbol('/')), Some(Token::Number(below))) = (
                self.peek(),
                self.tokens.get(self.at + 1).map(|lexeme| &lexeme.token),
                self.tokens.get(self.at + 2).map(|lexeme| &lexeme.token),
            )
        {
            let (above, below) = (decimal_value(above).ok_or(NoExpr)?, decimal_value(below).ok_or(NoExpr)?);
            if above < below && above.is_integer() && below.is_integer() && self.at + 3 == self.tokens.len() {
                self.at += 3;
                return Ok(Expr::Number(value + above / below));
            }
        }
        Ok(Expr::Number(value))
    }

    /// The fraction of a mixed number such as `4\frac{2}{3}` and where it ends: two whole numbers, the smaller above the larger.
    fn broken_part(&self) -> Option<(BigRational, usize)> {
        let token = |at: usize| self.tokens.get(self.at + at).map(|lexeme| &lexeme.token);
        if !matches!(token(0), Some(Token::Command(name)) if name == "frac") {
            return None;
        }
        let whole = |at: usize| match token(at) {
            Some(Token::Number(text)) if text.bytes().all(|digit| digit.is_ascii_digit()) => Some(text.as_str()),
            _ => None,
        };
        let is = |at: usize, symbol: char| token(at) == Some(&Token::Symbol(symbol));
        let argument = |at: usize| match whole(at) {
            Some(text) => Some((text, at + 1)),
            None if is(at, '{') && is(at + 2, '}') => whole(at + 1).map(|text| (text, at + 3)),
            None => None,
        };
        let (first, next) = argument(1)?;
        let (above, below, end) = match argument(next) {
            Some((second, end)) => (first, second, end),
            None if first.len() == 2 && next == 2 => (&first[..1], &first[1..], next),
            None => return None,
        };
        let (above, below) = (decimal_value(above)?, decimal_value(below)?);
        (above > BigRational::zero() && below > above).then(|| (above / below, self.at + end))
    }

    /// The digits under a bar, over as many nines.
    pub(super) fn repeating(&mut self, text: &str) -> Parsed {
        let digits = match (self.peek(), self.tokens.get(self.at + 1), self.tokens.get(self.at + 2)) {
            (Some(Token::Symbol('{')), Some(Lexeme { token: Token::Number(digits), .. }), Some(close))
                if close.is_symbol('}') =>
            {
                self.at += 3;
                digits
            }
            (Some(Token::Number(digits)), ..) => {
                self.at += 1;
                digits
            }
            _ => return Err(NoExpr),
        };
        if digits.len() > 100 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(NoExpr);
        }
        let (whole, decimals) = text.split_once('.').ok_or(NoExpr)?;
        let fixed = if decimals.is_empty() { decimal_value(whole) } else { decimal_value(text) }.ok_or(NoExpr)?;
        let ten = BigInt::from(10);
        let period = ten.pow(u32::try_from(digits.len()).map_err(|_| NoExpr)?) - BigInt::one();
        let shift = ten.pow(u32::try_from(decimals.len()).map_err(|_| NoExpr)?);
        let repeated = BigRational::new(digits.parse().map_err(|_| NoExpr)?, period * shift);
        Ok(Expr::Number(fixed + repeated))
    }
}
