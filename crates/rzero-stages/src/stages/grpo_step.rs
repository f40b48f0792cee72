//! `grpo-step`: one step of a policy's training: rewards, advantages, the update, the next checkpoint.
//!
//! Reads the step's rollouts, what their rewards follow from (labels of the Solver's answers, or the curriculum's pseudo-labels), the
//! policy and the optimiser's state of the step before, and the reference: the checkpoint that the phase started from. Writes
//! `rewards`, `train_metrics`, `step_timings`, `checkpoint/`, `optimizer.safetensors`; the last step also the phase's checkpoint.

mod rewards;

use crate::answers::finish_reason;
use crate::args::{CommonArgs, EXIT_CODES_HELP};
use crate::console::Progress;
use crate::context::StageContext;
use crate::exit::StageFailure;
use crate::frame::run_stage;
use crate::inputs::{COMPANION_FILES, StageInputs};
use crate::interrupt::Interrupted;
use crate::outputs::StageOutputs;
use crate::stages::solve_sample::curriculum_place;
use anyhow::Context;
use rzero_model::{ModelError, Weights};
use rzero_schema::ids::Place;
use rzero_schema::profile::GrpoSettings;
use rzero_schema::tables::{RewardRow, Rollout, StepTiming, TrainMetrics};
use rzero_schema::vocab::{FinishReason, Phase, Role, Stage};
use rzero_train::TrainError;
use rzero_train::batch::Sequence;
use rzero_train::checkpoint::TrainState;
use rzero_train::grpo::{GrpoMetrics, GrpoSample, GrpoStep, GrpoTimings, grpo_step};
use std::path::Path;
use std::time::{Duration, Instant};

/// Make one GRPO update of the Challenger or the Solver.
#[derive(Debug, clap::Parser)]
#[command(name = "grpo-step", version, after_help = EXIT_CODES_HELP)]
pub struct Args {
    #[command(flatten)]
    common: CommonArgs,
}

/// Runs the stage.
///
/// # Errors
/// As [`run_stage`]; also when rollouts and labels do not fit one another, or the update fails.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let context = StageContext::new(Stage::GrpoStep, &args.common, &[Phase::Challenger, Phase::Solver])?;
    context.require_unsharded()?;
    let Place { iteration, phase, step } = context.place;
    let role = if phase == Phase::Challenger { Role::Challenger } else { Role::Solver };
    let mut inputs = StageInputs::new(&context)
        .with_checkpoint("policy", &context.policy_checkpoint(role, iteration, step)?)
        .with_checkpoint("reference", &context.start_checkpoint(role, iteration)?);
    if step > 1 {
        inputs = inputs.with_file("optimizer", &context.layout.step_optimizer(Place { step: step - 1, ..context.place }));
    }
    let inputs = match role {
        Role::Challenger => inputs.with_stage(Stage::ChallengeGen).with_stage(Stage::VoteLabel),
        Role::Solver => inputs.with_stage(Stage::SolveSample).with_stage_at(Stage::Filter, curriculum_place(iteration)),
    };
    run_stage(&context, inputs, |inputs, outputs| step_policy(&context, role, inputs, outputs))
}

fn step_policy(
    context: &StageContext,
    role: Role,
    inputs: &StageInputs<'_>,
    outputs: &mut StageOutputs<'_>,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let profile = &context.profile;
    let (settings, length_limit, num_steps) = match role {
        Role::Challenger => (&profile.challenger.grpo, profile.challenger.question_sampling.max_tokens, profile.challenger.steps),
        Role::Solver => (&profile.solver.grpo, profile.solver.sampling.max_tokens, profile.solver.steps),
    };
    let (rollouts, scored) = match role {
        Role::Challenger => rewards::challenger(context, inputs)?,
        Role::Solver => rewards::solver(context, inputs)?,
    };
    let mut weights = Weights::read(inputs.path("policy")?)?;
    let reference = Weights::read(inputs.path("reference")?)?;
    if reference.config != weights.config {
        let message = "the policy and the checkpoint it is held to are models of different sizes".to_owned();
        return Err(StageFailure::input(message).hint("the base model was probably exchanged; begin a new run directory").into());
    }
    let mut state = read_state(context, inputs, &weights, settings)?;
    let samples = samples(&rollouts, &scored.rows)?;
    let reward_time = started.elapsed();

    let learning_rate =
        settings.learning_rate * settings.learning_rate_decay.powi(context.place.iteration.saturating_sub(1) as i32);
    let num_tokens: usize = samples.iter().map(|sample| sample.sequence.completion.len()).sum();
    let progress = Progress::start("updating", num_tokens as u64, "tokens");
    let on_tokens = |count: usize| progress.advance(count as u64);
    let interrupt = context.interrupt.flag();
    let step = GrpoStep { settings, learning_rate, length_limit, reference: &reference, interrupt, on_tokens: &on_tokens };
    let (figures, timings) = grpo_step(&mut weights, &mut state.adam, &samples, &step).map_err(|error| match error {
        TrainError::Interrupted | TrainError::Model(ModelError::Interrupted) => anyhow::Error::from(Interrupted),
        other => other.into(),
    })?;
    state.update_average(&weights.values, settings.weight_ema);

    let writing = Instant::now();
    let metrics = metrics(context, &rollouts, &scored, &figures, learning_rate);
    for (name, value) in [
        ("reward_mean", metrics.reward_mean),
        ("kl_reference", metrics.kl_reference),
        ("entropy", metrics.entropy),
        ("gradient_norm", metrics.gradient_norm),
        ("zero_variance_share", metrics.zero_variance_share),
    ] {
        outputs.metric(name, value);
    }
    let tokens = metrics.num_completion_tokens;
    outputs.write_table(&scored.rows)?;
    outputs.write_table(&[metrics])?;
    let source = inputs.path("policy")?;
    let checkpoint = outputs.path("checkpoint");
    write_checkpoint(outputs, &checkpoint, source, &weights)?;
    let optimizer = outputs.path("optimizer.safetensors");
    outputs.write_file(&optimizer, &state.to_safetensors())?;
    if context.place.step == num_steps {
        if let Some(average) = state.average {
            weights.values = average;
        }
        let published = context.layout.phase_checkpoint(context.place.iteration, context.place.phase);
        write_checkpoint(outputs, &published, source, &weights)?;
    }
    outputs.write_table(&[timing(context, started, reward_time, &timings, writing.elapsed(), tokens)])
}

fn read_state(
    context: &StageContext,
    inputs: &StageInputs<'_>,
    weights: &Weights,
    settings: &GrpoSettings,
) -> anyhow::Result<TrainState> {
    if context.place.step == 1 {
        return Ok(TrainState::new(&weights.values, settings.weight_ema));
    }
    let path = inputs.path("optimizer")?;
    let bytes = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(TrainState::from_safetensors(&bytes, weights.values.len(), path)?)
}

fn samples<'a>(rollouts: &'a [Rollout], rows: &[RewardRow]) -> anyhow::Result<Vec<GrpoSample<'a>>> {
    rollouts
        .iter()
        .zip(rows)
        .map(|(rollout, row)| {
            Ok(GrpoSample {
                sequence: Sequence { prompt: &rollout.prompt_tokens, completion: &rollout.completion_tokens },
                old_logprobs: &rollout.policy_logprobs,
                advantage: row.advantage,
                is_truncated: finish_reason(rollout)? == FinishReason::Length,
            })
        })
        .collect()
}

fn write_checkpoint(outputs: &mut StageOutputs<'_>, folder: &Path, source: &Path, weights: &Weights) -> anyhow::Result<()> {
    let companions = COMPANION_FILES.into_iter().filter(|name| source.join(name).is_file());
    for name in ["config.json", "tokenizer.json"].into_iter().chain(companions) {
        outputs.copy_file(&source.join(name), &folder.join(name))?;
    }
    outputs.write_file(&folder.join("model.safetensors"), &weights.to_safetensors())
}

fn metrics(
    context: &StageContext,
    rollouts: &[Rollout],
    scored: &rewards::Scored,
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

fn timing(
    context: &StageContext,
    started: Instant,
    reward: Duration,
    timings: &GrpoTimings,
    write: Duration,
    num_tokens: u64,
) -> StepTiming {
    StepTiming {
        iteration: context.place.iteration,
        phase: context.place.phase.to_string(),
        step: context.place.step,
        reward_seconds: reward.as_secs_f64(),
        reference_seconds: timings.reference.as_secs_f64(),
        gradient_seconds: timings.gradient.as_secs_f64(),
        optimizer_seconds: timings.optimizer.as_secs_f64(),
        write_seconds: write.as_secs_f64(),
        tokens_per_second: num_tokens as f64 / started.elapsed().as_secs_f64().max(1e-9),
    }
}

/// An input that names a question which is not where it should be.
pub(super) fn mismatch(message: String, rerun: &str) -> anyhow::Error {
    StageFailure::input(message).hint(format!("remove the output of {rerun} at this place and run it again")).into()
}
