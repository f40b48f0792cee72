//! Micro-batches through the model: log-probabilities alone, or with the gradient of a token loss.
//!
//! Micro-batches run side by side, one a thread; their gradients are added in the order of the micro-batches, each into a
//! buffer of zeros first, so that the sum does not depend on the number of threads.

use crate::batch::MicroBatch;
use crate::error::TrainError;
use rayon::prelude::*;
use rzero_model::Weights;
use rzero_model::training::{TokenLogprobs, TrainingModel};
use std::sync::atomic::{AtomicBool, Ordering};

fn training_model(weights: &Weights, batches: &[MicroBatch]) -> TrainingModel {
    let longest = batches.iter().map(|batch| batch.packed.longest()).max().unwrap_or(0);
    TrainingModel::new(&weights.config, longest)
}

/// Log-probability of every completion token, micro-batch by micro-batch.
///
/// # Errors
/// When interrupted.
pub fn logprobs(weights: &Weights, batches: &[MicroBatch], interrupt: &AtomicBool) -> Result<Vec<TokenLogprobs>, TrainError> {
    let model = training_model(weights, batches);
    batches
        .par_iter()
        .map(|batch| {
            if interrupt.load(Ordering::Relaxed) {
                return Err(TrainError::Interrupted);
            }
            Ok(model.forward(weights, &batch.packed).0)
        })
        .collect()
}

/// Runs all micro-batches forward and backward.
///
/// `token_slopes(index, logprobs)` is told the micro-batch and what the policy gives its tokens; it returns the derivative of the
/// loss with respect to each log-probability, and anything it wants to keep. The gradient is that of the sum of all losses.
/// `on_tokens` is told how many completion tokens a finished micro-batch had.
///
/// # Errors
/// When interrupted.
pub fn accumulate<T: Send>(
    weights: &Weights,
    batches: &[MicroBatch],
    interrupt: &AtomicBool,
    on_tokens: &(dyn Fn(usize) + Sync),
    token_slopes: impl Fn(usize, &TokenLogprobs) -> (Vec<f32>, T) + Sync,
) -> Result<(Vec<f32>, Vec<T>), TrainError> {
    let model = training_model(weights, batches);
    let mut total = vec![0f32; weights.values.len()];
    let mut kept = Vec::with_capacity(batches.len());
    let indexed: Vec<(usize, &MicroBatch)> = batches.iter().enumerate().collect();
    for wave in indexed.chunks(rayon::current_num_threads()) {
        if interrupt.load(Ordering::Relaxed) {
            return Err(TrainError::Interrupted);
        }
        let results: Vec<(Vec<f32>, T)> = wave
            .par_iter()
            .map(|(index, batch)| {
                let (logprobs, tape) = model.forward(weights, &batch.packed);
                let (slopes, keep) = token_slopes(*index, &logprobs);
                let mut gradient = vec![0f32; weights.values.len()];
                model.backward(weights, &batch.packed, tape, &slopes, &mut gradient);
                on_tokens(batch.packed.targets.len());
                (gradient, keep)
            })
            .collect();
        for (gradient, keep) in results {
            add(&mut total, &gradient);
            kept.push(keep);
        }
    }
    Ok((total, kept))
}

fn add(total: &mut [f32], gradient: &[f32]) {
    const CHUNK: usize = 1 << 16;
    total.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK)).for_each(|(total, gradient)| {
        for (t, g) in total.iter_mut().zip(gradient) {
            *t += g;
        }
    });
}
