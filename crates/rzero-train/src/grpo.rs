//! One GRPO step: rollouts with advantages in, moved weights and the step's figures out.
//!
//! The rollouts of a step are cut into update batches (`update_batch`), each of which is one optimiser update ([`update`]). Its gradient is
//! added up from `gradient_parts` parts, each of whole micro-batches, so that a step made by one process here, and one whose parts are made
//! by many and added by another, are equal to the bit.

mod figures;
mod update;

pub use figures::{GrpoMetrics, StepTotals, TokenSums};
pub use update::{Update, apply};

use crate::batch::Sequence;
use crate::error::TrainError;
use crate::gradient::add;
use crate::optim::AdamState;
use crate::trainable::Trainable;
use rayon::prelude::*;
use rzero_model::Weights;
use rzero_model::device::Accelerator;
use rzero_schema::profile::GrpoSettings;
use std::ops::Range;
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

/// The samples of each update of a step of so many.
#[must_use]
pub fn updates(num_samples: usize, settings: &GrpoSettings) -> Vec<Range<usize>> {
    let size = if settings.update_batch == 0 { num_samples } else { settings.update_batch }.max(1);
    (0..num_samples).step_by(size).map(|start| start..num_samples.min(start + size)).collect()
}

/// Log-probability of every completion token of every sample under the reference policy; none for the samples of an update of which no token
/// is trained on. Once a step: the reference does not move, and need not be held beside the policy.
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
    for range in updates(samples.len(), settings) {
        match Update::new(&samples[range.clone()], settings, &reference.config)? {
            Some(update) => all.extend(update.reference(reference, update.whole(), accelerator, interrupt)?),
            None => all.extend(range.map(|_| Vec::new())),
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
    let mut timings = GrpoTimings::default();
    let mut totals = StepTotals::default();
    let mut gradient = vec![0f32; policy.values().len()];
    let mut of_part = Vec::new();
    let mut is_clear = true;
    for range in updates(samples.len(), settings) {
        let reference = step.reference.map(|all| &all[range.clone()]);
        let Some(update) = Update::new(&samples[range], settings, &policy.weights().config)? else { continue };
        let clock = Instant::now();
        let (mut sums, mut is_first) = (TokenSums::default(), true);
        let parts = (0..settings.gradient_parts).map(|part| update.part(part, settings.gradient_parts));
        if !std::mem::take(&mut is_clear) {
            clear(&mut gradient);
        }
        for part in parts.filter(|part| !part.is_empty()) {
            if std::mem::take(&mut is_first) {
                sums.add(&update.gradient(policy, part, reference, step, &mut gradient)?);
                continue;
            }
            of_part.resize(gradient.len(), 0.0);
            clear(&mut of_part);
            sums.add(&update.gradient(policy, part, reference, step, &mut of_part)?);
            add(&mut gradient, 0..of_part.len(), &of_part);
        }
        timings.gradient += clock.elapsed();
        let clock = Instant::now();
        let norm = apply(policy, optimizer, &gradient, &sums, settings, step.learning_rate)?;
        timings.optimizer += clock.elapsed();
        totals.add(sums, norm);
    }
    Ok((totals.metrics()?, timings))
}

fn clear(gradient: &mut [f32]) {
    gradient.par_chunks_mut(1 << 16).for_each(|part| part.fill(0.0));
}

/// Whether samples are whole: one log-probability a token, and nothing but numbers.
///
/// # Errors
/// Names the first sample that is not.
pub fn check(samples: &[GrpoSample<'_>]) -> Result<(), TrainError> {
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
