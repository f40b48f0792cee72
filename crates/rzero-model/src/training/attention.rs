//! Causal attention over packed sequences, forward and backward, one sequence and one head at a time.
//!
//! Forward: S = Q K^T / sqrt(head_dim), P = softmax of each row's past, O = P V. Only the logarithm of each row's sum is kept;
//! the backward pass computes P again from it, as flash attention does:
//! dV = P^T dO, dP = dO V^T, dS = P (dP - rowsum(dO O)) / sqrt(head_dim), dQ = dS K, dK = dS^T Q.

use crate::kernels::{dot, exp, exp_shifted, vectorized};
use crate::matmul::{Matrix, Store, multiply};
use std::ops::Range;

/// Sizes of the heads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) num_heads: usize,
    pub(super) num_kv_heads: usize,
    pub(super) head_dim: usize,
}

impl Heads {
    fn query_width(self) -> usize {
        self.num_heads * self.head_dim
    }

    fn kv_width(self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    fn scale(self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Offset of a query head's columns within a row, and of those of the key-value head it shares.
    fn offsets(self, head: usize) -> (usize, usize) {
        (head * self.head_dim, head / (self.num_heads / self.num_kv_heads) * self.head_dim)
    }
}

/// Returns the attended values (N, heads x head_dim) and the logarithm of each row's sum (N, heads).
pub(super) fn forward(
    heads: Heads,
    segments: &[Range<usize>],
    query: &[f32],
    key: &[f32],
    value: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let (q_width, kv_width, head_dim) = (heads.query_width(), heads.kv_width(), heads.head_dim);
    let mut attended = vec![0.0; query.len()];
    let mut log_sums = vec![0.0; query.len() / head_dim];
    let mut weights: Vec<f32> = Vec::new();
    for segment in segments {
        let length = segment.len();
        weights.resize(length * length, 0.0);
        let weights = &mut weights[..length * length];
        for head in 0..heads.num_heads {
            let (q_offset, kv_offset) = heads.offsets(head);
            let q_start = segment.start * q_width + q_offset;
            let kv_start = segment.start * kv_width + kv_offset;
            let k = Matrix::strided(&key[kv_start..], length, head_dim, kv_width);
            let v = Matrix::strided(&value[kv_start..], length, head_dim, kv_width);
            let q = Matrix::strided(&query[q_start..], length, head_dim, q_width);
            multiply(weights, length, Store::Overwrite, heads.scale(), q, k.transposed());
            vectorized(|| {
                for (row, line) in weights.chunks_exact_mut(length).enumerate() {
                    let (past, future) = line.split_at_mut(row + 1);
                    let (largest, sum) = exp_shifted(past);
                    let inverse = 1.0 / sum;
                    past.iter_mut().for_each(|weight| *weight *= inverse);
                    future.fill(0.0);
                    log_sums[(segment.start + row) * heads.num_heads + head] = largest + sum.ln();
                }
            });
            multiply(&mut attended[q_start..], q_width, Store::Overwrite, 1.0, Matrix::new(weights, length, length), v);
        }
    }
    (attended, log_sums)
}

/// Returns the gradients of query, key and value.
pub(super) fn backward(
    heads: Heads,
    segments: &[Range<usize>],
    query: &[f32],
    key: &[f32],
    value: &[f32],
    attended: &[f32],
    log_sums: &[f32],
    dattended: &[f32],
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let (q_width, kv_width, head_dim) = (heads.query_width(), heads.kv_width(), heads.head_dim);
    let (mut dquery, mut dkey, mut dvalue) = (vec![0.0; query.len()], vec![0.0; key.len()], vec![0.0; value.len()]);
    let (mut weights, mut dweights): (Vec<f32>, Vec<f32>) = (Vec::new(), Vec::new());
    for segment in segments {
        let length = segment.len();
        weights.resize(length * length, 0.0);
        dweights.resize(length * length, 0.0);
        let (weights, dweights) = (&mut weights[..length * length], &mut dweights[..length * length]);
        for head in 0..heads.num_heads {
            let (q_offset, kv_offset) = heads.offsets(head);
            let q_start = segment.start * q_width + q_offset;
            let kv_start = segment.start * kv_width + kv_offset;
            let q = Matrix::strided(&query[q_start..], length, head_dim, q_width);
            let k = Matrix::strided(&key[kv_start..], length, head_dim, kv_width);
            let v = Matrix::strided(&value[kv_start..], length, head_dim, kv_width);
            let dout = Matrix::strided(&dattended[q_start..], length, head_dim, q_width);
            multiply(weights, length, Store::Overwrite, heads.scale(), q, k.transposed());
            multiply(dweights, length, Store::Overwrite, 1.0, dout, v.transposed());
            vectorized(|| {
                for row in 0..length {
                    let at = (segment.start + row) * q_width + q_offset;
                    let inner = dot(&dattended[at..at + head_dim], &attended[at..at + head_dim]);
                    let log_sum = log_sums[(segment.start + row) * heads.num_heads + head];
                    let line = &mut weights[row * length..(row + 1) * length];
                    let dline = &mut dweights[row * length..(row + 1) * length];
                    let (past, future) = line.split_at_mut(row + 1);
                    let (dpast, dfuture) = dline.split_at_mut(row + 1);
                    for (weight, dweight) in past.iter_mut().zip(dpast) {
                        *weight = exp(*weight - log_sum);
                        *dweight = *weight * (*dweight - inner);
                    }
                    future.fill(0.0);
                    dfuture.fill(0.0);
                }
            });
            let (p, ds) = (Matrix::new(weights, length, length), Matrix::new(dweights, length, length));
            multiply(&mut dquery[q_start..], q_width, Store::Overwrite, heads.scale(), ds, k);
            multiply(&mut dkey[kv_start..], kv_width, Store::Add, heads.scale(), ds.transposed(), q);
            multiply(&mut dvalue[kv_start..], kv_width, Store::Add, 1.0, p.transposed(), dout);
        }
    }
    (dquery, dkey, dvalue)
}
