//! Letters: functions, numbers with names, variables with their subscripts and primes.

use super::{NoExpr, Parsed, Parser};
use crate::algebra::expr::{Constant, Expr, Function};
use crate::normalize::lexer::Token;

/// Short words that are no products of variables.
const WORDS: [&str; 24] = [
    "am", "an", "as", "at", "be", "by", "do", "go", "he", "if", "in", "is", "it", "me", "my", "no", "of", "on", "or", "so", "to",
    "up", "us", "we",
];

impl Parser<'_> {
    /// A run of letters: a function, a number with a name, variables.
    pub(super) fn word(&mut self, word: &str) -> Parsed {
        if let Some(function) = Function::named(word) {
            return self.call(function);
        }
        match word {
            "pi" => return Ok(Expr::Constant(Constant::Pi)),
            "inf" | "infinity" | "Infinity" | "oo" => return Ok(Expr::Constant(Constant::Infinity)),
            "sqrt" => return self.square_root(),
            "exp" => return Ok(Expr::power(Expr::Constant(Constant::E), self.call_argument()?)),
            "e" => return Ok(Expr::Constant(Constant::E)),
            "i" if !self.is_at('_') => return Ok(Expr::Constant(Constant::I)),
            _ => {}
        }
        let is_upper = word.bytes().all(|letter| letter.is_ascii_uppercase());
        if word.len() == 1 || is_upper {
            return self.variable(word.to_owned());
        }
        if word.len() > 3 || WORDS.contains(&word) || !word.is_ascii() {
            return Err(NoExpr);
        }
        // A few letters in a row are a product of variables; the last of them takes a subscript.
        let (first, last) = word.split_at(word.len() - 1);
        let mut factors: Vec<Expr> = first
            .chars()
            .map(|letter| match letter {
                'e' => Expr::Constant(Constant::E),
                'i' => Expr::Constant(Constant::I),
                _ => Expr::Variable(letter.to_string()),
            })
            .collect();
        factors.push(self.word(last)?);
        // `xy^2` is `x y^2`: the power belongs to the last letter, so the others must be factors before it.
        if self.is_at('^') || self.is_at('!') {
            let last = factors.pop().ok_or(NoExpr)?;
            self.at += 1;
            let last = if self.tokens[self.at - 1].is_symbol('!') {
                Expr::Call(Function::Factorial, Box::new(last))
            } else {
                Expr::power(last, self.exponent()?)
            };
            factors.push(last);
        }
        Ok(Expr::Product(factors))
    }

    /// A variable with its subscript and primes, or a function that is applied.
    pub(super) fn variable(&mut self, mut name: String) -> Parsed {
        loop {
            if self.accept('_') {
                let subscript = self.subscript()?;
                name = format!("{name}_{{{subscript}}}");
            } else if self.accept('\'') {
                name.push('\'');
            } else if self.is_at('^') && self.tokens.get(self.at + 1).is_some_and(|next| next.is_symbol('\'')) {
                self.at += 2;
                name.push('\'');
            } else if self.is_at('^')
                && self.tokens.get(self.at + 1).is_some_and(|next| next.is_symbol('{'))
                && self.tokens.get(self.at + 2).is_some_and(|next| next.is_symbol('\''))
                && self.tokens.get(self.at + 3).is_some_and(|next| next.is_symbol('}'))
            {
                self.at += 4;
                name.push('\'');
            } else {
                break;
            }
        }
        let is_function = matches!(name.trim_end_matches('\'').split('_').next(), Some("f" | "g" | "h" | "F" | "G" | "W"));
        if is_function && self.is_at('(') {
            self.at += 1;
            let mut arguments = vec![self.sum()?];
            while self.accept(',') {
                arguments.push(self.sum()?);
            }
            self.expect(')')?;
            return Ok(Expr::Apply(name, arguments));
        }
        Ok(Expr::Variable(name))
    }

    /// A subscript as text, without white space and braces around it.
    pub(super) fn subscript(&mut self) -> Result<String, NoExpr> {
        let start = self.at;
        let mut depth = 0_u32;
        let mut text = String::new();
        while let Some(token) = self.peek() {
            self.at += 1;
            match token {
                Token::Symbol('{') => depth += 1,
                Token::Symbol('}') => depth = depth.checked_sub(1).ok_or(NoExpr)?,
                Token::Symbol(symbol) => text.push(*symbol),
                Token::Number(part) | Token::Word(part) | Token::Text(part) => text.push_str(part),
                Token::Command(name) => text.push_str(&format!("\\{name} ")),
                _ => return Err(NoExpr),
            }
            if depth == 0 {
                break;
            }
        }
        if depth > 0 || self.at == start || text.is_empty() { Err(NoExpr) } else { Ok(text.trim().to_owned()) }
    }
}
