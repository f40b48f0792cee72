//! Equations, inequalities, memberships, and the names before them.

use crate::algebra::expr::Function;
use crate::normalize::form::{Body, Form, Name, Order, Relation, Value};
use crate::normalize::lexer::{Lexeme, Token};
use crate::normalize::parser::parse_expr;
use crate::normalize::read::{depth_change, form, is_command, split};
use crate::normalize::solve::solved;

/// What a sign between two sides says; whether the sides change places.
fn order(lexeme: &Lexeme) -> Option<(Order, bool)> {
    match &lexeme.token {
        Token::Symbol('=') => Some((Order::Equal, false)),
        Token::Symbol('<') => Some((Order::Less, false)),
        Token::Symbol('>') => Some((Order::Less, true)),
        Token::Command(name) => match name.as_str() {
            "le" => Some((Order::LessOrEqual, false)),
            "ge" => Some((Order::LessOrEqual, true)),
            "ne" => Some((Order::NotEqual, false)),
            "equiv" => Some((Order::Equal, false)),
            _ => None,
        },
        _ => None,
    }
}

/// A relation, if there is a sign of one outside of all brackets; the inner nothing says that it cannot be read.
pub(crate) fn relation(tokens: &[Lexeme], depth: u32) -> Option<Option<Form>> {
    let is_sign = |lexeme: &Lexeme| order(lexeme).is_some() || is_command(lexeme, "in") || is_command(lexeme, "approx");
    let sides = split(tokens, &is_sign)?;
    if sides.len() < 2 {
        return None;
    }
    let mut signs: Vec<&Lexeme> = Vec::new();
    let mut end = 0;
    for side in &sides[..sides.len() - 1] {
        end += side.len();
        signs.push(&tokens[end]);
        end += 1;
    }
    Some(read_relation(&sides, &signs, depth))
}

fn read_relation(sides: &[&[Lexeme]], signs: &[&Lexeme], depth: u32) -> Option<Form> {
    if signs.iter().all(|sign| is_command(sign, "in")) {
        let [element, set] = sides else { return None };
        let mut form = form(set, depth)?;
        form.name = Some(Name { is_member: true, ..name_of(element)? });
        return Some(form);
    }
    if signs.iter().all(|sign| sign.is_symbol('=') || is_command(sign, "approx") || is_command(sign, "equiv")) {
        return equation(sides, signs, depth);
    }
    let (mut values, mut orders, mut turns) = (Vec::new(), Vec::new(), Vec::new());
    for side in sides {
        values.push(Value::new(parse_expr(side).ok()?));
    }
    for sign in signs {
        let (order, is_turned) = order(sign)?;
        orders.push(order);
        turns.push(is_turned);
    }
    if turns.iter().any(|turn| *turn) {
        if !turns.iter().zip(&orders).all(|(turn, order)| *turn || matches!(order, Order::Equal | Order::NotEqual)) {
            return None;
        }
        values.reverse();
        orders.reverse();
    }
    let relation = Relation { sides: values, orders };
    Some(solved(&relation).unwrap_or_else(|| Form::of(Body::Relation(Box::new(relation)))))
}

/// Equal sides: a name and what it stands for, a calculation that ends in its result, or an equation between variables.
fn equation(sides: &[&[Lexeme]], signs: &[&Lexeme], depth: u32) -> Option<Form> {
    // What stands behind the last sign of approximation only repeats the result, unless it is the result.
    let is_approximate = |sign: &&&Lexeme| is_command(sign, "approx");
    let num_exact = 1 + signs.iter().take_while(|sign| !is_approximate(sign)).count();
    let has_name = sides[0].is_empty() || name_of(sides[0]).is_some();
    let kept = if num_exact > usize::from(has_name) { &sides[..num_exact.max(1)] } else { sides };
    if kept.len() == 1 {
        return if sides[0].is_empty() || has_name { form(sides.get(1)?, depth) } else { form(kept[0], depth) };
    }
    let last = kept[kept.len() - 1];
    if has_name {
        if let Some(mut form) = form(last, depth) {
            let name = name_of(sides[0]);
            let is_own = |form: &Form| matches!((&form.body, &name), (Body::Value(value), Some(name)) if value.expr.has_variable(&name.text));
            if !is_own(&form) {
                if let Body::List(parts) = &mut form.body {
                    for part in parts.iter_mut().filter(|part| part.name.is_none()) {
                        part.name.clone_from(&name);
                    }
                } else if form.name.is_none() {
                    form.name = name;
                }
                return Some(form);
            }
        }
    } else if let (Some(name), [first, _]) = (name_of(last), kept) {
        // `5 = x`.
        if let Some(mut form) = form(first, depth)
            && matches!(&form.body, Body::Value(value) if value.expr.is_constant())
        {
            form.name = Some(name);
            return Some(form);
        }
    }
    let values: Vec<Value> = kept.iter().map(|side| parse_expr(side).ok().map(Value::new)).collect::<Option<_>>()?;
    if values.iter().all(|value| value.expr.is_constant()) {
        return form(last, depth);
    }
    let orders = vec![Order::Equal; values.len() - 1];
    Some(Form::of(Body::Relation(Box::new(Relation { sides: values, orders }))))
}

/// What a side is called, if it is a name: a variable, a function of variables, a tuple or a ratio of names.
fn name_of(tokens: &[Lexeme]) -> Option<Name> {
    let mut text = String::new();
    let mut is_subscript = 0_u32;
    let mut parameter = None;
    for (at, lexeme) in tokens.iter().enumerate() {
        match &lexeme.token {
            Token::Symbol('_') => {
                text.push('_');
                is_subscript += u32::from(tokens.get(at + 1).is_some_and(|next| !next.is_symbol('{')));
                continue;
            }
            Token::Symbol('{') => {
                let follows_subscript = at > 0 && tokens[at - 1].is_symbol('_');
                is_subscript += u32::from(follows_subscript || is_subscript > 0);
            }
            Token::Symbol('}') => is_subscript = is_subscript.saturating_sub(1),
            Token::Symbol(symbol @ ('(' | ')' | ',' | '\'' | ':' | '/')) => text.push(*symbol),
            Token::Symbol(symbol @ ('+' | '-')) if is_subscript > 0 => text.push(*symbol),
            Token::Number(number) if is_subscript > 0 || inside_parentheses(&tokens[..at]) => text.push_str(number),
            Token::Word(word) | Token::Text(word) => {
                let is_function = Function::named(word).is_some();
                let is_product = word.len() > 1 && word.len() <= 3 && word.bytes().all(|letter| letter.is_ascii_lowercase());
                if is_subscript == 0 && (is_function || is_product) {
                    return None;
                }
                text.push_str(word);
            }
            Token::Command(name) => match name.as_str() {
                "frac" | "angle" | "triangle" | "overline" | "bar" | "vec" | "overrightarrow" | "hat" | "circ" => {
                    text.push_str(name)
                }
                _ if Function::named(name).is_some() => return None,
                "sqrt" | "pi" | "infty" | "cup" | "pm" | "mp" | "sum" | "prod" | "int" => return None,
                _ => text.push_str(&format!("\\{name}")),
            },
            _ => return None,
        }
        let is_single = !matches!(lexeme.token, Token::Symbol(_));
        if is_single && is_subscript > 0 && at > 0 && tokens[at - 1].is_symbol('_') {
            is_subscript -= 1;
        }
    }
    // `f(x)`: the function is f, whatever its argument is called.
    if let [.., open, Lexeme { token: Token::Word(argument), .. }, close] = tokens
        && tokens.len() > 3
        && open.is_symbol('(')
        && close.is_symbol(')')
        && let Some(position) = text.find('(')
        && position > 0
    {
        parameter = Some(argument.clone());
        text.truncate(position);
    }
    let has_letter = text.chars().any(char::is_alphabetic);
    (has_letter && text.len() <= 64).then_some(Name { text, parameter, is_member: false })
}

fn inside_parentheses(before: &[Lexeme]) -> bool {
    before.iter().map(depth_change).sum::<i32>() > 0
}
