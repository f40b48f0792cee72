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
        // 4\frac{2}{3}
        let is_whole = text.bytes().all(|digit| digit.is_ascii_digit() || digit == b',');
        if is_whole && matches!(self.peek(), Some(Token::Command(name)) if name == "frac") {
            let before = self.at;
            self.at += 1;
            match self.fraction() {
                Ok((Expr::Number(above), Expr::Number(below)))
                    if above.is_integer() && below.is_integer() && above > BigRational::zero() && below > above =>
                {
                    return Ok(Expr::Number(value + above / below));
                }
                _ => self.at = before,
            }
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
