//! Micro-batches through the model: log-probabilities alone, or with the gradient of a token loss.
//!
//! Micro-batches of a small model run side by side, one a thread; those of a large one run one after the other, each on all threads, and hand over
//! their gradient layer by layer, so that no second buffer of its size is held. Either way each micro-batch's gradient is computed by itself
//! and added in the order of the micro-batches, so that the sum does not depend on the number of threads.

use crate::batch::MicroBatch;
use crate::device_gradient;
use crate::error::TrainError;
use rayon::prelude::*;
use rzero_model::device::Accelerator;
use rzero_model::kernels::{add_scaled, vectorized};
use rzero_model::training::{GradientSink, Keep, TokenLogprobs, TrainingModel};
use rzero_model::{ModelConfig, Weights};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Weights up to which a model is small: a gradient for each micro-batch is then cheap, and single products too small to share.
const SMALL_MODEL: usize = 1 << 23;

/// How many micro-batches of a small model run side by side on so many threads; nothing for a large one.
#[must_use]
pub fn side_by_side(num_parameters: usize, threads: usize) -> Option<usize> {
    (num_parameters <= SMALL_MODEL).then_some(threads.max(1))
}

fn training_model(config: &ModelConfig, batches: &[MicroBatch]) -> TrainingModel {
    let longest = batches.iter().map(|batch| batch.packed.longest()).max().unwrap_or(0);
    TrainingModel::new(config, longest)
}

fn go_on(interrupt: &AtomicBool) -> Result<(), TrainError> {
    if interrupt.load(Ordering::Relaxed) { Err(TrainError::Interrupted) } else { Ok(()) }
}

/// Log-probability of every completion token, micro-batch by micro-batch; on a device where one is given.
///
/// # Errors
/// When interrupted, or the device fails.
pub fn logprobs(
    weights: &Weights,
    batches: &[MicroBatch],
    accelerator: Option<&Accelerator>,
    interrupt: &AtomicBool,
) -> Result<Vec<TokenLogprobs>, TrainError> {
    if let Some(accelerator) = accelerator {
        return device_gradient::logprobs(accelerator, weights, batches, interrupt);
    }
    let model = training_model(&weights.config, batches);
    let one = |batch: &MicroBatch| {
        go_on(interrupt)?;
        Ok(model.logprobs(weights, &batch.packed))
    };
    match side_by_side(weights.values.len(), rayon::current_num_threads()) {
        None => batches.iter().map(one).collect(),
        Some(_) => batches.par_iter().map(one).collect(),
    }
}

/// How a gradient is computed, without influence on it but for a device's rounding.
#[derive(Clone, Copy)]
pub struct Passes<'a> {
    /// Where; without one, on the CPU with the threads of the pool.
    pub accelerator: Option<&'a Accelerator>,
    /// What the forward passes keep; on a device, the inputs of the layers in any case.
    pub keep: Keep,
    /// Set from outside to stop early.
    pub interrupt: &'a AtomicBool,
    /// Told how many completion tokens a finished micro-batch had.
    pub on_tokens: &'a (dyn Fn(usize) + Sync),
}

/// Runs all micro-batches forward and backward; hands the gradient of the sum of all losses to `sink`, part by part.
///
/// `token_slopes(index, logprobs)` is told the micro-batch and what the policy gives its tokens; it returns the derivative of the
/// loss with respect to each log-probability, and anything it wants to keep.
///
/// # Errors
/// When interrupted, or the device fails.
pub fn accumulate<T: Send>(
    weights: &Weights,
    batches: &[MicroBatch],
    passes: Passes<'_>,
    sink: GradientSink<'_>,
    token_slopes: impl Fn(usize, &TokenLogprobs) -> (Vec<f32>, T) + Sync,
) -> Result<Vec<T>, TrainError> {
    if let Some(accelerator) = passes.accelerator {
        return device_gradient::accumulate(accelerator, weights, batches, passes, sink, token_slopes);
    }
    let model = training_model(&weights.config, batches);
    let one = |index: usize, sink: GradientSink<'_>| {
        let batch = &batches[index].packed;
        let (logprobs, tape) = model.forward(weights, batch, passes.keep);
        let (slopes, kept) = token_slopes(index, &logprobs);
        model.backward(weights, batch, tape, &slopes, sink);
        (passes.on_tokens)(batch.targets.len());
        kept
    };
    let num_parameters = weights.values.len();
    let mut kept = Vec::with_capacity(batches.len());
    match side_by_side(num_parameters, rayon::current_num_threads()) {
        None => {
            for index in 0..batches.len() {
                go_on(passes.interrupt)?;
                kept.push(one(index, sink));
            }
        }
        Some(at_once) => {
            let indices: Vec<usize> = (0..batches.len()).collect();
            for wave in indices.chunks(at_once) {
                go_on(passes.interrupt)?;
                let results: Vec<(Vec<f32>, T)> = wave
                    .par_iter()
                    .map(|index| {
                        let mut gradient = vec![0f32; num_parameters];
                        let kept = one(*index, &mut |range, part| add_here(&mut gradient[range], part));
                        (gradient, kept)
                    })
                    .collect();
                for (gradient, of_batch) in results {
                    sink(0..num_parameters, &gradient);
                    kept.push(of_batch);
                }
            }
        }
    }
    Ok(kept)
}

/// Adds a part of a gradient to its place in the flat sum.
pub fn add(total: &mut [f32], range: Range<usize>, part: &[f32]) {
    const CHUNK: usize = 1 << 16;
    if part.len() <= CHUNK {
        add_here(&mut total[range], part);
        return;
    }
    total[range].par_chunks_mut(CHUNK).zip(part.par_chunks(CHUNK)).for_each(|(total, part)| add_here(total, part));
}

fn add_here(total: &mut [f32], part: &[f32]) {
    vectorized(
        #[inline(always)]
        || add_scaled(total, 1.0, part),
    );
}
