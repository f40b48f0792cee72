//! What a step begins with: the policy in training, the optimiser's state, and what the reference says of the rollouts.

use super::stopped;
use crate::context::StageContext;
use crate::exit::StageFailure;
use crate::inputs::StageInputs;
use rzero_algo::seed::{StreamKey, random_stream};
use rzero_model::device::Accelerator;
use rzero_model::{ModelConfig, Weights};
use rzero_schema::profile::GrpoSettings;
use rzero_train::checkpoint::TrainState;
use rzero_train::grpo::{GrpoSample, reference_logprobs};
use rzero_train::lora::Lora;
use rzero_train::trainable::Trainable;

/// What a step begins with.
pub(super) struct Start {
    pub(super) policy: Trainable,
    pub(super) state: TrainState,
    /// Log-probabilities under the reference, by sample, where the objective asks for them.
    pub(super) reference: Option<Vec<Vec<f32>>>,
}

impl Start {
    /// Reads the reference, asks it for its log-probabilities and lets go of it before the policy is read, so that both are never held.
    /// Adapters are the exception: what they are beside is the reference.
    pub(super) fn read(
        context: &StageContext,
        inputs: &StageInputs<'_>,
        settings: &GrpoSettings,
        accelerator: Option<&Accelerator>,
        samples: &[GrpoSample<'_>],
    ) -> anyhow::Result<Self> {
        let (float, has_adapters) = (context.profile.model.float, settings.lora.rank > 0);
        let interrupt = context.interrupt.flag();
        let (mut reference, mut base) = (None, None);
        if settings.kl_coef > 0.0 || has_adapters {
            let weights = Weights::read(inputs.path("reference")?)?;
            require_same_model(inputs, &weights)?;
            if settings.kl_coef > 0.0 {
                reference = Some(reference_logprobs(&weights, samples, settings, accelerator, interrupt).map_err(stopped)?);
            }
            base = Some(weights).filter(|_| has_adapters || context.place.step == 1);
        }
        let optimizer = if context.place.step == 1 { None } else { Some(inputs.path("optimizer")?) };
        let read_state = |num_trained: usize| optimizer.map(|path| TrainState::read(path, num_trained)).transpose();
        let (policy, state) = match base {
            Some(base) if has_adapters => {
                let num_trained = Lora::new(&base.layout, &settings.lora).num_parameters();
                let mut read = read_state(num_trained)?;
                let values = read.as_mut().and_then(|state| state.trained.take());
                let place = context.place;
                let key = StreamKey {
                    run_seed: context.profile.seed,
                    iteration: place.iteration,
                    phase: place.phase,
                    step: 0,
                    row: 0,
                    sample: 0,
                };
                (Trainable::adapters_of(base, float, &settings.lora, values, &mut random_stream("adapters", &key)), read)
            }
            base => {
                // At the first step of a phase the reference is the policy.
                let weights = match base {
                    Some(weights) => weights,
                    None => Weights::read(inputs.path("policy")?)?,
                };
                let mut read = read_state(weights.values.len())?;
                let master = read.as_mut().and_then(|state| state.trained.take());
                (Trainable::weights_of(weights, float, master), read)
            }
        };
        let state = state.unwrap_or_else(|| TrainState::new(policy.values(), settings.weight_ema));
        Ok(Self { policy, state, reference })
    }
}

/// Refuses a policy and a reference of different sizes.
fn require_same_model(inputs: &StageInputs<'_>, reference: &Weights) -> anyhow::Result<()> {
    if ModelConfig::read(inputs.path("policy")?)? == reference.config {
        return Ok(());
    }
    let message = "the policy and the checkpoint it is held to are models of different sizes".to_owned();
    Err(StageFailure::input(message).hint("the base model was probably exchanged; begin a new run directory").into())
}
