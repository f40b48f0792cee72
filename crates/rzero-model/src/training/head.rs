//! The end of the model: final norm, logits of the asked positions, log-probability of their targets and entropy.
//!
//! Logits are made for a part of the vocabulary at a time. Where memory allows they are kept for the backward pass, else made again there. Every
//! row carries m = the largest logit so far, s = sum e^(z - m), t = sum e^(z - m) (z - m) from part to part. Then
//! log p_t = z_t - m - ln s, entropy = ln s - t / s, and d log p_t / dz = onehot_t - e^(z - m) / s.

use super::packing::PackedSequences;
use super::{GradientSink, Keep, Pass, TokenLogprobs};
use crate::config::ModelConfig;
use crate::kernels::{self, exp, maximum, vectorized};
use crate::matmul::{Matrix, Store, multiply_shared};
use rayon::prelude::*;

/// Tokens of a part of the vocabulary.
const TOKENS: usize = 2048;

/// Most logits that are kept from the forward to the backward pass: 256 MiB.
const KEPT_LOGITS: usize = 1 << 26;

#[derive(Debug)]
pub(super) struct HeadTape {
    gathered: Vec<f32>,    // (M, D)
    normed: Vec<f32>,      // (M, D)
    inverse: Vec<f32>,     // (M)
    rows: Vec<RowFigures>, // (M)
    logits: Vec<Vec<f32>>, // (M, TOKENS) for each part of the vocabulary, or nothing
}

/// What a row's logits come to.
#[derive(Debug, Clone, Copy)]
struct RowFigures {
    /// Largest logit.
    largest: f32,
    /// Sum of e^(z - largest).
    sum: f32,
    /// Sum of e^(z - largest) (z - largest).
    weighted: f32,
    /// Logit of the target.
    chosen: f32,
}

impl RowFigures {
    /// Before the first part of the vocabulary.
    const NONE: Self = Self { largest: f32::NEG_INFINITY, sum: 0.0, weighted: 0.0, chosen: 0.0 };

    /// Takes in the logits of one more part.
    #[inline(always)]
    fn add(&mut self, logits: &[f32]) {
        let largest = maximum(logits).max(self.largest);
        let moved = self.largest - largest;
        if self.sum > 0.0 {
            let factor = exp(moved);
            self.weighted = factor * (self.weighted + self.sum * moved);
            self.sum *= factor;
        }
        self.largest = largest;
        let (mut sums, mut weighted) = ([0f32; 16], [0f32; 16]);
        let (chunks, rest) = logits.as_chunks::<16>();
        for chunk in chunks {
            for lane in 0..16 {
                let shifted = chunk[lane] - largest;
                let e = exp(shifted);
                sums[lane] += e;
                weighted[lane] += e * shifted;
            }
        }
        for (lane, logit) in rest.iter().enumerate() {
            let shifted = logit - largest;
            let e = exp(shifted);
            sums[lane] += e;
            weighted[lane] += e * shifted;
        }
        self.sum += sums.iter().sum::<f32>();
        self.weighted += weighted.iter().sum::<f32>();
    }
}

/// Whether logits are kept for the backward pass.
fn keeps_logits(config: &ModelConfig, num_rows: usize, keep: Keep) -> bool {
    keep == Keep::Activations && num_rows * config.vocab_size <= KEPT_LOGITS
}

/// Numbers that a pass over `num_rows` asked positions holds: its tape, and what it needs for a while.
pub(super) fn numbers(config: &ModelConfig, num_rows: usize, keep: Keep) -> usize {
    let tape = num_rows * (2 * config.hidden_size + 5);
    let logits = if keeps_logits(config, num_rows, keep) { num_rows * config.vocab_size } else { 0 };
    let part = num_rows * TOKENS.min(config.vocab_size) + TOKENS.min(config.vocab_size) * config.hidden_size;
    tape + logits + part + 2 * num_rows * config.hidden_size
}

/// x: (N, D)
pub(super) fn forward(pass: &Pass<'_>, x: &[f32], batch: &PackedSequences, keep: Keep) -> (TokenLogprobs, HeadTape) {
    let Pass { config, weights, workspace, .. } = *pass;
    let (width, vocab, num_rows) = (config.hidden_size, config.vocab_size, batch.rows.len());
    let mut gathered = Vec::with_capacity(num_rows * width);
    for row in &batch.rows {
        gathered.extend_from_slice(&x[*row as usize * width..(*row as usize + 1) * width]);
    }
    let (mut normed, mut inverse) = (vec![0.0; gathered.len()], vec![0.0; num_rows]);
    let norm = weights.at(&weights.layout.final_norm);
    kernels::rms_norm_shared(&gathered, norm, config.rms_norm_eps as f32, &mut normed, &mut inverse);
    let mut rows = vec![RowFigures::NONE; num_rows];
    let mut kept = Vec::new();
    for (index, head) in weights.at(&weights.layout.head).chunks(TOKENS * width).enumerate() {
        let logits = part_logits(pass, &normed, head);
        let (first, count) = (index * TOKENS, head.len() / width);
        rows.par_iter_mut().zip(logits.par_chunks(count)).zip(&batch.targets).for_each(|((row, logits), target)| {
            vectorized(
                #[inline(always)]
                || row.add(logits),
            );
            if let Some(chosen) = logits.get((*target as usize).wrapping_sub(first)) {
                row.chosen = *chosen;
            }
        });
        if keeps_logits(config, num_rows, keep) {
            kept.push(logits);
        } else {
            workspace.give(logits, TOKENS.min(vocab));
        }
    }
    let logprobs = rows.iter().map(|row| row.chosen - (row.largest + row.sum.ln())).collect();
    let entropies = rows.iter().map(|row| row.sum.ln() - row.weighted / row.sum).collect();
    (TokenLogprobs { logprobs, entropies }, HeadTape { gathered, normed, inverse, rows, logits: kept })
}

/// Logits of one part of the vocabulary. // hidden: (M, D), head: (tokens, D), result: (M, tokens)
fn part_logits(pass: &Pass<'_>, hidden: &[f32], head: &[f32]) -> Vec<f32> {
    let width = pass.config.hidden_size;
    let (num_rows, count) = (hidden.len() / width, head.len() / width);
    let mut logits = pass.workspace.take(num_rows, TOKENS.min(pass.config.vocab_size));
    logits.truncate(num_rows * count);
    let head = Matrix::new(head, count, width).transposed();
    multiply_shared(&mut logits, count, Store::Overwrite, 1.0, Matrix::new(hidden, num_rows, width), head);
    logits
}

/// Hands over the gradients of the final norm and of the head; returns that of the last layer's output (N, D).
pub(super) fn backward(
    pass: &Pass<'_>,
    batch: &PackedSequences,
    tape: HeadTape,
    dlogprobs: &[f32],
    sink: GradientSink<'_>,
) -> Vec<f32> {
    let Pass { config, weights, workspace, .. } = *pass;
    let (width, vocab, num_rows) = (config.hidden_size, config.vocab_size, batch.rows.len());
    let hidden = Matrix::new(&tape.normed, num_rows, width);
    let mut dnormed = vec![0.0; tape.normed.len()];
    let mut dhead = workspace.take(TOKENS.min(vocab), width);
    let mut kept = tape.logits.into_iter();
    for (index, head) in weights.at(&weights.layout.head).chunks(TOKENS * width).enumerate() {
        let (first, count) = (index * TOKENS, head.len() / width);
        let mut logits = kept.next().unwrap_or_else(|| part_logits(pass, &tape.normed, head));
        logits.par_chunks_mut(count).enumerate().for_each(|(row, line)| {
            let RowFigures { largest, sum, .. } = tape.rows[row];
            let factor = -dlogprobs[row] / sum;
            vectorized(
                #[inline(always)]
                || line.iter_mut().for_each(|value| *value = exp(*value - largest) * factor),
            );
            if let Some(value) = line.get_mut((batch.targets[row] as usize).wrapping_sub(first)) {
                *value += dlogprobs[row];
            }
        });
        let dlogits = Matrix::new(&logits, num_rows, count);
        let store = if index == 0 { Store::Overwrite } else { Store::Add };
        multiply_shared(&mut dnormed, width, store, 1.0, dlogits, Matrix::new(head, count, width));
        let dhead = &mut dhead[..count * width];
        multiply_shared(dhead, width, Store::Overwrite, 1.0, dlogits.transposed(), hidden);
        let start = weights.layout.head.start + first * width;
        sink(start..start + dhead.len(), dhead);
        workspace.give(logits, TOKENS.min(vocab));
    }
    workspace.give(dhead, width);
    let (mut dgathered, mut dnorm) = (vec![0.0; dnormed.len()], vec![0.0; width]);
    let norm = weights.at(&weights.layout.final_norm);
    kernels::rms_norm_backward_shared(&tape.gathered, norm, &tape.inverse, &dnormed, &mut dgathered, &mut dnorm);
    sink(weights.layout.final_norm.clone(), &dnorm);
    let mut dx = workspace.zeroed(batch.tokens.len(), width);
    for (row, dgathered) in batch.rows.iter().zip(dgathered.chunks_exact(width)) {
        kernels::add_scaled(&mut dx[*row as usize * width..(*row as usize + 1) * width], 1.0, dgathered);
    }
    dx
}
