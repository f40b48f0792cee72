//! As [`crate::gradient`], on a device: micro-batches one after the other, gradients added on the host in their order.
//!
//! The weights are copied to the device for each call, since the optimiser moves them on the host, and leave it afterwards. What a
//! device gives is right up to rounding and not the same bits twice; see [`rzero_model::device`], also for what was tested.

use crate::batch::MicroBatch;
use crate::error::TrainError;
use crate::gradient::Passes;
use rzero_model::Weights;
use rzero_model::device::{Accelerator, DeviceModel};
use rzero_model::training::{GradientSink, TokenLogprobs};
use std::sync::atomic::{AtomicBool, Ordering};

fn device_model(accelerator: &Accelerator, weights: &Weights, batches: &[MicroBatch]) -> Result<DeviceModel, TrainError> {
    let longest = batches.iter().map(|batch| batch.packed.longest()).max().unwrap_or(0);
    Ok(DeviceModel::new(weights, accelerator, longest)?)
}

/// Log-probability of every completion token, micro-batch by micro-batch.
///
/// # Errors
/// When interrupted, or the device fails.
pub fn logprobs(
    accelerator: &Accelerator,
    weights: &Weights,
    batches: &[MicroBatch],
    interrupt: &AtomicBool,
) -> Result<Vec<TokenLogprobs>, TrainError> {
    let model = device_model(accelerator, weights, batches)?;
    let mut all = Vec::with_capacity(batches.len());
    for batch in batches {
        if interrupt.load(Ordering::Relaxed) {
            return Err(TrainError::Interrupted);
        }
        all.push(model.logprobs(&batch.packed)?);
    }
    Ok(all)
}

/// Runs all micro-batches forward and backward, as [`crate::gradient::accumulate`] does, and hands the gradient of the sum of all
/// losses to `sink`, part by part: a range of the flat weights, and the numbers to be added there.
///
/// # Errors
/// When interrupted, or the device fails.
pub fn accumulate<T>(
    accelerator: &Accelerator,
    weights: &Weights,
    batches: &[MicroBatch],
    passes: Passes<'_>,
    sink: GradientSink<'_>,
    token_slopes: impl Fn(usize, &TokenLogprobs) -> (Vec<f32>, T),
) -> Result<Vec<T>, TrainError> {
    let model = device_model(accelerator, weights, batches)?;
    let mut kept = Vec::with_capacity(batches.len());
    for (index, batch) in batches.iter().enumerate() {
        if passes.interrupt.load(Ordering::Relaxed) {
            return Err(TrainError::Interrupted);
        }
        let (logprobs, tape) = model.forward(&batch.packed)?;
        let (slopes, keep) = token_slopes(index, &logprobs);
        model.backward(&batch.packed, tape, &slopes, sink)?;
        (passes.on_tokens)(batch.packed.targets.len());
        kept.push(keep);
    }
    Ok(kept)
}
