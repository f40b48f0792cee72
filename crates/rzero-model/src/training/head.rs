//! The end of the model: final norm, logits of the asked positions, log-probability of their targets and entropy.
//!
//! Forward, logits are made for some rows at a time; backward, again and for a part of the vocabulary at a time, so that (M x vocabulary) is
//! never held. With p = softmax(z): log p_t = z_t - logsumexp(z), d log p_t / dz = onehot_t - p, entropy = logsumexp(z) - sum p z.

use super::packing::PackedSequences;
use super::{GradientSink, TokenLogprobs};
use crate::config::ModelConfig;
use crate::kernels::{dot, exp, exp_shifted, rms_norm, rms_norm_backward, vectorized};
use crate::matmul::{Matrix, Store, multiply, multiply_shared};
use crate::weights::Weights;
use rayon::prelude::*;

/// Numbers of a forward chunk of logits: 4 MiB; but at least [`CHUNK_ROWS`] rows, so that the product is worth its packing.
const CHUNK_NUMBERS: usize = 1 << 20;
const CHUNK_ROWS: usize = 64;

/// Numbers of a backward chunk of logits: 32 MiB.
const BACKWARD_NUMBERS: usize = 1 << 23;

#[derive(Debug)]
pub(super) struct HeadTape {
    gathered: Vec<f32>, // (M, D)
    normed: Vec<f32>,   // (M, D)
    inverse: Vec<f32>,  // (M)
    largest: Vec<f32>,  // (M), largest logit
    sums: Vec<f32>,     // (M), sum of e^(z - largest)
}

/// Rows of a forward chunk.
fn chunk_rows(config: &ModelConfig) -> usize {
    (CHUNK_NUMBERS / config.vocab_size).max(CHUNK_ROWS)
}

/// Tokens of a backward chunk for so many rows.
fn chunk_tokens(config: &ModelConfig, num_rows: usize) -> usize {
    (BACKWARD_NUMBERS / num_rows.max(1)).next_multiple_of(64).min(config.vocab_size)
}

/// Bytes that a pass over `num_rows` asked positions holds beside its tape, on so many threads.
pub(super) fn working_bytes(config: &ModelConfig, num_rows: usize, threads: usize) -> usize {
    let forward = threads * (chunk_rows(config).min(num_rows) + 1) * config.vocab_size;
    let backward = num_rows * (chunk_tokens(config, num_rows) + 2 * config.hidden_size);
    4 * forward.max(backward)
}

/// Numbers that an asked position leaves on the tape.
pub(super) fn numbers_a_row(config: &ModelConfig) -> usize {
    2 * config.hidden_size + 3
}

/// x: (N, D)
pub(super) fn forward(config: &ModelConfig, weights: &Weights, x: &[f32], batch: &PackedSequences) -> (TokenLogprobs, HeadTape) {
    let (width, vocab) = (config.hidden_size, config.vocab_size);
    let mut gathered = Vec::with_capacity(batch.rows.len() * width);
    for row in &batch.rows {
        gathered.extend_from_slice(&x[*row as usize * width..(*row as usize + 1) * width]);
    }
    let (mut normed, mut inverse) = (vec![0.0; gathered.len()], vec![0.0; batch.rows.len()]);
    rms_norm(&gathered, weights.at(&weights.layout.final_norm), config.rms_norm_eps as f32, &mut normed, &mut inverse);
    let head = Matrix::new(weights.at(&weights.layout.head), vocab, width);
    let rows = chunk_rows(config);
    // For each row: largest logit, sum of exponentials, log-probability, entropy.
    let figures: Vec<Vec<[f32; 4]>> = normed
        .par_chunks(rows * width)
        .zip(batch.targets.par_chunks(rows))
        .map(|(hidden, targets)| {
            let (mut logits, mut weighted) = (vec![0.0; targets.len() * vocab], vec![0.0; vocab]);
            multiply(&mut logits, vocab, Store::Overwrite, 1.0, Matrix::new(hidden, targets.len(), width), head.transposed());
            vectorized(|| {
                let lines = logits.chunks_exact_mut(vocab).zip(targets);
                let figures = lines.map(|(line, target)| {
                    let chosen = line[*target as usize];
                    weighted.copy_from_slice(line);
                    let (largest, sum) = exp_shifted(line);
                    let log_sum = largest + sum.ln();
                    [largest, sum, chosen - log_sum, log_sum - dot(line, &weighted) / sum]
                });
                figures.collect()
            })
        })
        .collect();
    let figure = |index: usize| -> Vec<f32> { figures.iter().flatten().map(|figures| figures[index]).collect() };
    let tape = HeadTape { gathered, normed, inverse, largest: figure(0), sums: figure(1) };
    (TokenLogprobs { logprobs: figure(2), entropies: figure(3) }, tape)
}

/// Hands over the gradient of the final norm, and that of the head unless it is the embedding; returns the gradient of the last layer's
/// output (N, D) and that of the embedding so far.
pub(super) fn backward(
    config: &ModelConfig,
    weights: &Weights,
    batch: &PackedSequences,
    tape: &HeadTape,
    dlogprobs: &[f32],
    sink: GradientSink<'_>,
) -> (Vec<f32>, Vec<f32>) {
    let (width, vocab, num_rows) = (config.hidden_size, config.vocab_size, batch.rows.len());
    let hidden = Matrix::new(&tape.normed, num_rows, width);
    let mut dnormed = vec![0.0; tape.normed.len()];
    let mut dhead = vec![0.0; vocab * width];
    let tokens = chunk_tokens(config, num_rows);
    let mut logits = vec![0.0; num_rows * tokens];
    let chunks = weights.at(&weights.layout.head).chunks(tokens * width).zip(dhead.chunks_mut(tokens * width));
    for (chunk, (head, dhead)) in chunks.enumerate() {
        let (first, count) = (chunk * tokens, head.len() / width);
        let head = Matrix::new(head, count, width);
        let logits = &mut logits[..num_rows * count];
        multiply_shared(logits, count, Store::Overwrite, 1.0, hidden, head.transposed());
        logits.par_chunks_mut(count).enumerate().for_each(|(row, line)| {
            let (largest, factor) = (tape.largest[row], -dlogprobs[row] / tape.sums[row]);
            vectorized(|| line.iter_mut().for_each(|value| *value = exp(*value - largest) * factor));
            let target = (batch.targets[row] as usize).wrapping_sub(first);
            if let Some(value) = line.get_mut(target) {
                *value += dlogprobs[row];
            }
        });
        let dlogits = Matrix::new(logits, num_rows, count);
        let store = if chunk == 0 { Store::Overwrite } else { Store::Add };
        multiply_shared(&mut dnormed, width, store, 1.0, dlogits, head);
        multiply_shared(dhead, width, Store::Add, 1.0, dlogits.transposed(), hidden);
    }
    let mut dgathered = vec![0.0; dnormed.len()];
    let mut dnorm = vec![0.0; width];
    let norm = weights.at(&weights.layout.final_norm);
    rms_norm_backward(&tape.gathered, norm, &tape.inverse, &dnormed, &mut dgathered, &mut dnorm);
    sink(weights.layout.final_norm.clone(), &dnorm);
    let mut dx = vec![0.0; batch.tokens.len() * width];
    for (row, dgathered) in batch.rows.iter().zip(dgathered.chunks_exact(width)) {
        let target = &mut dx[*row as usize * width..(*row as usize + 1) * width];
        target.iter_mut().zip(dgathered).for_each(|(target, value)| *target += value);
    }
    if config.is_tied {
        return (dx, dhead);
    }
    sink(weights.layout.head.clone(), &dhead);
    (dx, vec![0.0; vocab * width])
}
