//! Expressions and polynomials as text that reads back as what was printed.

use crate::algebra::expr::{Constant, Expr};
use crate::algebra::polynomial::{Atom, Exponent, Monomial, Polynomial};
use num_rational::BigRational;
use num_traits::{One, Signed};

/// A rational number as `n` or `n/d`.
pub(crate) fn print_rational(number: &BigRational) -> String {
    if number.denom().is_one() { number.numer().to_string() } else { format!("{}/{}", number.numer(), number.denom()) }
}

/// A polynomial, the highest powers of its variables first.
pub(crate) fn print_polynomial(polynomial: &Polynomial) -> String {
    if polynomial.is_zero() {
        return "0".to_owned();
    }
    let degree = |monomial: &Monomial| -> Exponent {
        monomial.iter().filter(|(atom, _)| !atom.is_number()).map(|(_, exponent)| exponent).sum()
    };
    let mut terms: Vec<(&Monomial, &BigRational)> = polynomial.terms().collect();
    terms.sort_by(|left, right| {
        degree(right.0)
            .cmp(&degree(left.0))
            .then(right.0.is_empty().cmp(&left.0.is_empty()).reverse())
            .then_with(|| left.0.cmp(right.0))
    });
    let mut text = String::new();
    for (index, (monomial, coefficient)) in terms.into_iter().enumerate() {
        let size = coefficient.abs();
        match (index, coefficient.is_negative()) {
            (0, false) => {}
            (0, true) => text.push('-'),
            (_, false) => text.push_str(" + "),
            (_, true) => text.push_str(" - "),
        }
        let factors: Vec<String> = monomial.iter().map(print_factor).collect();
        if factors.is_empty() {
            text.push_str(&print_rational(&size));
        } else if size.is_one() {
            text.push_str(&factors.join("*"));
        } else if size.numer().is_one() {
            text.push_str(&format!("{}/{}", factors.join("*"), size.denom()));
        } else if size.denom().is_one() {
            text.push_str(&format!("{}*{}", size.numer(), factors.join("*")));
        } else {
            text.push_str(&format!("{}*{}/{}", size.numer(), factors.join("*"), size.denom()));
        }
    }
    text
}

fn print_factor((atom, exponent): &(Atom, Exponent)) -> String {
    let name = match atom {
        Atom::Imaginary => "i".to_owned(),
        Atom::Prime(prime) if *exponent == Exponent::new(1, 2) => return format!("sqrt({prime})"),
        Atom::Prime(prime) => prime.to_string(),
        Atom::LnPrime(prime) => format!("ln({prime})"),
        Atom::Pi => "pi".to_owned(),
        Atom::E => "e".to_owned(),
        Atom::Infinity => "inf".to_owned(),
        Atom::Variable(name) | Atom::Opaque(name) => name.clone(),
    };
    match exponent {
        _ if exponent.is_one() => name,
        _ if exponent.is_integer() && exponent.is_positive() => format!("{name}^{exponent}"),
        _ => format!("{name}^({exponent})"),
    }
}

/// An expression. Sums and products are sorted, so that the order of their parts does not show.
pub(crate) fn print_expr(expr: &Expr) -> String {
    print_at(expr, 0)
}

/// Binding strength of what surrounds: 0 nothing, 1 a sum, 2 a product, 3 a power.
fn print_at(expr: &Expr, around: u8) -> String {
    let enclosed = |strength: u8, text: String| if strength <= around && around > 0 { format!("({text})") } else { text };
    match expr {
        Expr::Number(number) => {
            let text = print_rational(number);
            let is_plain = number.denom().is_one() && !number.is_negative();
            if is_plain { text } else { enclosed(if number.is_negative() { 1 } else { 2 }, text) }
        }
        Expr::Constant(Constant::Pi) => "pi".to_owned(),
        Expr::Constant(Constant::E) => "e".to_owned(),
        Expr::Constant(Constant::I) => "i".to_owned(),
        Expr::Constant(Constant::Infinity) => "inf".to_owned(),
        Expr::Variable(name) => name.clone(),
        Expr::Sum(parts) => {
            let mut parts: Vec<String> = parts.iter().map(|part| print_at(part, 1)).collect();
            parts.sort();
            enclosed(1, parts.join(" + "))
        }
        Expr::Product(parts) => {
            let mut parts: Vec<String> = parts.iter().map(|part| print_at(part, 2)).collect();
            parts.sort();
            enclosed(2, parts.join("*"))
        }
        Expr::Power(pair) => enclosed(3, format!("{}^({})", print_at(&pair.0, 3), print_at(&pair.1, 0))),
        Expr::Call(function, part) => format!("{}({})", function.name(), print_at(part, 0)),
        Expr::Log(pair) => format!("log_{{{}}}({})", print_at(&pair.0, 0), print_at(&pair.1, 0)),
        Expr::Binomial(pair) => format!("\\binom{{{}}}{{{}}}", print_at(&pair.0, 0), print_at(&pair.1, 0)),
        Expr::Apply(name, parts) => {
            let parts: Vec<String> = parts.iter().map(|part| print_at(part, 0)).collect();
            format!("{name}({})", parts.join(", "))
        }
        Expr::Big(big) => format!(
            "\\{}_{{{}={}}}^{{{}}}({})",
            big.operator.name(),
            big.variable,
            print_at(&big.low, 0),
            print_at(&big.high, 0),
            print_at(&big.body, 0)
        ),
        Expr::PlusMinus(part, is_minus) => {
            enclosed(1, format!("\\{} {}", if *is_minus { "mp" } else { "pm" }, print_at(part, 2)))
        }
        Expr::Degrees(part) => format!("{}°", print_at(part, 3)),
        Expr::Percent(part) => format!("{}%", print_at(part, 3)),
    }
}
