//! What a step begins with: the policy in training, the optimiser's state, and what the reference says of the rollouts.

use super::stopped;
use crate::context::StageContext;
use crate::exit::StageFailure;
use crate::inputs::StageInputs;
use rzero_algo::seed::{StreamKey, random_stream};
use rzero_model::{ModelConfig, Weights};
use rzero_schema::profile::GrpoSettings;
use rzero_schema::vocab::FloatType;
use rzero_train::TrainError;
use rzero_train::checkpoint::{TrainState, read_trained};
use rzero_train::lora::Lora;
use rzero_train::trainable::Trainable;
use std::path::Path;

/// From where a step reads what it begins with.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub(crate) context: &'a StageContext,
    pub(crate) inputs: &'a StageInputs<'a>,
    pub(crate) settings: &'a GrpoSettings,
}

/// What a step begins with.
pub(crate) struct Start<R> {
    pub(crate) policy: Trainable,
    pub(crate) state: TrainState,
    /// What the reference was asked, where the objective asks for it.
    pub(crate) reference: Option<R>,
}

impl Reading<'_> {
    /// The state that the step before left; none at the first step of a phase.
    pub(crate) fn optimizer(&self) -> anyhow::Result<Option<&Path>> {
        if self.context.place.step == 1 { Ok(None) } else { self.inputs.path("optimizer").map(Some) }
    }

    /// Reads the reference, asks it and lets go of it before the policy is read, so that both are never held. Adapters are the exception:
    /// what they are beside is the reference.
    pub(crate) fn start<R>(
        &self,
        state: Option<&Path>,
        ask: Option<impl FnOnce(&Weights) -> Result<R, TrainError>>,
    ) -> anyhow::Result<Start<R>> {
        let (reference, base) = self.ask_reference(ask)?;
        let (weights, num_trained) = self.weights(base)?;
        let mut read = state.map(|path| TrainState::read(path, num_trained)).transpose()?;
        let trained = read.as_mut().and_then(|state| state.trained.take());
        let policy = self.trainable(weights, trained);
        let state = read.unwrap_or_else(|| TrainState::new(policy.values(), self.settings.weight_ema));
        Ok(Start { policy, state, reference })
    }

    /// The same for a process that computes no gradient: nobody is asked.
    pub(crate) fn start_shared(&self, before: Option<&Path>) -> anyhow::Result<Start<()>> {
        let state = match before {
            Some(path) => Some(path),
            None => self.optimizer()?,
        };
        self.start(state, None::<fn(&Weights) -> Result<(), TrainError>>)
    }

    /// The same for a process that computes a gradient and moves nothing: the optimiser's moments are not read.
    pub(crate) fn policy<R>(
        &self,
        before: Option<&Path>,
        ask: impl FnOnce(&Weights) -> Result<R, TrainError>,
    ) -> anyhow::Result<(Trainable, Option<R>)> {
        let (reference, base) = self.ask_reference(Some(ask))?;
        let (weights, num_trained) = self.weights(base)?;
        let state = match before {
            Some(path) => Some(path),
            None => self.optimizer()?,
        };
        let trained = state.map(|path| read_trained(path, num_trained)).transpose()?.flatten();
        Ok((self.trainable(weights, trained), reference))
    }

    fn has_adapters(&self) -> bool {
        self.settings.lora.rank > 0
    }

    /// What the reference says, and its weights where they are needed further on.
    fn ask_reference<R>(
        &self,
        ask: Option<impl FnOnce(&Weights) -> Result<R, TrainError>>,
    ) -> anyhow::Result<(Option<R>, Option<Weights>)> {
        let ask = ask.filter(|_| self.settings.kl_coef > 0.0);
        if ask.is_none() && !self.has_adapters() {
            return Ok((None, None));
        }
        let weights = Weights::read(self.inputs.path("reference")?)?;
        self.require_same_model(&weights)?;
        let reference = ask.map(|ask| ask(&weights)).transpose().map_err(stopped)?;
        // At the first step of a phase the reference is the policy.
        Ok((reference, Some(weights).filter(|_| self.has_adapters() || self.context.place.step == 1)))
    }

    /// The weights that a step trains, or whose adapters it trains; and how many numbers that are.
    fn weights(&self, base: Option<Weights>) -> anyhow::Result<(Weights, usize)> {
        let weights = match base {
            Some(weights) => weights,
            None => Weights::read(self.inputs.path("policy")?)?,
        };
        let num_trained = match self.has_adapters() {
            true => Lora::new(&weights.layout, &self.settings.lora).num_parameters(),
            false => weights.values.len(),
        };
        Ok((weights, num_trained))
    }

    fn trainable(&self, mut weights: Weights, trained: Option<Vec<f32>>) -> Trainable {
        let float = self.context.profile.model.float;
        if self.has_adapters() {
            let place = self.context.place;
            let key = StreamKey {
                run_seed: self.context.profile.seed,
                iteration: place.iteration,
                phase: place.phase,
                step: 0,
                row: 0,
                sample: 0,
            };
            return Trainable::adapters_of(weights, float, &self.settings.lora, trained, &mut random_stream("adapters", &key));
        }
        match (float, trained) {
            // Between updates even weights that a checkpoint would hold as they are stand in the state.
            (FloatType::F32, Some(trained)) => {
                weights.values = trained;
                Trainable::weights_of(weights, float, None)
            }
            (_, trained) => Trainable::weights_of(weights, float, trained),
        }
    }

    /// Refuses a policy and a reference of different sizes.
    fn require_same_model(&self, reference: &Weights) -> anyhow::Result<()> {
        if ModelConfig::read(self.inputs.path("policy")?)? == reference.config {
            return Ok(());
        }
        let message = "the policy and the checkpoint it is held to are models of different sizes".to_owned();
        Err(StageFailure::input(message).hint("the base model was probably exchanged; begin a new run directory").into())
    }
}
