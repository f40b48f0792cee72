//! Next-token training from random weights: what makes the embedded base model.
//!
//! Loss: mean of -log p over completion tokens. Matrices inside the layers are moved by Muon, everything else by AdamW; the
//! learning rate warms up linearly and falls by a cosine to a tenth. Muon's rate is a fixed multiple of the schedule's.

use crate::batch::{Sequence, micro_batches};
use crate::error::TrainError;
use crate::gradient::{Passes, accumulate, add};
use crate::optim::{AdamSettings, AdamState, adamw, clip_factor, muon, norm};
use rzero_algo::seed::{RandomStream, uniform_f64};
use rzero_model::training::Keep;
use rzero_model::weights::Parameter;
use rzero_model::{ModelConfig, Weights};
use std::ops::Range;
use std::sync::atomic::AtomicBool;

/// The optimiser of one pre-training phase.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PretrainSettings {
    /// Steps of the phase.
    pub steps: u32,
    /// Steps of linear warm-up.
    pub warmup_steps: u32,
    /// Peak learning rate of AdamW.
    pub learning_rate: f64,
    /// Peak learning rate of Muon.
    pub muon_learning_rate: f64,
    /// AdamW's constants.
    pub adam: AdamSettings,
    /// Muon's momentum.
    pub momentum: f64,
    /// Gradient-norm clip.
    pub max_gradient_norm: f64,
    /// Tokens of a micro-batch.
    pub micro_batch_tokens: usize,
}

/// The moving parts of pre-training.
#[derive(Debug, Clone)]
pub struct Pretraining {
    /// The model.
    pub weights: Weights,
    state: AdamState,
    momentum: Vec<f32>,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PretrainStep {
    /// Mean loss, in nats a token.
    pub loss: f64,
    /// Learning rate of AdamW.
    pub learning_rate: f64,
    /// Gradient norm before clipping.
    pub gradient_norm: f64,
    /// Tokens that were learned.
    pub num_tokens: u64,
}

/// Random weights: matrices normal with deviation `1/sqrt(inputs)` times 0.7, those that write to the residual stream smaller by
/// sqrt(2 layers), the embedding 0.02, norms 1, biases 0.
#[must_use]
pub fn random_weights(config: &ModelConfig, stream: &mut RandomStream) -> Weights {
    let mut weights = Weights::zeros(config.clone());
    let residual = 1.0 / (2.0 * config.num_layers as f64).sqrt();
    for parameter in weights.layout.parameters.clone() {
        let values = &mut weights.values[parameter.range.clone()];
        let name = parameter.name.as_str();
        if name.ends_with("bias") {
            continue;
        }
        if !parameter.is_matrix() {
            values.fill(1.0);
            continue;
        }
        let is_residual = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
        let deviation = if name.contains("embed_tokens") || name.starts_with("lm_head") {
            0.02
        } else {
            0.7 / (parameter.shape[1] as f64).sqrt() * if is_residual { residual } else { 1.0 }
        };
        values.iter_mut().for_each(|value| *value = (deviation * normal(stream)) as f32);
    }
    weights
}

/// A standard normal number (Box and Muller).
fn normal(stream: &mut RandomStream) -> f64 {
    let radius = (-2.0 * (1.0 - uniform_f64(stream)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform_f64(stream)).cos()
}

/// The share of the peak learning rate at a step, counted from 1: linear warm-up times a cosine from 1 to 0.1.
#[must_use]
pub fn schedule(step: u32, settings: &PretrainSettings) -> f64 {
    let warmup = (f64::from(step) / f64::from(settings.warmup_steps.max(1))).min(1.0);
    let progress = f64::from(step) / f64::from(settings.steps.max(1));
    warmup * (0.1 + 0.45 * (1.0 + (std::f64::consts::PI * progress).cos()))
}

impl Pretraining {
    /// Starts from given weights with an empty optimiser.
    #[must_use]
    pub fn new(weights: Weights) -> Self {
        let count = weights.values.len();
        Self { weights, state: AdamState::new(count), momentum: vec![0.0; count] }
    }

    /// One step on a batch of documents.
    ///
    /// # Errors
    /// When a document does not fit the model, the gradient is not finite, or on interrupt.
    pub fn step(
        &mut self,
        documents: &[Sequence<'_>],
        step: u32,
        settings: &PretrainSettings,
        interrupt: &AtomicBool,
    ) -> Result<PretrainStep, TrainError> {
        let batches = micro_batches(documents, settings.micro_batch_tokens, &self.weights.config)?;
        let num_tokens: usize = documents.iter().map(|document| document.completion.len()).sum();
        if num_tokens == 0 {
            return Err(TrainError::NoTokens);
        }
        let slope = -1.0 / num_tokens as f32;
        let passes = Passes { accelerator: None, keep: Keep::Activations, interrupt, on_tokens: &|_| () };
        let mut gradient = vec![0.0; self.weights.values.len()];
        let mut sink = |range: Range<usize>, part: &[f32]| add(&mut gradient, range, part);
        let losses = accumulate(&self.weights, &batches, passes, &mut sink, |_, result| {
            let loss: f64 = result.logprobs.iter().map(|logprob| -f64::from(*logprob)).sum();
            (vec![slope; result.logprobs.len()], loss)
        })?;
        let gradient_norm = norm(&gradient);
        if !gradient_norm.is_finite() {
            return Err(TrainError::NotFinite { what: "the gradient", update: u64::from(step) });
        }
        let factor = clip_factor(gradient_norm, settings.max_gradient_norm);
        let share = schedule(step, settings);
        let learning_rate = share * settings.learning_rate;
        let Weights { values, layout, .. } = &mut self.weights;
        adamw(values, &layout.parameters, &gradient, factor, &mut self.state, learning_rate, &settings.adam, |p| {
            !is_inner_matrix(p)
        });
        muon(
            &mut self.weights,
            &gradient,
            factor,
            &mut self.momentum,
            share * settings.muon_learning_rate,
            settings.momentum,
            settings.adam.weight_decay,
            is_inner_matrix,
        );
        let loss = losses.iter().sum::<f64>() / num_tokens as f64;
        Ok(PretrainStep { loss, learning_rate, gradient_norm, num_tokens: num_tokens as u64 })
    }
}

fn is_inner_matrix(parameter: &Parameter) -> bool {
    parameter.is_matrix() && parameter.name.contains(".layers.")
}
