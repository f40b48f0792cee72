//! Values: an expression with its unit, digits in groups or in a base, ratios, times.

use crate::algebra::expr::{Expr, Function};
use crate::normalize::form::{Body, Form, Value};
use crate::normalize::lexer::{Lexeme, Token};
use crate::normalize::literal::decimal_value;
use crate::normalize::parser::parse_expr;
use crate::normalize::read::{depth_change, list, split};
use crate::normalize::words::{is_unit, unit_name};

/// An expression with the unit behind it.
pub(crate) fn value(tokens: &[Lexeme]) -> Option<Form> {
    if let Some(form) = ratio(tokens).or_else(|| based(tokens)) {
        return Some(form);
    }
    if let Some(grouped) = grouped_digits(tokens) {
        return Some(Form::value(grouped));
    }
    let (expr_tokens, unit) = split_unit(tokens);
    let expr = parse_expr(expr_tokens).ok()?;
    let (expr, unit) = match (expr, unit) {
        (Expr::Percent(inner), None) => (*inner, Some("%".to_owned())),
        (Expr::Degrees(inner), None) => (*inner, Some("°".to_owned())),
        (expr, unit) => (expr, unit.and_then(|unit| unit_name(&unit))),
    };
    let readings = expr.readings();
    let forms = readings.into_iter().map(|reading| Form { unit: unit.clone(), ..Form::value(reading) });
    Some(list(forms.collect()))
}

/// `12 345`: digits in groups of three, and nothing else.
fn grouped_digits(tokens: &[Lexeme]) -> Option<Expr> {
    if tokens.len() < 2 {
        return None;
    }
    let mut digits = String::new();
    for (at, lexeme) in tokens.iter().enumerate() {
        let Token::Number(group) = &lexeme.token else { return None };
        let is_group = group.bytes().all(|digit| digit.is_ascii_digit())
            && if at == 0 { (1..=3).contains(&group.len()) && !group.starts_with('0') } else { group.len() == 3 };
        if !is_group {
            return None;
        }
        digits.push_str(group);
    }
    decimal_value(&digits).map(Expr::Number)
}

/// `4210_7`: digits with a base; with the base 10 they are a number.
fn based(tokens: &[Lexeme]) -> Option<Form> {
    let (digits, rest) = match tokens {
        [Lexeme { token: Token::Number(digits), .. }, low, rest @ ..] if low.is_symbol('_') => (digits, rest),
        _ => return None,
    };
    let base: u32 = match rest {
        [Lexeme { token: Token::Number(base), .. }] => base.parse().ok()?,
        [open, Lexeme { token: Token::Number(base), .. }, close] if open.is_symbol('{') && close.is_symbol('}') => {
            base.parse().ok()?
        }
        _ => return None,
    };
    let digits = digits.replace(',', "");
    let is_in_base = (2..=36).contains(&base) && digits.chars().all(|digit| digit.is_digit(base));
    match (is_in_base, base) {
        (false, _) => None,
        (true, 10) => decimal_value(&digits).map(|number| Form::value(Expr::Number(number))),
        (true, _) => Some(Form::of(Body::Based(digits.trim_start_matches('0').to_owned(), base))),
    }
}

/// `2:3`, `4:30`, `1:2:3`.
fn ratio(tokens: &[Lexeme]) -> Option<Form> {
    let parts = split(tokens, &|lexeme| lexeme.is_symbol(':'))?;
    if parts.len() < 2 {
        return None;
    }
    let (first, rest) = (parts[0], &parts[1..]);
    if let ([Lexeme { token: Token::Number(hours), .. }], [[Lexeme { token: Token::Number(minutes), .. }, half @ ..]]) =
        (first, rest)
        && minutes.len() == 2
        && let (Ok(hours @ 0..=24), Ok(minutes @ 0..=59)) = (hours.parse::<u32>(), minutes.parse::<u32>())
    {
        let is_half = |lexeme: &Lexeme| match &lexeme.token {
            Token::Word(word) | Token::Text(word) => matches!(word.to_lowercase().replace('.', "").as_str(), "am" | "pm"),
            _ => false,
        };
        let unit = match half {
            [] => None,
            [lexeme @ Lexeme { token: Token::Word(word) | Token::Text(word), .. }] if is_half(lexeme) => {
                Some(word.to_lowercase().replace('.', ""))
            }
            _ => return None,
        };
        return Some(Form { unit, ..Form::of(Body::Time(hours, minutes)) });
    }
    let values: Vec<Expr> = parts.iter().map(|part| parse_expr(part).ok()).collect::<Option<_>>()?;
    if let [above, below] = values.as_slice() {
        let form = Form::value(Expr::quotient(above.clone(), below.clone()));
        return Some(Form { unit: None, ..form });
    }
    Some(Form::of(Body::Ratio(values.into_iter().map(Value::new).collect())))
}

/// The tokens of a value and the text of the unit behind it.
fn split_unit(tokens: &[Lexeme]) -> (&[Lexeme], Option<String>) {
    // What comes from a number on: a unit needs one before it.
    let Some(first_number) = tokens.iter().position(|lexeme| matches!(lexeme.token, Token::Number(_))) else {
        return (tokens, None);
    };
    let has_variable = |tokens: &[Lexeme]| tokens.iter().any(|lexeme| matches!(lexeme.token, Token::Word(_)));
    for at in first_number + 1..tokens.len() {
        let rest = &tokens[at..];
        let begins = match &rest[0].token {
            Token::Text(text) => !matches!(text.as_str(), "sin" | "cos" | "tan" | "ln" | "log"),
            Token::Word(word) => {
                let is_apart = rest[0].is_spaced && !has_variable(&tokens[..at]) && !tokens[at - 1].is_symbol('*');
                let is_long = word.len() > 3 && Function::named(word).is_none() && word != "sqrt";
                is_unit(word, is_apart) || is_long
            }
            _ => false,
        };
        let is_ordinal =
            at == 1 && matches!(&rest[0].token, Token::Word(word) if matches!(word.as_str(), "st" | "nd" | "rd" | "th"));
        if is_ordinal && rest.len() == 1 {
            return (&tokens[..at], None);
        }
        if begins
            && depth_at(tokens, at) == 0
            && let Some(unit) = unit_text(rest)
        {
            return (&tokens[..at], Some(unit));
        }
    }
    (tokens, None)
}

fn depth_at(tokens: &[Lexeme], at: usize) -> i32 {
    tokens[..at].iter().map(depth_change).sum()
}

/// The text of a unit: words, powers, quotients.
fn unit_text(tokens: &[Lexeme]) -> Option<String> {
    let mut text = String::new();
    for lexeme in tokens {
        if lexeme.is_spaced && !text.is_empty() {
            text.push(' ');
        }
        match &lexeme.token {
            Token::Word(word) | Token::Text(word) | Token::Number(word) => text.push_str(word),
            Token::Symbol(symbol @ ('^' | '/' | '-')) => text.push(*symbol),
            Token::Symbol('{' | '}') => {}
            Token::Symbol('*') => text.push(' '),
            _ => return None,
        }
    }
    // `dollars per 3 hours and 5`: what is no unit is too long to be one.
    (text.len() <= 60).then_some(text)
}
