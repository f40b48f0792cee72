//! Sums and products of matrices that are written out.

use crate::algebra::expr::Expr;
use crate::normalize::form::{Body, Form};

/// A matrix as rows of expressions; a tuple is a column.
fn rows(form: &Form) -> Option<Vec<Vec<Expr>>> {
    let expr = |form: &Form| match &form.body {
        Body::Value(value) if form.unit.is_none() && form.name.is_none() => Some(value.expr.clone()),
        _ => None,
    };
    match &form.body {
        Body::Matrix(rows) => rows.iter().map(|row| row.iter().map(expr).collect()).collect(),
        Body::Tuple(parts) => parts.iter().map(|part| expr(part).map(|part| vec![part])).collect(),
        Body::Interval(pair) if pair.is_low_open && pair.is_high_open => {
            Some(vec![vec![pair.low.expr.clone()], vec![pair.high.expr.clone()]])
        }
        _ => None,
    }
}

fn form(rows: Vec<Vec<Expr>>) -> Form {
    Form::of(Body::Matrix(rows.into_iter().map(|row| row.into_iter().map(Form::value).collect()).collect()))
}

/// The sum of two matrices, or their difference.
pub(crate) fn sum(left: &Form, right: &Form, is_minus: bool) -> Option<Form> {
    let (left, right) = (rows(left)?, rows(right)?);
    if left.len() != right.len() || left.iter().zip(&right).any(|(left, right)| left.len() != right.len()) {
        return None;
    }
    let add = |left: Expr, right: Expr| Expr::Sum(vec![left, if is_minus { right.negated() } else { right }]);
    let pairs = left.into_iter().zip(right);
    Some(form(pairs.map(|(left, right)| left.into_iter().zip(right).map(|(left, right)| add(left, right)).collect()).collect()))
}

/// The product of two matrices.
pub(crate) fn product(left: &Form, right: &Form) -> Option<Form> {
    let (left, right) = (rows(left)?, rows(right)?);
    let width = right.first()?.len();
    if left.iter().any(|row| row.len() != right.len()) || left.len() * right.len() * width > 1_000 {
        return None;
    }
    let cell = |row: &[Expr], column: usize| {
        Expr::Sum(row.iter().zip(&right).map(|(left, right)| Expr::Product(vec![left.clone(), right[column].clone()])).collect())
    };
    Some(form(left.iter().map(|row| (0..width).map(|column| cell(row, column)).collect()).collect()))
}
