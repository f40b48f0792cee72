//! From tokens to an expression, by precedence climbing: sums, products (implied ones as well), signs, powers, what stands behind.
//!
//! A product without a sign binds as one with it: `1/2x` is `(1/2) x`, read from the left, as public graders do.

mod calls;
mod names;
mod numbers;

use crate::algebra::expr::{BigOperator, Constant, Expr, Function};
use crate::normalize::lexer::{Lexeme, Token};
use crate::normalize::literal::decimal_value;

/// The tokens are no expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoExpr;

type Parsed = Result<Expr, NoExpr>;

/// Most factors of a product.
const MAX_FACTORS: usize = 100;
/// Deepest nesting.
const MAX_DEPTH: u32 = 40;
/// Greek letters, which are variables; pi is a number.
const GREEK: [&str; 40] = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "varepsilon",
    "zeta",
    "eta",
    "theta",
    "vartheta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "rho",
    "varrho",
    "sigma",
    "tau",
    "upsilon",
    "phi",
    "varphi",
    "chi",
    "psi",
    "omega",
    "Gamma",
    "Delta",
    "Theta",
    "Lambda",
    "Xi",
    "Pi",
    "Sigma",
    "Phi",
    "Psi",
    "Omega",
    "hbar",
    "ell",
    "partial",
    "nabla",
];
/// Marks above or before a name, which become part of it.
const MARKS: [&str; 14] = [
    "overline",
    "bar",
    "hat",
    "widehat",
    "vec",
    "overrightarrow",
    "tilde",
    "widetilde",
    "dot",
    "angle",
    "triangle",
    "operatorname",
    "underline",
    "mathring",
];
/// Reads all the tokens as one expression.
pub(crate) fn parse_expr(tokens: &[Lexeme]) -> Parsed {
    let mut parser = Parser { tokens, at: 0, depth: 0, open_bars: 0 };
    let expr = parser.sum_over()?;
    if parser.at == tokens.len() { Ok(expr) } else { Err(NoExpr) }
}

pub(crate) struct Parser<'a> {
    tokens: &'a [Lexeme],
    at: usize,
    depth: u32,
    open_bars: u32,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at).map(|lexeme| &lexeme.token)
    }

    fn is_at(&self, symbol: char) -> bool {
        self.peek() == Some(&Token::Symbol(symbol))
    }

    fn accept(&mut self, symbol: char) -> bool {
        let is_it = self.is_at(symbol);
        self.at += usize::from(is_it);
        is_it
    }

    fn expect(&mut self, symbol: char) -> Result<(), NoExpr> {
        if self.accept(symbol) { Ok(()) } else { Err(NoExpr) }
    }

    fn accept_command(&mut self, name: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Token::Command(command)) if command == name);
        self.at += usize::from(is_it);
        is_it
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Parsed) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(NoExpr);
        }
        let expr = read(self);
        self.depth -= 1;
        expr
    }

    fn sum(&mut self) -> Parsed {
        self.nested(|parser| {
            let mut terms = vec![parser.signed_term()?];
            loop {
                if parser.accept('+') {
                    terms.push(parser.product()?);
                } else if parser.accept('-') {
                    terms.push(parser.product()?.negated());
                } else if parser.accept_command("pm") {
                    terms.push(Expr::PlusMinus(Box::new(parser.product()?), false));
                } else if parser.accept_command("mp") {
                    terms.push(Expr::PlusMinus(Box::new(parser.product()?), true));
                } else {
                    break;
                }
            }
            Ok(if terms.len() == 1 { terms.remove(0) } else { Expr::Sum(terms) })
        })
    }

    fn signed_term(&mut self) -> Parsed {
        self.nested(|parser| {
            if parser.accept('-') {
                Ok(parser.signed_term()?.negated())
            } else if parser.accept('+') {
                parser.signed_term()
            } else if parser.accept_command("pm") {
                Ok(Expr::PlusMinus(Box::new(parser.product()?), false))
            } else if parser.accept_command("mp") {
                Ok(Expr::PlusMinus(Box::new(parser.product()?), true))
            } else {
                parser.product()
            }
        })
    }

    fn product(&mut self) -> Parsed {
        let mut factors = vec![self.factor()?];
        loop {
            if self.accept('*') {
                factors.push(self.signed_factor()?);
            } else if self.accept('/') || self.accept(':') {
                factors.push(self.signed_factor()?.inverted());
            } else if self.starts_factor(&factors) {
                factors.push(self.factor()?);
            } else {
                break;
            }
        }
        if factors.len() > MAX_FACTORS {
            return Err(NoExpr);
        }
        // `a/b` of two numbers is one number.
        if let [Expr::Number(above), Expr::Number(below)] = factors.as_slice() {
            return Ok(Expr::Number(above * below));
        }
        Ok(if factors.len() == 1 { factors.remove(0) } else { Expr::Product(factors) })
    }

    fn signed_factor(&mut self) -> Parsed {
        self.nested(|parser| {
            if parser.accept('-') {
                Ok(parser.signed_factor()?.negated())
            } else if parser.accept('+') {
                parser.signed_factor()
            } else {
                parser.factor()
            }
        })
    }

    /// Whether the next token begins a factor without a sign of multiplication before it.
    fn starts_factor(&self, factors: &[Expr]) -> bool {
        let Some(token) = self.peek() else { return false };
        match token {
            // `2 3` is no product; `2^6 3^5` is one.
            Token::Number(_) => !matches!(factors.last(), Some(Expr::Number(_)) | None),
            Token::Symbol('(' | '{' | '[') => true,
            Token::Symbol('|') => self.open_bars == 0,
            Token::Word(_) => true,
            Token::Command(name) => self.is_primary_command(name),
            _ => false,
        }
    }

    fn is_primary_command(&self, name: &str) -> bool {
        GREEK.contains(&name)
            || MARKS.contains(&name)
            || Function::named(name).is_some()
            || matches!(
                name,
                "frac"
                    | "sqrt"
                    | "cbrt"
                    | "pi"
                    | "infty"
                    | "binom"
                    | "exp"
                    | "lg"
                    | "sum"
                    | "prod"
                    | "int"
                    | "lfloor"
                    | "lceil"
                    | "max"
                    | "min"
                    | "gcd"
            )
    }

    /// A power and what stands behind it.
    fn factor(&mut self) -> Parsed {
        self.nested(|parser| {
            let mut base = parser.primary()?;
            loop {
                if parser.accept('^') {
                    // An angle: `90^\circ`.
                    if let Some(end) = parser.degree_sign() {
                        parser.at = end;
                        base = Expr::Degrees(Box::new(base));
                        continue;
                    }
                    let exponent = parser.exponent()?;
                    base = Expr::power(base, exponent);
                } else if parser.accept('!') {
                    base = Expr::Call(Function::Factorial, Box::new(base));
                } else if parser.accept('%') {
                    base = Expr::Percent(Box::new(base));
                } else if parser.accept('°') || parser.accept_command("circ") {
                    base = Expr::Degrees(Box::new(base));
                } else {
                    return Ok(base);
                }
            }
        })
    }

    /// The end of a degree sign at this place, braces included.
    fn degree_sign(&self) -> Option<usize> {
        let is_sign = |at: usize| {
            self.tokens.get(at).is_some_and(|lexeme| match &lexeme.token {
                Token::Command(name) => name == "circ",
                Token::Symbol(symbol) => *symbol == '°',
                _ => false,
            })
        };
        let is = |at: usize, symbol: char| self.tokens.get(at).is_some_and(|lexeme| lexeme.is_symbol(symbol));
        if is_sign(self.at) {
            return Some(self.at + 1);
        }
        (is(self.at, '{') && is_sign(self.at + 1) && is(self.at + 2, '}')).then_some(self.at + 3)
    }

    fn exponent(&mut self) -> Parsed {
        self.nested(|parser| {
            if parser.accept('-') {
                return Ok(parser.exponent()?.negated());
            }
            if parser.accept('+') {
                return parser.exponent();
            }
            let base = parser.primary()?;
            // Powers associate to the right: 3^2^2 = 3^(2^2).
            if parser.is_at('^') && parser.degree_sign().is_none() {
                parser.at += 1;
                let exponent = parser.exponent()?;
                return Ok(Expr::power(base, exponent));
            }
            Ok(base)
        })
    }

    fn primary(&mut self) -> Parsed {
        self.nested(|parser| parser.primary_inside())
    }

    fn primary_inside(&mut self) -> Parsed {
        let token = self.peek().ok_or(NoExpr)?;
        self.at += 1;
        match token {
            Token::Number(text) => self.number(text),
            Token::Word(word) => self.word(word),
            Token::Command(name) => self.command(name),
            Token::Symbol('(') => {
                let inner = self.sum()?;
                self.expect(')')?;
                Ok(inner)
            }
            Token::Symbol('[') => {
                let inner = self.sum()?;
                self.expect(']')?;
                Ok(inner)
            }
            Token::Symbol('{') => self.rest_of_group(),
            Token::Symbol('|') => {
                self.open_bars += 1;
                let inner = self.sum()?;
                self.open_bars -= 1;
                self.expect('|')?;
                Ok(Expr::Call(Function::Abs, Box::new(inner)))
            }
            Token::Text(text) => self.word(text),
            _ => Err(NoExpr),
        }
    }

    /// Behind `{`, up to its `}`.
    fn rest_of_group(&mut self) -> Parsed {
        let bars = std::mem::take(&mut self.open_bars);
        let inner = self.sum_over()?;
        self.open_bars = bars;
        self.expect('}')?;
        Ok(inner)
    }

    /// A sum, `a \over b`, `n \choose k`.
    fn sum_over(&mut self) -> Parsed {
        let above = self.sum()?;
        if self.accept_command("over") {
            return Ok(Expr::quotient(above, self.sum()?));
        }
        if self.accept_command("choose") {
            return Ok(Expr::Binomial(Box::new((above, self.sum()?))));
        }
        Ok(above)
    }

    /// The argument of a LaTeX command: a group, or one token, of which a number gives one digit.
    fn argument(&mut self) -> Parsed {
        self.nested(|parser| match parser.peek().ok_or(NoExpr)? {
            Token::Symbol('{') => {
                parser.at += 1;
                parser.rest_of_group()
            }
            Token::Symbol('(') => parser.primary_inside(),
            Token::Number(text) => {
                parser.at += 1;
                decimal_value(text).map(Expr::Number).ok_or(NoExpr)
            }
            Token::Word(word) if word.len() > 1 && Function::named(word).is_none() && word != "pi" => Err(NoExpr),
            _ => parser.primary_inside(),
        })
    }

    fn square_root(&mut self) -> Parsed {
        let degree = if self.accept('[') {
            let degree = self.sum()?;
            self.expect(']')?;
            degree
        } else {
            Expr::integer(2)
        };
        Ok(Expr::root(self.argument()?, degree))
    }

    fn command(&mut self, name: &str) -> Parsed {
        if let Some(function) = Function::named(name) {
            return self.call(function);
        }
        match name {
            "frac" => self.fraction().map(|(above, below)| Expr::quotient(above, below)),
            "sqrt" => self.square_root(),
            "cbrt" => Ok(Expr::root(self.argument()?, Expr::integer(3))),
            "pi" => Ok(Expr::Constant(Constant::Pi)),
            "infty" => Ok(Expr::Constant(Constant::Infinity)),
            "exp" => Ok(Expr::power(Expr::Constant(Constant::E), self.call_argument()?)),
            "lg" => Ok(Expr::Log(Box::new((Expr::integer(10), self.call_argument()?)))),
            "binom" => Ok(Expr::Binomial(Box::new((self.argument()?, self.argument()?)))),
            "lfloor" | "lceil" => {
                let inner = self.sum()?;
                let (close, function) = if name == "lfloor" { ("rfloor", Function::Floor) } else { ("rceil", Function::Ceil) };
                if self.accept_command(close) { Ok(Expr::Call(function, Box::new(inner))) } else { Err(NoExpr) }
            }
            "sum" => self.big(BigOperator::Sum),
            "prod" => self.big(BigOperator::Product),
            "int" => self.big(BigOperator::Integral),
            "max" | "min" | "gcd" => {
                self.expect('(')?;
                let mut arguments = vec![self.sum()?];
                while self.accept(',') {
                    arguments.push(self.sum()?);
                }
                self.expect(')')?;
                Ok(Expr::Apply(format!("\\{name}"), arguments))
            }
            _ if GREEK.contains(&name) => self.variable(format!("\\{name}")),
            _ if MARKS.contains(&name) => {
                // What stands under a mark is one name. A bar over a number is no number.
                let marked = self.subscript()?;
                self.variable(format!("\\{name}{{{marked}}}"))
            }
            _ => Err(NoExpr),
        }
    }
}
