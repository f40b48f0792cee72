//! The rows that tell of a step: `train_metrics`, which are equal for equal runs, and `step_timings`, which are not.

use super::rewards::Scored;
use crate::context::StageContext;
use rzero_schema::tables::{RewardRow, Rollout, StepTiming, TrainMetrics};
use rzero_schema::vocab::FinishReason;
use rzero_train::grpo::{GrpoMetrics, GrpoTimings};
use std::time::{Duration, Instant};

pub(super) fn metrics(
    context: &StageContext,
    rollouts: &[Rollout],
    scored: &Scored,
    figures: &GrpoMetrics,
    learning_rate: f64,
) -> TrainMetrics {
    let place = context.place;
    let rewards: Vec<f64> = scored.rows.iter().map(|row| row.reward).collect();
    let lengths: Vec<u32> = rollouts.iter().map(|rollout| rollout.completion_tokens.len() as u32).collect();
    let num_truncated = rollouts.iter().filter(|rollout| rollout.finish_reason == FinishReason::Length.as_str()).count();
    let (reward_mean, reward_std) = mean_and_deviation(&rewards);
    let is_well_formed = |row: &&RewardRow| row.status == scored.good_status;
    let mean_of_good = |part: fn(&RewardRow) -> Option<f64>| {
        let values: Vec<f64> = scored.rows.iter().filter(is_well_formed).filter_map(part).collect();
        (!values.is_empty()).then(|| mean_and_deviation(&values).0)
    };
    let num_rollouts = rollouts.len().max(1) as f64;
    TrainMetrics {
        iteration: place.iteration,
        phase: place.phase.to_string(),
        step: place.step,
        num_rollouts: rollouts.len() as u32,
        num_completion_tokens: lengths.iter().map(|length| u64::from(*length)).sum(),
        reward_mean,
        reward_std,
        uncertainty_mean: mean_of_good(|row| row.uncertainty),
        repetition_mean: mean_of_good(|row| row.repetition),
        format_mean: scored.rows.iter().filter(is_well_formed).count() as f64 / num_rollouts,
        num_groups: scored.num_groups,
        zero_variance_share: f64::from(scored.num_zero_variance_groups) / f64::from(scored.num_groups.max(1)),
        loss: figures.loss,
        surrogate_loss: figures.surrogate_loss,
        kl_reference: figures.kl_reference,
        kl_old: figures.kl_old,
        entropy: figures.entropy,
        clip_low_share: figures.clip_low_share,
        clip_high_share: figures.clip_high_share,
        gradient_norm: figures.gradient_norm,
        learning_rate,
        completion_length_mean: lengths.iter().map(|length| f64::from(*length)).sum::<f64>() / num_rollouts,
        completion_length_min: lengths.iter().min().copied().unwrap_or(0),
        completion_length_max: lengths.iter().max().copied().unwrap_or(0),
        truncated_share: num_truncated as f64 / num_rollouts,
        sampler_trainer_logprob_max: figures.logprob_difference_max,
        sampler_trainer_logprob_mean: figures.logprob_difference_mean,
    }
}

/// Mean, and deviation with n - 1; 0 where there are fewer than two values.
fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, if values.len() < 2 { 0.0 } else { (squares / (count - 1.0)).sqrt() })
}

pub(super) fn timing(
    context: &StageContext,
    started: Instant,
    reward: Duration,
    reference: Duration,
    timings: &GrpoTimings,
    write: Duration,
    num_tokens: u64,
) -> StepTiming {
    StepTiming {
        iteration: context.place.iteration,
        phase: context.place.phase.to_string(),
        step: context.place.step,
        reward_seconds: reward.as_secs_f64(),
        reference_seconds: reference.as_secs_f64(),
        gradient_seconds: timings.gradient.as_secs_f64(),
        optimizer_seconds: timings.optimizer.as_secs_f64(),
        write_seconds: write.as_secs_f64(),
        tokens_per_second: num_tokens as f64 / started.elapsed().as_secs_f64().max(1e-9),
    }
}
