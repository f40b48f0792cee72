//! Log-probabilities that rollouts lack, because a server wrote them: computed by the checkpoint that the server was to serve, before it moves.
//!
//! Rows that have all of theirs keep them. What a server told of the first tokens of a completion is kept as well, so that the figure
//! `sampler_trainer_logprob` tells how far the server is from the trainer.

use super::start::Reading;
use super::stopped;
use rzero_model::Weights;
use rzero_schema::tables::Rollout;
use rzero_train::batch::Sequence;
use rzero_train::grpo::{GrpoSample, Update};
use std::ops::Range;

/// Completes the log-probabilities of the rollouts of some updates; those of others, which nobody asks for, are filled up with zeros. Returns
/// how many rollouts lacked some.
///
/// # Errors
/// When the policy cannot be read or run.
pub(crate) fn complete(reading: &Reading<'_>, rollouts: &mut [Rollout], updates: &[Range<usize>]) -> anyhow::Result<u64> {
    let lacks = |rollout: &Rollout| rollout.policy_logprobs.len() < rollout.completion_tokens.len();
    let num_lacking = rollouts.iter().filter(|rollout| lacks(rollout)).count() as u64;
    if num_lacking == 0 {
        return Ok(0);
    }
    let interrupt = reading.context.interrupt.flag();
    let accelerator = reading.context.device.open()?;
    let weights = if updates.is_empty() { None } else { Some(Weights::read(reading.inputs.path("policy")?)?) };
    for (range, weights) in updates.iter().zip(weights.iter().cycle()) {
        let chosen: Vec<usize> = range.clone().filter(|index| lacks(&rollouts[*index])).collect();
        let samples: Vec<GrpoSample<'_>> = chosen.iter().map(|index| unscored(&rollouts[*index])).collect();
        let Some(update) = Update::new(&samples, reading.settings, &weights.config)? else { continue };
        let computed = update.reference(weights, update.whole(), accelerator.as_ref(), interrupt).map_err(stopped)?;
        for (index, logprobs) in chosen.into_iter().zip(computed) {
            let known = &mut rollouts[index].policy_logprobs;
            known.extend_from_slice(&logprobs[known.len()..]);
        }
    }
    for rollout in rollouts.iter_mut() {
        rollout.policy_logprobs.resize(rollout.completion_tokens.len(), 0.0);
    }
    Ok(num_lacking)
}

fn unscored(rollout: &Rollout) -> GrpoSample<'_> {
    let sequence = Sequence { prompt: &rollout.prompt_tokens, completion: &rollout.completion_tokens };
    GrpoSample { sequence, old_logprobs: &[], advantage: 0.0, is_truncated: false }
}
