//! Causal attention over packed sequences, forward and backward, one segment and one head at a time; key-value heads side by side.
//!
//! Forward: S = Q K^T / sqrt(head_dim), P = softmax of each row's past, O = P V. Only the logarithm of each row's sum is kept;
//! the backward pass computes P again from it, as flash attention does:
//! dV = P^T dO, dP = dO V^T, dS = P (dP - rowsum(dO O)) / sqrt(head_dim), dQ = dS K, dK = dS^T Q.
//! The columns of S are the rows of the segments that this one continues, in order, and then its own; only the own part is masked.

use super::packing::Segment;
use crate::config::ModelConfig;
use crate::kernels::{dot, exp, exp_shifted, vectorized};
use crate::matmul::{Matrix, Store, multiply};
use rayon::prelude::*;
use std::ops::Range;

/// Sizes of the heads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
}

impl Heads {
    pub(super) fn of(config: &ModelConfig) -> Self {
        Self { num_heads: config.num_heads, num_kv_heads: config.num_kv_heads, head_dim: config.head_dim }
    }

    /// Query heads that share a key-value head.
    fn group(self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    fn group_width(self) -> usize {
        self.group() * self.head_dim
    }

    fn query_width(self) -> usize {
        self.num_heads * self.head_dim
    }

    fn kv_width(self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    fn scale(self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Rows of one query head, of the rows of all query heads. // values: (N, heads x head_dim)
    fn query<'a>(self, values: &'a [f32], head: usize, rows: &Range<usize>) -> Matrix<'a> {
        let start = rows.start * self.query_width() + head * self.head_dim;
        Matrix::strided(&values[start..], rows.len(), self.head_dim, self.query_width())
    }

    /// Rows of one key-value head. // values: (N, kv heads x head_dim)
    fn kv<'a>(self, values: &'a [f32], kv_head: usize, rows: &Range<usize>) -> Matrix<'a> {
        let start = rows.start * self.kv_width() + kv_head * self.head_dim;
        Matrix::strided(&values[start..], rows.len(), self.head_dim, self.kv_width())
    }
}

/// The blocks of columns of a segment's scores: the rows it looks at, and the column they begin at.
fn blocks(segment: &Segment) -> impl Iterator<Item = (usize, &Range<usize>)> {
    let mut start = 0;
    segment.past.iter().chain([&segment.rows]).map(move |rows| {
        let block = (start, rows);
        start += rows.len();
        block
    })
}

/// Copies the columns of one group of heads to their place among all. // part: (N, width), all: (N, stride)
fn scatter(part: &[f32], width: usize, all: &mut [f32], stride: usize, offset: usize) {
    for (part, all) in part.chunks_exact(width).zip(all.chunks_exact_mut(stride)) {
        all[offset..offset + width].copy_from_slice(part);
    }
}

/// Returns the attended values (N, heads x head_dim) and the logarithm of each row's sum (N, heads).
pub(super) fn forward(heads: Heads, segments: &[Segment], query: &[f32], key: &[f32], value: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (width, group) = (heads.group_width(), heads.group());
    let num_rows = query.len() / heads.query_width();
    let parts: Vec<(Vec<f32>, Vec<f32>)> = (0..heads.num_kv_heads)
        .into_par_iter()
        .map(|kv_head| {
            let (mut attended, mut log_sums) = (vec![0.0; num_rows * width], vec![0.0; num_rows * group]);
            let mut weights: Vec<f32> = Vec::new();
            for segment in segments.iter().filter(|segment| !segment.rows.is_empty()) {
                let (first, end, rows) = (segment.first_position(), segment.end_position(), &segment.rows);
                weights.resize(rows.len() * end, 0.0);
                for head in 0..group {
                    let q = heads.query(query, kv_head * group + head, rows);
                    for (column, seen) in blocks(segment) {
                        let k = heads.kv(key, kv_head, seen);
                        multiply(&mut weights[column..], end, Store::Overwrite, heads.scale(), q, k.transposed());
                    }
                    vectorized(|| {
                        for (row, line) in weights.chunks_exact_mut(end).enumerate() {
                            let (past, future) = line.split_at_mut(first + row + 1);
                            let (largest, sum) = exp_shifted(past);
                            let inverse = 1.0 / sum;
                            past.iter_mut().for_each(|weight| *weight *= inverse);
                            future.fill(0.0);
                            log_sums[(rows.start + row) * group + head] = largest + sum.ln();
                        }
                    });
                    for (column, seen) in blocks(segment) {
                        let p = Matrix::strided(&weights[column..], rows.len(), seen.len(), end);
                        let store = if column == 0 { Store::Overwrite } else { Store::Add };
                        let target = &mut attended[rows.start * width + head * heads.head_dim..];
                        multiply(target, width, store, 1.0, p, heads.kv(value, kv_head, seen));
                    }
                }
            }
            (attended, log_sums)
        })
        .collect();
    let (mut attended, mut log_sums) = (vec![0.0; query.len()], vec![0.0; num_rows * heads.num_heads]);
    for (kv_head, (part, part_log_sums)) in parts.iter().enumerate() {
        scatter(part, width, &mut attended, heads.query_width(), kv_head * width);
        scatter(part_log_sums, group, &mut log_sums, heads.num_heads, kv_head * group);
    }
    (attended, log_sums)
}

/// What the forward pass left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept<'a> {
    pub(super) query: &'a [f32],
    pub(super) key: &'a [f32],
    pub(super) value: &'a [f32],
    pub(super) attended: &'a [f32],
    pub(super) log_sums: &'a [f32],
}

/// Returns the gradients of query, key and value.
pub(super) fn backward(heads: Heads, segments: &[Segment], kept: Kept<'_>, dattended: &[f32]) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let (width, head_dim) = (heads.group_width(), heads.head_dim);
    let num_rows = kept.query.len() / heads.query_width();
    let parts: Vec<[Vec<f32>; 3]> = (0..heads.num_kv_heads)
        .into_par_iter()
        .map(|kv_head| backward_group(heads, kv_head, segments, kept, dattended))
        .collect();
    let mut dquery = vec![0.0; kept.query.len()];
    let (mut dkey, mut dvalue) = (vec![0.0; num_rows * heads.kv_width()], vec![0.0; num_rows * heads.kv_width()]);
    for (kv_head, [query, key, value]) in parts.iter().enumerate() {
        scatter(query, width, &mut dquery, heads.query_width(), kv_head * width);
        scatter(key, head_dim, &mut dkey, heads.kv_width(), kv_head * head_dim);
        scatter(value, head_dim, &mut dvalue, heads.kv_width(), kv_head * head_dim);
    }
    (dquery, dkey, dvalue)
}

/// The gradients of the query heads that share a key-value head (N, group x head_dim), and of its keys and values (N, head_dim).
fn backward_group(heads: Heads, kv_head: usize, segments: &[Segment], kept: Kept<'_>, dattended: &[f32]) -> [Vec<f32>; 3] {
    let (width, group, head_dim) = (heads.group_width(), heads.group(), heads.head_dim);
    let num_rows = kept.query.len() / heads.query_width();
    let (mut dquery, mut dkey) = (vec![0.0; num_rows * width], vec![0.0; num_rows * head_dim]);
    let mut dvalue = dkey.clone();
    let (mut weights, mut dweights): (Vec<f32>, Vec<f32>) = (Vec::new(), Vec::new());
    for segment in segments.iter().filter(|segment| !segment.rows.is_empty()) {
        let (first, end, rows) = (segment.first_position(), segment.end_position(), &segment.rows);
        weights.resize(rows.len() * end, 0.0);
        dweights.resize(rows.len() * end, 0.0);
        for in_group in 0..group {
            let head = kv_head * group + in_group;
            let (q, dout) = (heads.query(kept.query, head, rows), heads.query(dattended, head, rows));
            for (column, seen) in blocks(segment) {
                let (k, v) = (heads.kv(kept.key, kv_head, seen), heads.kv(kept.value, kv_head, seen));
                multiply(&mut weights[column..], end, Store::Overwrite, heads.scale(), q, k.transposed());
                multiply(&mut dweights[column..], end, Store::Overwrite, 1.0, dout, v.transposed());
            }
            vectorized(|| {
                for row in 0..rows.len() {
                    let at = (rows.start + row) * heads.query_width() + head * head_dim;
                    let inner = dot(&dattended[at..at + head_dim], &kept.attended[at..at + head_dim]);
                    let log_sum = kept.log_sums[(rows.start + row) * heads.num_heads + head];
                    let line = row * end..(row + 1) * end;
                    let (past, future) = weights[line.clone()].split_at_mut(first + row + 1);
                    let (dpast, dfuture) = dweights[line].split_at_mut(first + row + 1);
                    for (weight, dweight) in past.iter_mut().zip(dpast) {
                        *weight = exp(*weight - log_sum);
                        *dweight = *weight * (*dweight - inner);
                    }
                    future.fill(0.0);
                    dfuture.fill(0.0);
                }
            });
            for (column, seen) in blocks(segment) {
                let p = Matrix::strided(&weights[column..], rows.len(), seen.len(), end);
                let ds = Matrix::strided(&dweights[column..], rows.len(), seen.len(), end);
                let store = if column == 0 { Store::Overwrite } else { Store::Add };
                let target = &mut dquery[rows.start * width + in_group * head_dim..];
                multiply(target, width, store, heads.scale(), ds, heads.kv(kept.key, kv_head, seen));
                let seen = seen.start * head_dim..seen.end * head_dim;
                multiply(&mut dkey[seen.clone()], head_dim, Store::Add, heads.scale(), ds.transposed(), q);
                multiply(&mut dvalue[seen], head_dim, Store::Add, 1.0, p.transposed(), dout);
            }
        }
    }
    [dquery, dkey, dvalue]
}
