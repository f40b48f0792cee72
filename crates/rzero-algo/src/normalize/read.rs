//! From tokens to a form: lists, sets, tuples, intervals, matrices.

use crate::algebra::expr::{Constant, Expr};
use crate::normalize::form::{Body, Form, Interval, Value};
use crate::normalize::lexer::{Lexeme, Token};
use crate::normalize::matrix;
use crate::normalize::relations::relation;
use crate::normalize::values::value;

/// Most parts of a list or tuple, and most cells of a matrix.
const MAX_PARTS: usize = 256;
/// Deepest nesting of sets and tuples.
const MAX_DEPTH: u32 = 8;

/// Reads all tokens as one form.
pub(crate) fn read(tokens: &[Lexeme]) -> Option<Form> {
    form(tokens, MAX_DEPTH)
}

pub(crate) fn is_command(lexeme: &Lexeme, name: &str) -> bool {
    matches!(&lexeme.token, Token::Command(command) if command == name)
}

fn is_connector(lexeme: &Lexeme) -> bool {
    match &lexeme.token {
        Token::Word(word) | Token::Text(word) => matches!(word.to_lowercase().as_str(), "and" | "or"),
        Token::Command(name) => matches!(name.as_str(), "lor" | "land" | "vee" | "wedge"),
        _ => false,
    }
}

/// How much deeper the brackets are behind a token. All brackets count alike, so that `[0,1)` is balanced.
pub(crate) fn depth_change(lexeme: &Lexeme) -> i32 {
    match &lexeme.token {
        Token::Symbol('(' | '[' | '{') | Token::SetOpen | Token::Begin(_) => 1,
        Token::Symbol(')' | ']' | '}') | Token::SetClose | Token::End(_) => -1,
        Token::Command(name) => match name.as_str() {
            "langle" | "lfloor" | "lceil" => 1,
            "rangle" | "rfloor" | "rceil" => -1,
            _ => 0,
        },
        _ => 0,
    }
}

/// Splits at tokens outside of all brackets; nothing where brackets are not balanced.
pub(crate) fn split<'a>(tokens: &'a [Lexeme], is_separator: &dyn Fn(&Lexeme) -> bool) -> Option<Vec<&'a [Lexeme]>> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, lexeme) in tokens.iter().enumerate() {
        depth += depth_change(lexeme);
        if depth < 0 {
            return None;
        }
        if depth == 0 && is_separator(lexeme) {
            parts.push(&tokens[start..at]);
            start = at + 1;
        }
    }
    parts.push(&tokens[start..]);
    (depth == 0 && parts.len() <= MAX_PARTS).then_some(parts)
}

/// The tokens between the first and the last, if the two are one pair of brackets.
fn inside(tokens: &[Lexeme]) -> Option<&[Lexeme]> {
    let (first, rest) = tokens.split_first()?;
    let (last, inner) = rest.split_last()?;
    if depth_change(first) != 1 || depth_change(last) != -1 {
        return None;
    }
    let mut depth = 0;
    for lexeme in inner {
        depth += depth_change(lexeme);
        if depth < 0 {
            return None;
        }
    }
    (depth == 0).then_some(inner)
}

pub(crate) fn form(tokens: &[Lexeme], depth: u32) -> Option<Form> {
    let depth = depth.checked_sub(1)?;
    if tokens.is_empty() {
        return None;
    }
    // `a, b; c, d`: groups of values.
    let groups = split(tokens, &|lexeme| lexeme.is_symbol(';'))?;
    if groups.len() > 1 {
        let groups: Vec<Form> = groups.into_iter().map(|group| form(group, depth)).collect::<Option<_>>()?;
        let groups = groups.into_iter().map(|group| match group.body {
            Body::List(parts) if group.name.is_none() => tuple(parts.iter().map(Form::bare).collect()),
            _ => group,
        });
        return Some(list(groups.collect()));
    }
    let parts = split(tokens, &|lexeme| lexeme.is_symbol(',') || is_connector(lexeme))?;
    if parts.len() > 1 {
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        let parts: Vec<Form> = parts.map(|part| form(part, depth)).collect::<Option<_>>()?;
        return if parts.is_empty() { None } else { Some(list(parts)) };
    }
    if let Some(relation) = relation(tokens, depth) {
        return relation;
    }
    let sets = split(tokens, &|lexeme| is_command(lexeme, "cup"))?;
    if sets.len() > 1 {
        let sets: Vec<Form> = sets.into_iter().map(|set| form(set, depth)).collect::<Option<_>>()?;
        return Some(union(sets));
    }
    if let Some(set) = number_set(tokens) {
        return Some(set);
    }
    if let Some(form) = bracketed(tokens, depth) {
        return Some(form);
    }
    if matches!(tokens[0].token, Token::Begin(_)) {
        return matrices(tokens, depth);
    }
    value(tokens)
}

/// Matrices with signs between them, or none for a product.
fn matrices(tokens: &[Lexeme], depth: u32) -> Option<Form> {
    let mut level = 0;
    for (at, lexeme) in tokens.iter().enumerate() {
        level += depth_change(lexeme);
        if level == 0 && at + 1 < tokens.len() && matches!(lexeme.token, Token::End(_)) {
            let (first, rest) = tokens.split_at(at + 1);
            let first = form(first, depth)?;
            let is_sum = rest[0].is_symbol('+') || rest[0].is_symbol('-');
            let is_signed = is_sum || rest[0].is_symbol('*');
            let second = form(&rest[usize::from(is_signed)..], depth)?;
            return if is_sum { matrix::sum(&first, &second, rest[0].is_symbol('-')) } else { matrix::product(&first, &second) };
        }
    }
    None
}

/// The parts of a set, each once.
fn set(mut form: Form) -> Form {
    if let Body::List(parts) = &mut form.body {
        let mut distinct: Vec<Form> = Vec::new();
        for part in std::mem::take(parts) {
            if !distinct.contains(&part) {
                distinct.push(part);
            }
        }
        *parts = distinct;
        return form;
    }
    Form::of(Body::List(vec![form]))
}

/// Parts in no order, unless one is repeated: the parts of parts that are lists as well; one part is itself.
pub(crate) fn list(parts: Vec<Form>) -> Form {
    let mut flat: Vec<Form> = Vec::new();
    for part in parts {
        let inner = match part {
            Form { body: Body::List(inner), name, .. } => {
                inner.into_iter().map(|inner| Form { name: name.clone().or(inner.name.clone()), ..inner }).collect()
            }
            other => vec![other],
        };
        flat.extend(inner);
    }
    match flat.len() {
        1 => flat.remove(0),
        // Digits may be a sequence; pairs and the like are solutions, of which each counts once.
        _ if flat.iter().all(|part| matches!(part.body, Body::Value(_))) => Form::of(Body::List(flat)),
        _ => set(Form::of(Body::List(flat))),
    }
}

fn union(sets: Vec<Form>) -> Form {
    // Of single points the union is a set.
    if sets.iter().all(|set| matches!(set.body, Body::List(_))) {
        return set(list(sets));
    }
    let flat = sets.into_iter().flat_map(|set| match set.body {
        Body::Union(inner) => inner,
        _ => vec![set],
    });
    Form::of(Body::Union(flat.collect()))
}

/// Parts in order; two values are an interval that is open at both ends, which is written in the same way.
fn tuple(mut parts: Vec<Form>) -> Form {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    if let [Form { body: Body::Value(low), .. }, Form { body: Body::Value(high), .. }] = parts.as_slice() {
        let interval = Interval { low: low.clone(), high: high.clone(), is_low_open: true, is_high_open: true };
        return Form::of(Body::Interval(Box::new(interval)));
    }
    Form::of(Body::Tuple(parts))
}

/// `\mathbb{R}` is an interval, the empty set an empty list.
fn number_set(tokens: &[Lexeme]) -> Option<Form> {
    let [Lexeme { token: Token::Command(name), .. }] = tokens else { return None };
    let infinity = || Value::new(Expr::Constant(Constant::Infinity));
    match name.as_str() {
        "emptyset" => Some(Form::of(Body::List(Vec::new()))),
        "reals" => Some(Form::of(Body::Interval(Box::new(Interval {
            low: Value::new(Expr::Constant(Constant::Infinity).negated()),
            high: infinity(),
            is_low_open: true,
            is_high_open: true,
        })))),
        "integers" | "naturals" | "rationals" | "complexes" => Some(Form::of(Body::Text(name.clone()))),
        _ => None,
    }
}

/// Tuples, intervals, sets, matrices.
fn bracketed(tokens: &[Lexeme], depth: u32) -> Option<Form> {
    let inner = inside(tokens)?;
    let (open, close) = (&tokens[0].token, &tokens[tokens.len() - 1].token);
    match (open, close) {
        (Token::SetOpen, Token::SetClose) => {
            if inner.is_empty() {
                return Some(Form::of(Body::List(Vec::new())));
            }
            Some(set(form(inner, depth)?))
        }
        (Token::Begin(kind), Token::End(_)) => matrix(kind, inner, depth),
        (Token::Symbol('{'), Token::Symbol('}')) => form(inner, depth),
        (Token::Symbol('('), Token::Symbol(')')) if inner.iter().any(|lexeme| matches!(lexeme.token, Token::Begin(_))) => {
            form(inner, depth)
        }
        (Token::Symbol('['), Token::Symbol(']')) if matches!(inner.first(), Some(Lexeme { token: Token::Begin(_), .. })) => {
            form(inner, depth)
        }
        (Token::Symbol(open @ ('(' | '[')), Token::Symbol(close @ (')' | ']'))) => {
            let parts = split(inner, &|lexeme| lexeme.is_symbol(',') || lexeme.is_symbol(';'))?;
            if parts.len() < 2 {
                return None;
            }
            let parts: Vec<Form> = parts.into_iter().map(|part| form(part, depth)).collect::<Option<_>>()?;
            if let [Form { body: Body::Value(low), .. }, Form { body: Body::Value(high), .. }] = parts.as_slice() {
                let interval = Interval {
                    low: low.clone(),
                    high: high.clone(),
                    is_low_open: *open == '(' || low.is_infinite(),
                    is_high_open: *close == ')' || high.is_infinite(),
                };
                return Some(Form::of(Body::Interval(Box::new(interval))));
            }
            (open == &'(' && close == &')' || open == &'[' && close == &']').then(|| tuple(parts))
        }
        (Token::Command(open), Token::Command(close)) if open == "langle" && close == "rangle" => {
            let parts = split(inner, &|lexeme| lexeme.is_symbol(','))?;
            Some(tuple(parts.into_iter().map(|part| form(part, depth)).collect::<Option<_>>()?))
        }
        _ => None,
    }
}

/// Rows and cells. One column is a tuple; conditions under one brace are a list.
fn matrix(kind: &str, inner: &[Lexeme], depth: u32) -> Option<Form> {
    let rows = split(inner, &|lexeme| lexeme.token == Token::RowEnd)?;
    let rows = rows.into_iter().filter(|row| !row.is_empty());
    if matches!(kind, "cases" | "aligned" | "align" | "gathered") {
        let rows: Vec<Vec<Lexeme>> =
            rows.map(|row| row.iter().filter(|lexeme| !lexeme.is_symbol('&')).cloned().collect()).collect();
        return Some(list(rows.iter().map(|row| form(row, depth)).collect::<Option<_>>()?));
    }
    let rows: Vec<Vec<Form>> = rows
        .map(|row| split(row, &|lexeme| lexeme.is_symbol('&'))?.into_iter().map(|cell| form(cell, depth)).collect())
        .collect::<Option<_>>()?;
    let width = rows.first()?.len();
    if rows.iter().any(|row| row.len() != width) || rows.len() * width > MAX_PARTS {
        return None;
    }
    if width == 1 && rows.len() > 1 {
        return Some(tuple(rows.into_iter().flatten().collect()));
    }
    Some(Form::of(Body::Matrix(rows)))
}
