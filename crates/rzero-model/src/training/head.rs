//! The end of the model: final norm, logits of the asked positions, log-probability of their targets and entropy.
//!
//! Logits are made for some rows at a time and again in the backward pass, so that (M x vocabulary) is never held.
//! With p = softmax(z): log p_t = z_t - logsumexp(z), d log p_t / dz = onehot_t - p, entropy = logsumexp(z) - sum p z.

use super::{PackedSequences, TokenLogprobs};
use crate::config::ModelConfig;
use crate::kernels::{dot, exp_shifted, rms_norm, rms_norm_backward, vectorized};
use crate::matmul::{Matrix, Store, multiply};
use crate::weights::Weights;

/// Numbers of a chunk of logits: 4 MiB.
const CHUNK_NUMBERS: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct HeadTape {
    gathered: Vec<f32>, // (M, D)
    normed: Vec<f32>,   // (M, D)
    inverse: Vec<f32>,  // (M)
}

fn chunk_rows(config: &ModelConfig) -> usize {
    (CHUNK_NUMBERS / config.vocab_size).max(1)
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
    let mut result = TokenLogprobs::default();
    let mut logits = vec![0.0; rows.min(batch.rows.len()) * vocab];
    let mut weighted = vec![0.0; vocab];
    for (hidden, targets) in normed.chunks(rows * width).zip(batch.targets.chunks(rows)) {
        let logits = &mut logits[..targets.len() * vocab];
        multiply(logits, vocab, Store::Overwrite, 1.0, Matrix::new(hidden, targets.len(), width), head.transposed());
        vectorized(|| {
            for (line, target) in logits.chunks_exact_mut(vocab).zip(targets) {
                let chosen = line[*target as usize];
                weighted.copy_from_slice(line);
                let (largest, sum) = exp_shifted(line);
                let log_sum = largest + sum.ln();
                result.logprobs.push(chosen - log_sum);
                result.entropies.push(log_sum - dot(line, &weighted) / sum);
            }
        });
    }
    (result, HeadTape { gathered, normed, inverse })
}

/// Returns the gradient of the last layer's output. // (N, D)
pub(super) fn backward(
    config: &ModelConfig,
    weights: &Weights,
    batch: &PackedSequences,
    tape: &HeadTape,
    dlogprobs: &[f32],
    gradient: &mut [f32],
) -> Vec<f32> {
    let (width, vocab) = (config.hidden_size, config.vocab_size);
    let head = Matrix::new(weights.at(&weights.layout.head), vocab, width);
    let rows = chunk_rows(config);
    let mut dnormed = vec![0.0; tape.normed.len()];
    let mut logits = vec![0.0; rows.min(batch.rows.len()) * vocab];
    let chunks = tape.normed.chunks(rows * width).zip(dnormed.chunks_mut(rows * width));
    for ((hidden, dhidden), (targets, dlogprobs)) in chunks.zip(batch.targets.chunks(rows).zip(dlogprobs.chunks(rows))) {
        let logits = &mut logits[..targets.len() * vocab];
        let hidden = Matrix::new(hidden, targets.len(), width);
        multiply(logits, vocab, Store::Overwrite, 1.0, hidden, head.transposed());
        vectorized(|| {
            for ((line, target), dlogprob) in logits.chunks_exact_mut(vocab).zip(targets).zip(dlogprobs) {
                let (_, sum) = exp_shifted(line);
                let factor = -dlogprob / sum;
                line.iter_mut().for_each(|value| *value *= factor);
                line[*target as usize] += dlogprob;
            }
        });
        let dlogits = Matrix::new(logits, targets.len(), vocab);
        multiply(dhidden, width, Store::Overwrite, 1.0, dlogits, head);
        multiply(&mut gradient[weights.layout.head.clone()], width, Store::Add, 1.0, dlogits.transposed(), hidden);
    }
    let mut dgathered = vec![0.0; dnormed.len()];
    rms_norm_backward(
        &tape.gathered,
        weights.at(&weights.layout.final_norm),
        &tape.inverse,
        &dnormed,
        &mut dgathered,
        &mut gradient[weights.layout.final_norm.clone()],
    );
    let mut dx = vec![0.0; batch.tokens.len() * width];
    for (row, dgathered) in batch.rows.iter().zip(dgathered.chunks_exact(width)) {
        dx[*row as usize * width..(*row as usize + 1) * width].copy_from_slice(dgathered);
    }
    dx
}
