//! What an update moves: all weights of a model, or adapters beside them; and the weights that its passes compute with.
//!
//! The trained numbers are f32 in any case. The passes compute with what a checkpoint would give back: rounded where checkpoints are stored in
//! fewer bits, adapters merged where there are any. So the policy that is trained is the policy that samples, to the bit.

use crate::lora::Lora;
use crate::optim::{AdamSettings, AdamState, adamw};
use rzero_algo::seed::RandomStream;
use rzero_model::Weights;
use rzero_model::tensor_file;
use rzero_model::weights::Parameter;
use rzero_schema::profile::LoraSettings;
use rzero_schema::vocab::FloatType;
use std::ops::Range;

/// A model in training.
#[derive(Debug, Clone)]
pub struct Trainable {
    weights: Weights,
    float: FloatType,
    trained: Trained,
}

#[derive(Debug, Clone)]
enum Trained {
    /// All weights; a copy of their own where the passes compute with rounded ones.
    Weights { master: Option<Vec<f32>> },
    /// Adapters of `base`.
    Adapters { base: Vec<f32>, lora: Lora, values: Vec<f32> },
}

impl Trainable {
    /// Trains all weights. `weights` is what the checkpoint holds; `master` the unrounded numbers of an earlier step, if there was one.
    #[must_use]
    pub fn weights_of(weights: Weights, float: FloatType, master: Option<Vec<f32>>) -> Self {
        let master = (float != FloatType::F32).then(|| master.unwrap_or_else(|| weights.values.clone()));
        Self { weights, float, trained: Trained::Weights { master } }.refreshed()
    }

    /// Trains adapters of `base`, from `values` or anew from `stream`.
    #[must_use]
    pub fn adapters_of(
        base: Weights,
        float: FloatType,
        settings: &LoraSettings,
        values: Option<Vec<f32>>,
        stream: &mut RandomStream,
    ) -> Self {
        let lora = Lora::new(&base.layout, settings);
        let values = values.unwrap_or_else(|| lora.initial(stream));
        let trained = Trained::Adapters { base: base.values.clone(), lora, values };
        Self { weights: base, float, trained }.refreshed()
    }

    /// What passes compute with, and a checkpoint holds.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The numbers that updates move.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        match &self.trained {
            Trained::Weights { master } => master.as_ref().unwrap_or(&self.weights.values),
            Trained::Adapters { values, .. } => values,
        }
    }

    /// The same, where a checkpoint of [`Self::weights`] does not hold them.
    #[must_use]
    pub fn values_beside_checkpoint(&self) -> Option<&[f32]> {
        match &self.trained {
            Trained::Weights { master } => master.as_deref(),
            Trained::Adapters { values, .. } => Some(values),
        }
    }

    /// The adapters' names, shapes and places, where adapters are trained.
    #[must_use]
    pub fn adapters(&self) -> Option<&[Parameter]> {
        match &self.trained {
            Trained::Weights { .. } => None,
            Trained::Adapters { lora, .. } => Some(&lora.parameters),
        }
    }

    /// Adds a part of the gradient of the weights to the gradient of the trained numbers.
    pub fn add_gradient(&self, range: Range<usize>, part: &[f32], gradient: &mut [f32]) {
        match &self.trained {
            Trained::Weights { .. } => crate::gradient::add(gradient, range, part),
            Trained::Adapters { lora, values, .. } => lora.project(&range, part, values, gradient),
        }
    }

    /// One AdamW update of the trained numbers with `factor * gradient`.
    pub fn update(&mut self, gradient: &[f32], factor: f32, state: &mut AdamState, learning_rate: f64, settings: &AdamSettings) {
        match &mut self.trained {
            Trained::Weights { master } => {
                let values = master.as_mut().unwrap_or(&mut self.weights.values);
                adamw(values, &self.weights.layout.parameters, gradient, factor, state, learning_rate, settings, |_| true);
            }
            Trained::Adapters { lora, values, .. } => {
                adamw(values, &lora.parameters, gradient, factor, state, learning_rate, settings, |_| true);
            }
        }
        self.refresh();
    }

    /// Goes on with other trained numbers, such as their average over steps.
    pub fn replace(&mut self, new: Vec<f32>) {
        match &mut self.trained {
            Trained::Weights { master: Some(values) } | Trained::Adapters { values, .. } => *values = new,
            Trained::Weights { master: None } => self.weights.values = new,
        }
        self.refresh();
    }

    fn refreshed(mut self) -> Self {
        self.refresh();
        self
    }

    /// Makes the weights of the passes from the trained numbers.
    fn refresh(&mut self) {
        match &self.trained {
            Trained::Weights { master: None } => return,
            Trained::Weights { master: Some(master) } => self.weights.values.copy_from_slice(master),
            Trained::Adapters { base, lora, values } => {
                self.weights.values.copy_from_slice(base);
                lora.merge_into(&mut self.weights.values, values);
            }
        }
        tensor_file::round(&mut self.weights.values, self.float);
    }
}
