//! One GRPO step: rollouts with advantages in, moved weights and the step's figures out.
//!
//! The rollouts of a step are cut into update batches (`update_batch`), each of which is one optimiser update; every update goes
//! through micro-batches. Token weights are those of the whole update batch, so micro-batches change nothing but rounding.

use crate::batch::{MicroBatch, Sequence, micro_batches};
use crate::error::TrainError;
use crate::gradient::{Passes, accumulate, logprobs};
use crate::loss::{TokenLoss, token_loss, token_weights};
use crate::optim::{AdamSettings, AdamState, clip_factor, norm};
use crate::trainable::Trainable;
use rayon::prelude::*;
use rzero_model::Weights;
use rzero_model::device::Accelerator;
use rzero_model::training::{Keep, TokenLogprobs};
use rzero_schema::profile::GrpoSettings;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// One rollout with what its update needs.
#[derive(Debug, Clone, Copy)]
pub struct GrpoSample<'a> {
    /// Prompt and completion.
    pub sequence: Sequence<'a>,
    /// Log-probability of each completion token under the policy that wrote it, at temperature 1 and untruncated.
    pub old_logprobs: &'a [f32],
    /// Its advantage.
    pub advantage: f64,
    /// Whether it hit the length limit.
    pub is_truncated: bool,
}

/// What a step did; every mean is over the completion tokens that were trained on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GrpoMetrics {
    /// The objective.
    pub loss: f64,
    /// Its surrogate part.
    pub surrogate_loss: f64,
    /// k3 divergence from the reference.
    pub kl_reference: f64,
    /// k1 divergence from the sampling policy.
    pub kl_old: f64,
    /// Entropy of the policy.
    pub entropy: f64,
    /// Share of tokens held by the lower (or dual) clip.
    pub clip_low_share: f64,
    /// Share of tokens held by the upper clip.
    pub clip_high_share: f64,
    /// Gradient norm before clipping, mean over updates.
    pub gradient_norm: f64,
    /// Largest difference between the sampler's and the trainer's log-probability, before the first update.
    pub logprob_difference_max: f64,
    /// Mean of that difference.
    pub logprob_difference_mean: f64,
    /// Tokens trained on.
    pub num_tokens: u64,
    /// Updates made.
    pub num_updates: u32,
}

/// Where the time of a step went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GrpoTimings {
    /// Forward and backward passes.
    pub gradient: Duration,
    /// Clipping and the optimiser.
    pub optimizer: Duration,
}

/// The fixed parts of a step.
#[derive(Clone, Copy)]
pub struct GrpoStep<'a> {
    /// Loss and optimiser.
    pub settings: &'a GrpoSettings,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Length limit of a completion, for the `dr-grpo` normalisation.
    pub length_limit: usize,
    /// What [`reference_logprobs`] gave for the same samples; absent where `kl_coef` is 0.
    pub reference: Option<&'a [Vec<f32>]>,
    /// Where gradients are computed; without one, on the CPU. The optimiser is always there.
    pub accelerator: Option<&'a Accelerator>,
    /// Set from outside to stop early; the weights are then half updated and must be thrown away.
    pub interrupt: &'a AtomicBool,
    /// Told how many completion tokens have gone forward and backward.
    pub on_tokens: &'a (dyn Fn(usize) + Sync),
}

/// Sums over tokens that become [`GrpoMetrics`].
#[derive(Debug, Clone, Default)]
struct Sums {
    loss: f64,
    surrogate: f64,
    kl_reference: f64,
    kl_old: f64,
    entropy: f64,
    clipped_low: f64,
    clipped_high: f64,
    difference: f64,
    difference_max: f64,
    tokens: u64,
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.surrogate += other.surrogate;
        self.kl_reference += other.kl_reference;
        self.kl_old += other.kl_old;
        self.entropy += other.entropy;
        self.clipped_low += other.clipped_low;
        self.clipped_high += other.clipped_high;
        self.difference += other.difference;
        self.difference_max = self.difference_max.max(other.difference_max);
        self.tokens += other.tokens;
    }

    fn add_token(&mut self, token: &TokenLoss, weight: f64, entropy: f64) {
        self.loss += weight * token.loss.value;
        self.surrogate += weight * token.surrogate;
        self.kl_reference += token.kl_reference;
        self.kl_old += token.kl_old;
        self.entropy += entropy;
        self.clipped_low += f64::from(u8::from(token.is_clipped_low));
        self.clipped_high += f64::from(u8::from(token.is_clipped_high));
        self.difference += token.kl_old.abs();
        self.difference_max = self.difference_max.max(token.kl_old.abs());
        self.tokens += 1;
    }
}

/// Samples of each update of a step.
fn updates<'a, T>(samples: &'a [T], settings: &GrpoSettings) -> impl Iterator<Item = &'a [T]> {
    samples.chunks(if settings.update_batch == 0 { samples.len() } else { settings.update_batch }.max(1))
}

fn update_batches(samples: &[GrpoSample<'_>], settings: &GrpoSettings, weights: &Weights) -> Result<Vec<MicroBatch>, TrainError> {
    let sequences: Vec<Sequence<'_>> = samples.iter().map(|sample| sample.sequence).collect();
    micro_batches(&sequences, settings.micro_batch_tokens, &weights.config)
}

/// Log-probability of every completion token of every sample under the reference policy. Once a step: the reference does not move, and need
/// not be held beside the policy.
///
/// # Errors
/// When a rollout does not fit the model, or on interrupt.
pub fn reference_logprobs(
    reference: &Weights,
    samples: &[GrpoSample<'_>],
    settings: &GrpoSettings,
    accelerator: Option<&Accelerator>,
    interrupt: &AtomicBool,
) -> Result<Vec<Vec<f32>>, TrainError> {
    check(samples)?;
    let mut all = Vec::with_capacity(samples.len());
    for samples in updates(samples, settings) {
        let batches = update_batches(samples, settings, reference)?;
        for (batch, result) in batches.iter().zip(logprobs(reference, &batches, accelerator, interrupt)?) {
            let mut rest = result.logprobs.as_slice();
            for sample in &samples[batch.sequences.clone()] {
                let (of_sample, after) = rest.split_at(sample.sequence.completion.len());
                all.push(of_sample.to_vec());
                rest = after;
            }
        }
    }
    Ok(all)
}

/// Moves `policy` by one step over `samples`.
///
/// # Errors
/// When a rollout does not fit the model, there is nothing to train on, a number stops being finite, or on interrupt.
pub fn grpo_step(
    policy: &mut Trainable,
    optimizer: &mut AdamState,
    samples: &[GrpoSample<'_>],
    step: &GrpoStep<'_>,
) -> Result<(GrpoMetrics, GrpoTimings), TrainError> {
    check(samples)?;
    let settings = step.settings;
    let keep = if settings.recompute_activations { Keep::Inputs } else { Keep::Activations };
    let passes = Passes { accelerator: step.accelerator, keep, interrupt: step.interrupt, on_tokens: step.on_tokens };
    let mut timings = GrpoTimings::default();
    let (mut sums, mut first) = (Sums::default(), None);
    let (mut gradient_norm, mut num_updates) = (0.0, 0u32);
    let mut gradient = vec![0f32; policy.values().len()];
    let mut start = 0;
    for samples in updates(samples, settings) {
        let reference = step.reference.map(|all| &all[start..start + samples.len()]);
        start += samples.len();
        let lengths: Vec<usize> = samples
            .iter()
            .map(|sample| if settings.mask_truncated && sample.is_truncated { 0 } else { sample.sequence.completion.len() })
            .collect();
        if lengths.iter().all(|length| *length == 0) {
            continue;
        }
        let token_weight = token_weights(&lengths, settings.loss_normalization, step.length_limit);
        let batches = update_batches(samples, settings, policy.weights())?;

        let clock = Instant::now();
        if num_updates > 0 {
            gradient.par_chunks_mut(1 << 16).for_each(|part| part.fill(0.0));
        }
        let mut sink = |range, part: &[f32]| policy.add_gradient(range, part, &mut gradient);
        let kept = accumulate(policy.weights(), &batches, passes, &mut sink, |index, new| {
            slopes(&batches[index], samples, &token_weight, new, reference, settings)
        })?;
        timings.gradient += clock.elapsed();
        let mut update_sums = Sums::default();
        kept.iter().for_each(|kept| update_sums.add(kept));

        let clock = Instant::now();
        let norm = norm(&gradient);
        for (what, value) in [("the gradient", norm), ("the loss", update_sums.loss)] {
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
        policy.update(&gradient, clip_factor(norm, settings.max_gradient_norm), optimizer, step.learning_rate, &adam);
        timings.optimizer += clock.elapsed();

        gradient_norm += norm;
        num_updates += 1;
        sums.add(&update_sums);
        first.get_or_insert(update_sums);
    }
    let first = first.ok_or(TrainError::NoTokens)?;
    let (tokens, updates) = (sums.tokens as f64, f64::from(num_updates));
    let metrics = GrpoMetrics {
        loss: sums.loss / updates,
        surrogate_loss: sums.surrogate / updates,
        kl_reference: sums.kl_reference / tokens,
        kl_old: sums.kl_old / tokens,
        entropy: sums.entropy / tokens,
        clip_low_share: sums.clipped_low / tokens,
        clip_high_share: sums.clipped_high / tokens,
        gradient_norm: gradient_norm / updates,
        logprob_difference_max: first.difference_max,
        logprob_difference_mean: first.difference / first.tokens as f64,
        num_tokens: sums.tokens,
        num_updates,
    };
    Ok((metrics, timings))
}

fn check(samples: &[GrpoSample<'_>]) -> Result<(), TrainError> {
    for (index, sample) in samples.iter().enumerate() {
        let (logprobs, tokens) = (sample.old_logprobs.len(), sample.sequence.completion.len());
        if logprobs != tokens {
            return Err(TrainError::Rollout { index, problem: format!("has {logprobs} log-probabilities for {tokens} tokens") });
        }
        if !sample.advantage.is_finite() || sample.old_logprobs.iter().any(|value| !value.is_finite()) {
            return Err(TrainError::Rollout { index, problem: "holds a number that is not finite".to_owned() });
        }
    }
    Ok(())
}

/// Loss and slope of every token of a micro-batch.
fn slopes(
    batch: &MicroBatch,
    samples: &[GrpoSample<'_>],
    token_weight: &[f64],
    new: &TokenLogprobs,
    reference: Option<&[Vec<f32>]>,
    settings: &GrpoSettings,
) -> (Vec<f32>, Sums) {
    let mut slopes = vec![0f32; new.logprobs.len()];
    let mut sums = Sums::default();
    let mut at = 0;
    for index in batch.sequences.clone() {
        let (sample, weight) = (&samples[index], token_weight[index]);
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
