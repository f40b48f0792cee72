//! One optimiser update: its micro-batches in parts, the gradient of a part, and the move of the weights.
//!
//! The gradient of an update is g = g_1 + g_2 + ... over its parts, in order; that of a part is the sum over its micro-batches, in order. So
//! parts can be computed by several processes and added by one, and every number is that of a single process.

use super::figures::TokenSums;
use super::{GrpoSample, GrpoStep};
use crate::batch::{MicroBatch, Sequence, micro_batches};
use crate::error::TrainError;
use crate::gradient::{Passes, accumulate, logprobs};
use crate::loss::{token_loss, token_weights};
use crate::optim::{AdamSettings, AdamState, clip_factor, norm};
use crate::trainable::Trainable;
use rzero_model::device::Accelerator;
use rzero_model::training::{Keep, TokenLogprobs};
use rzero_model::{ModelConfig, Weights};
use rzero_schema::profile::GrpoSettings;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

/// The samples of an update, cut into micro-batches.
#[derive(Debug)]
pub struct Update<'a> {
    samples: &'a [GrpoSample<'a>],
    /// Tokens of each sample that are trained on.
    lengths: Vec<usize>,
    batches: Vec<MicroBatch>,
}

impl<'a> Update<'a> {
    /// Lays an update out; nothing where none of its tokens are trained on, so that there is no update.
    ///
    /// # Errors
    /// When a rollout does not fit the model.
    pub fn new(samples: &'a [GrpoSample<'a>], settings: &GrpoSettings, config: &ModelConfig) -> Result<Option<Self>, TrainError> {
        let length = |sample: &GrpoSample<'_>| match settings.mask_truncated && sample.is_truncated {
            true => 0,
            false => sample.sequence.completion.len(),
        };
        let lengths: Vec<usize> = samples.iter().map(length).collect();
        if lengths.iter().all(|length| *length == 0) {
            return Ok(None);
        }
        let sequences: Vec<Sequence<'_>> = samples.iter().map(|sample| sample.sequence).collect();
        let batches = micro_batches(&sequences, settings.micro_batch_tokens, config)?;
        Ok(Some(Self { samples, lengths, batches }))
    }

    /// All micro-batches.
    #[must_use]
    pub fn whole(&self) -> Range<usize> {
        0..self.batches.len()
    }

    /// The micro-batches of part `part` of `num_parts`; none where there are more parts than micro-batches.
    #[must_use]
    pub fn part(&self, part: usize, num_parts: usize) -> Range<usize> {
        let start = |part: usize| self.batches.len() * part / num_parts;
        start(part)..start(part + 1)
    }

    /// Completion tokens of some micro-batches.
    #[must_use]
    pub fn num_tokens(&self, part: Range<usize>) -> usize {
        self.batches[part].iter().map(|batch| batch.packed.targets.len()).sum()
    }

    /// Log-probabilities of the completion tokens of a part under the reference; by sample of the update, empty outside the part.
    ///
    /// # Errors
    /// When interrupted, or the device fails.
    pub fn reference(
        &self,
        reference: &Weights,
        part: Range<usize>,
        accelerator: Option<&Accelerator>,
        interrupt: &AtomicBool,
    ) -> Result<Vec<Vec<f32>>, TrainError> {
        let mut all = vec![Vec::new(); self.samples.len()];
        let batches = &self.batches[part];
        for (batch, result) in batches.iter().zip(logprobs(reference, batches, accelerator, interrupt)?) {
            let mut rest = result.logprobs.as_slice();
            for index in batch.sequences.clone() {
                let (of_sample, after) = rest.split_at(self.samples[index].sequence.completion.len());
                all[index] = of_sample.to_vec();
                rest = after;
            }
        }
        Ok(all)
    }

    /// Adds the gradient of a part to `gradient`, which lies as the trained numbers. `reference` is by sample of the update.
    ///
    /// # Errors
    /// When interrupted, or the device fails.
    pub fn gradient(
        &self,
        policy: &Trainable,
        part: Range<usize>,
        reference: Option<&[Vec<f32>]>,
        step: &GrpoStep<'_>,
        gradient: &mut [f32],
    ) -> Result<TokenSums, TrainError> {
        let settings = step.settings;
        let keep = if settings.recompute_activations { Keep::Inputs } else { Keep::Activations };
        let passes = Passes { accelerator: step.accelerator, keep, interrupt: step.interrupt, on_tokens: step.on_tokens };
        // Weights of tokens are those of the whole update, so that parts and micro-batches change nothing but rounding.
        let token_weight = token_weights(&self.lengths, settings.loss_normalization, step.length_limit);
        let batches = &self.batches[part];
        let mut sink = |range, part: &[f32]| policy.add_gradient(range, part, gradient);
        let kept = accumulate(policy.weights(), batches, passes, &mut sink, |index, new| {
            self.slopes(&batches[index], &token_weight, new, reference, settings)
        })?;
        let mut sums = TokenSums::default();
        kept.iter().for_each(|kept| sums.add(kept));
        Ok(sums)
    }

    /// Loss and slope of every token of a micro-batch.
    fn slopes(
        &self,
        batch: &MicroBatch,
        token_weight: &[f64],
        new: &TokenLogprobs,
        reference: Option<&[Vec<f32>]>,
        settings: &GrpoSettings,
    ) -> (Vec<f32>, TokenSums) {
        let mut slopes = vec![0f32; new.logprobs.len()];
        let mut sums = TokenSums::default();
        let mut at = 0;
        for index in batch.sequences.clone() {
            let (sample, weight) = (&self.samples[index], token_weight[index]);
            for (token, old) in sample.old_logprobs.iter().enumerate() {
                if weight > 0.0 {
                    let reference = reference.map(|all| f64::from(all[index][token]));
                    let token = token_loss(f64::from(new.logprobs[at]), f64::from(*old), reference, sample.advantage, settings);
                    slopes[at] = (weight * token.loss.slope) as f32;
                    sums.add_token(&token, weight, f64::from(new.entropies[at]));
                }
                at += 1;
            }
        }
        (slopes, sums)
    }
}

/// Clips the gradient of an update and moves the policy by it; returns the norm before clipping.
///
/// # Errors
/// When the gradient or the loss is not finite.
pub fn apply(
    policy: &mut Trainable,
    optimizer: &mut AdamState,
    gradient: &[f32],
    sums: &TokenSums,
    settings: &GrpoSettings,
    learning_rate: f64,
) -> Result<f64, TrainError> {
    let norm = norm(gradient);
    for (what, value) in [("the gradient", norm), ("the loss", sums.loss)] {
        if !value.is_finite() {
            return Err(TrainError::NotFinite { what, update: optimizer.updates + 1 });
        }
    }
    let adam = AdamSettings {
        beta1: settings.adam_beta1,
        beta2: settings.adam_beta2,
        epsilon: settings.adam_epsilon,
        weight_decay: settings.weight_decay,
    };
    policy.update(gradient, clip_factor(norm, settings.max_gradient_norm), optimizer, learning_rate, &adam);
    Ok(norm)
}
