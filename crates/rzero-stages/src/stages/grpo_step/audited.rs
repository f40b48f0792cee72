//! The rows of a step that follow from other rows, for who holds them against those that were written.

use super::figures::metrics;
use super::plan::RoleSettings;
use super::{learning_rate, scored_rollouts, with_scored};
use crate::checkpoints::role_of;
use crate::context::StageContext;
use crate::inputs::StageInputs;
use rzero_schema::tables::{RewardRow, TrainMetrics};
use rzero_train::grpo::GrpoMetrics;

/// Rewards, and the figures of a step. Those that only the update itself could tell (loss, divergence, entropy, ...) are taken from `found`.
pub(crate) fn step_rows(context: &StageContext, found: &TrainMetrics) -> anyhow::Result<(Vec<RewardRow>, TrainMetrics)> {
    let role = role_of(context.place.phase);
    let inputs = with_scored(StageInputs::new(context), context, role)?;
    let (rollouts, scored) = scored_rollouts(context, role, &inputs.require_all()?)?;
    let figures = GrpoMetrics {
        loss: found.loss,
        surrogate_loss: found.surrogate_loss,
        kl_reference: found.kl_reference,
        kl_old: found.kl_old,
        entropy: found.entropy,
        clip_low_share: found.clip_low_share,
        clip_high_share: found.clip_high_share,
        gradient_norm: found.gradient_norm,
        logprob_difference_max: found.sampler_trainer_logprob_max,
        logprob_difference_mean: found.sampler_trainer_logprob_mean,
        num_tokens: found.num_completion_tokens,
        num_updates: 0,
    };
    let learning_rate = learning_rate(context, RoleSettings::of(context, role)?.grpo);
    let metrics = metrics(context, &rollouts, &scored, &figures, learning_rate);
    Ok((scored.rows, metrics))
}
