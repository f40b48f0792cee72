//! `grpo-step`: one step of a policy's training: rewards, advantages, the update, the next checkpoint.
//!
//! Reads the step's rollouts, what their rewards follow from (labels of the Solver's answers, or the curriculum's pseudo-labels), the
//! policy and the optimiser's state of the step before, and the reference: the checkpoint that the phase started from. Writes
//! `rewards`, `train_metrics`, `step_timings`, `checkpoint/`, `optimizer.safetensors`; the last step also the phase's checkpoint.
//!
//! With `--from-gradients` it computes no gradient: it adds the parts that `grpo-gradient` made of an update ([`shared`]). What it leaves is the
//! same, to the byte.

pub(crate) mod audited;
mod figures;
pub(crate) mod logprobs;
pub(crate) mod plan;
pub(crate) mod rewards;
pub(crate) mod shared;
pub(crate) mod start;
mod write;

use crate::answers::finish_reason;
use crate::args::{CommonArgs, EXIT_CODES_HELP};
use crate::checkpoints::role_of;
use crate::console::Progress;
use crate::context::StageContext;
use crate::curricula::{curriculum_place, with_curricula};
use crate::exit::StageFailure;
use crate::frame::run_stage;
use crate::inputs::StageInputs;
use crate::interrupt::Interrupted;
use crate::outputs::StageOutputs;
use figures::{metrics, timing};
use plan::{RoleSettings, gigabytes};
use rewards::Scored;
use rzero_model::ModelError;
use rzero_schema::ids::Place;
use rzero_schema::profile::GrpoSettings;
use rzero_schema::tables::{RewardRow, Rollout};
use rzero_schema::vocab::{FinishReason, Objective, Phase, Role, Stage};
use rzero_train::TrainError;
use rzero_train::batch::Sequence;
use rzero_train::grpo::{GrpoSample, GrpoStep, grpo_step, reference_logprobs, updates};
use rzero_train::memory::peak_bytes;
use shared::UpdateOfStep;
use start::{Reading, Start};
use std::time::Instant;
use write::{write_adapters, write_checkpoint};

/// Make one GRPO step of a policy: Challenger, Verifier or Solver.
#[derive(Debug, clap::Parser)]
#[command(name = "grpo-step", version, after_help = EXIT_CODES_HELP)]
pub struct Args {
    #[command(flatten)]
    common: CommonArgs,

    /// Compute no gradient, add the parts that grpo-gradient made; with --update where the step has several
    #[arg(long, help_heading = "A gradient that is shared out")]
    from_gradients: bool,

    /// Which update of the step, from 1; the last one leaves the step's checkpoint
    #[arg(long, value_name = "N", requires = "from_gradients", help_heading = "A gradient that is shared out")]
    update: Option<u32>,

    /// Remove parts of the gradient, and what stood between updates, once they are used
    #[arg(long, requires = "from_gradients", help_heading = "A gradient that is shared out")]
    drop_gradients: bool,
}

/// Runs the stage.
///
/// # Errors
/// As [`run_stage`]; also when rollouts and labels do not fit one another, or the update fails.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut context = StageContext::new(Stage::GrpoStep, &args.common, &[Phase::Challenger, Phase::Verifier, Phase::Solver])?;
    context.require_unsharded()?;
    let role = role_of(context.place.phase);
    if !args.from_gradients {
        let inputs = step_inputs(&context, role)?;
        if context.is_dry_run {
            plan::tell(&context, role, &inputs)?;
        }
        return run_stage(&context, inputs, |inputs, outputs| step_policy(&context, role, inputs, outputs, None));
    }
    let update = UpdateOfStep::resolve(&context, role, args.update)?;
    if !update.is_last() {
        if shared::tell_if_applied(&context, update, update.number + 1) {
            return Ok(());
        }
        context.place = context.place.at_update(update.number);
    }
    let inputs = step_inputs(&context, role)?;
    run_stage(&context, inputs, |inputs, outputs| step_policy(&context, role, inputs, outputs, Some(update)))?;
    if args.drop_gradients && !context.is_dry_run { shared::drop_used(&context, update) } else { Ok(()) }
}

/// What decides a step, however its gradient is made.
pub(crate) fn step_inputs(context: &StageContext, role: Role) -> anyhow::Result<StageInputs<'_>> {
    let place = context.place.at_update(0);
    let Place { iteration, step, .. } = place;
    let mut inputs = StageInputs::new(context)
        .with_checkpoint("policy", &context.policy_checkpoint(role, iteration, step)?)
        .with_checkpoint("reference", &context.start_checkpoint(role, iteration)?);
    if step > 1 {
        inputs = inputs.with_file("optimizer", &context.layout.step_optimizer(Place { step: step - 1, ..place }));
    }
    with_scored(inputs, context, role)
}

/// Declares what the rewards of a step follow from.
fn with_scored<'a>(inputs: StageInputs<'a>, context: &StageContext, role: Role) -> anyhow::Result<StageInputs<'a>> {
    let place = context.place.at_update(0);
    let is_judged = context.profile.is_judged(place.iteration, place.phase);
    Ok(match role {
        Role::Challenger => {
            let inputs = inputs.with_stage_at(Stage::ChallengeGen, place).with_stage_at(Stage::VoteLabel, place);
            let memory = curriculum_place(place.iteration.saturating_sub(1));
            if rewards::remembers(context) { inputs.with_stage_at(Stage::Remember, memory) } else { inputs }
        }
        Role::Verifier => inputs.with_stage_at(Stage::Verify, place),
        Role::Solver => {
            let inputs = with_curricula(inputs.with_stage_at(Stage::SolveSample, place), context)?;
            if is_judged { inputs.with_stage_at(Stage::Verify, place) } else { inputs }
        }
    })
}

/// The step's rollouts with their rewards and advantages.
pub(crate) fn scored_rollouts(
    context: &StageContext,
    role: Role,
    inputs: &StageInputs<'_>,
) -> anyhow::Result<(Vec<Rollout>, Scored)> {
    match role {
        Role::Challenger => rewards::challenger(context, inputs),
        Role::Solver => rewards::solver(context, inputs),
        Role::Verifier => rewards::verifier(context, inputs),
    }
}

fn step_policy(
    context: &StageContext,
    role: Role,
    inputs: &StageInputs<'_>,
    outputs: &mut StageOutputs<'_>,
    shared: Option<UpdateOfStep>,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let profile = &context.profile;
    let RoleSettings { grpo: settings, length_limit, num_steps, .. } = RoleSettings::of(context, role)?;
    let (mut rollouts, scored) = scored_rollouts(context, role, inputs)?;
    let reward_time = started.elapsed();

    let learning_rate = learning_rate(context, settings);
    let clock = Instant::now();
    let reading = Reading { context, inputs, settings };
    // Who adds up gradients that others made asks for no log-probability.
    let asked = if shared.is_none() { updates(rollouts.len(), settings) } else { Vec::new() };
    let num_computed = logprobs::complete(&reading, &mut rollouts, &asked)?;
    if num_computed > 0 {
        outputs.count("rollouts_without_all_logprobs", num_computed);
    }
    if profile.solver.objective == Objective::Sft && role == Role::Solver && shared.is_none() {
        // The loss of what was shown, before the step: the loss of the policy gradient itself tells nothing, its ratios are 1.
        let logprobs = || rollouts.iter().flat_map(|rollout| &rollout.policy_logprobs);
        let loss = -logprobs().map(|logprob| f64::from(*logprob)).sum::<f64>() / logprobs().count().max(1) as f64;
        outputs.metric("negative_log_likelihood", loss);
    }
    let samples = samples(&rollouts, &scored.rows)?;
    let (mut policy, mut state, figures, timings, reference_time);
    match shared {
        None => {
            let accelerator = context.device.open()?;
            let interrupt = context.interrupt.flag();
            let ask = |weights: &_| reference_logprobs(weights, &samples, settings, accelerator.as_ref(), interrupt);
            let start = reading.start(reading.optimizer()?, Some(ask))?;
            reference_time = clock.elapsed();
            let progress = Progress::start("updating", num_completion_tokens(&samples) as u64, "tokens");
            let step = GrpoStep {
                settings,
                learning_rate,
                length_limit,
                reference: start.reference.as_deref(),
                accelerator: accelerator.as_ref(),
                interrupt,
                on_tokens: &|count: usize| progress.advance(count as u64),
            };
            (policy, state) = (start.policy, start.state);
            (figures, timings) = grpo_step(&mut policy, &mut state.adam, &samples, &step).map_err(stopped)?;
        }
        Some(update) => {
            let before = shared::state_before(context, inputs, update, outputs)?;
            let Start { policy: read, state: read_state, .. } = reading.start_shared(before.as_deref())?;
            reference_time = clock.elapsed();
            (policy, state) = (read, read_state);
            let (totals, spent) =
                shared::apply_parts(&reading, outputs, update, &samples, learning_rate, &mut policy, &mut state)?;
            if !update.is_last() {
                state.totals = Some(totals);
                let path = context.layout.update_state(context.place);
                return outputs.write_file_with(&path, |out| Ok(state.write_safetensors(out, Some(policy.values()))?));
            }
            (figures, timings) = (totals.metrics()?, spent);
        }
    }
    state.update_average(policy.values(), settings.weight_ema);

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
    let float = profile.model.float;
    write_checkpoint(outputs, &checkpoint, source, policy.weights(), float)?;
    if let Some(parameters) = policy.adapters() {
        write_adapters(outputs, settings, parameters, policy.values())?;
    }
    outputs.write_file_with(&outputs.path("optimizer.safetensors"), |out| {
        Ok(state.write_safetensors(out, policy.values_beside_checkpoint())?)
    })?;
    if context.place.step == num_steps {
        if let Some(average) = state.average {
            policy.replace(average);
        }
        let published = context.layout.phase_checkpoint(context.place.iteration, context.place.phase);
        write_checkpoint(outputs, &published, source, policy.weights(), float)?;
    }
    let peak = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| peak_bytes(&status));
    if let Some(peak) = peak {
        tracing::info!("held {} at most", gigabytes(peak as usize));
        outputs.metric("peak_memory_bytes", peak as f64);
    }
    outputs.write_table(&[timing(context, started, reward_time, reference_time, &timings, writing.elapsed(), tokens)])
}

/// The learning rate of an iteration.
fn learning_rate(context: &StageContext, settings: &GrpoSettings) -> f64 {
    settings.learning_rate * settings.learning_rate_decay.powi(context.place.iteration.saturating_sub(1) as i32)
}

pub(crate) fn stopped(error: TrainError) -> anyhow::Error {
    match error {
        TrainError::Interrupted | TrainError::Model(ModelError::Interrupted) => Interrupted.into(),
        other => other.into(),
    }
}

/// The rollouts as the trainer takes them.
pub(crate) fn samples<'a>(rollouts: &'a [Rollout], rows: &[RewardRow]) -> anyhow::Result<Vec<GrpoSample<'a>>> {
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

fn num_completion_tokens(samples: &[GrpoSample<'_>]) -> usize {
    samples.iter().map(|sample| sample.sequence.completion.len()).sum()
}

/// An input that names a question which is not where it should be.
pub(super) fn mismatch(message: String, rerun: &str) -> anyhow::Error {
    StageFailure::input(message).hint(format!("remove the output of {rerun} at this place and run it again")).into()
}
