//! `grpo-gradient`: some parts of the gradient of one update, so that many processes share a step.
//!
//! Reads what `grpo-step` reads. Each process makes whole parts: the gradient of some micro-batches, added in order, in one safetensors file a
//! part, and a row of `gradient_sums` with what their tokens add to the step's figures. `grpo-step --from-gradients` adds the parts up. A process
//! for which no part is left writes a table without rows.

use crate::args::{CommonArgs, EXIT_CODES_HELP};
use crate::checkpoints::role_of;
use crate::console::Progress;
use crate::context::StageContext;
use crate::frame::run_stage;
use crate::inputs::StageInputs;
use crate::outputs::StageOutputs;
use crate::stages::grpo_step::logprobs::complete;
use crate::stages::grpo_step::plan::{RoleSettings, tell};
use crate::stages::grpo_step::shared::{GRADIENT, UpdateOfStep, part_name, state_before, tell_if_applied};
use crate::stages::grpo_step::start::Reading;
use crate::stages::grpo_step::{samples, scored_rollouts, step_inputs, stopped};
use rzero_model::ModelConfig;
use rzero_model::tensor_file::{self, Tensor};
use rzero_schema::tables::GradientSum;
use rzero_schema::vocab::{FloatType, Phase, Role, Stage};
use rzero_train::grpo::{GrpoStep, TokenSums, Update, check};
use std::ops::Range;

/// Make parts of the gradient of one update of a policy.
#[derive(Debug, clap::Parser)]
#[command(name = "grpo-gradient", version, after_help = EXIT_CODES_HELP)]
pub struct Args {
    #[command(flatten)]
    common: CommonArgs,

    /// Which update of the step, from 1; left out where a step has one
    #[arg(long, value_name = "N")]
    update: Option<u32>,
}

/// Runs the stage.
///
/// # Errors
/// As [`run_stage`]; also when rollouts and labels do not fit one another, or the model does not take them.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut context = StageContext::new(Stage::GrpoGradient, &args.common, &[Phase::Challenger, Phase::Verifier, Phase::Solver])?;
    let role = role_of(context.place.phase);
    let update = UpdateOfStep::resolve(&context, role, args.update)?;
    if tell_if_applied(&context, update, update.number) {
        return Ok(());
    }
    context.place = context.place.at_update(update.number);
    let inputs = step_inputs(&context, role)?;
    if context.is_dry_run {
        tell(&context, role, &inputs)?;
    }
    run_stage(&context, inputs, |inputs, outputs| make_parts(&context, role, update, inputs, outputs))
}

fn make_parts(
    context: &StageContext,
    role: Role,
    update: UpdateOfStep,
    inputs: &StageInputs<'_>,
    outputs: &mut StageOutputs<'_>,
) -> anyhow::Result<()> {
    let RoleSettings { grpo: settings, length_limit, .. } = RoleSettings::of(context, role)?;
    let (mut rollouts, scored) = scored_rollouts(context, role, inputs)?;
    let reading = Reading { context, inputs, settings };
    let asked = update.range(rollouts.len(), settings);
    let num_computed = complete(&reading, &mut rollouts, &asked)?;
    if num_computed > 0 {
        outputs.count("rollouts_without_all_logprobs", num_computed);
    }
    let samples = samples(&rollouts, &scored.rows)?;
    check(&samples)?;
    let config = ModelConfig::read(inputs.path("policy")?)?;
    let laid_out = Update::new(update.samples(&samples, settings), settings, &config)?;
    let parts = laid_out.as_ref().map_or_else(Vec::new, |update| parts_of_shard(context, update, settings.gradient_parts));
    let (Some(laid_out), Some((_, first)), Some((_, last))) = (&laid_out, parts.first(), parts.last()) else {
        return outputs.write_table::<GradientSum>(&[]);
    };
    let all = first.start..last.end;

    let before = state_before(context, inputs, update, outputs)?;
    let accelerator = context.device.open()?;
    let interrupt = context.interrupt.flag();
    let ask = |weights: &_| laid_out.reference(weights, all.clone(), accelerator.as_ref(), interrupt);
    let (policy, reference) = reading.policy(before.as_deref(), ask)?;
    let progress = Progress::start("gradient", laid_out.num_tokens(all.clone()) as u64, "tokens");
    let step = GrpoStep {
        settings,
        learning_rate: 0.0,
        length_limit,
        reference: None,
        accelerator: accelerator.as_ref(),
        interrupt,
        on_tokens: &|count: usize| progress.advance(count as u64),
    };
    let num_trained = policy.values().len();
    let mut gradient = vec![0f32; num_trained];
    let mut rows = Vec::with_capacity(parts.len());
    for (part, batches) in parts {
        gradient.fill(0.0);
        let sums = laid_out.gradient(&policy, batches.clone(), reference.as_deref(), &step, &mut gradient).map_err(stopped)?;
        let tensor = Tensor { name: GRADIENT, shape: &[num_trained], values: &gradient };
        outputs.write_file_with(&outputs.path(&part_name(part, settings.gradient_parts)), |out| {
            Ok(tensor_file::write(out, &[tensor], FloatType::F32, &[])?)
        })?;
        rows.push(row(update.number, part, settings.gradient_parts, batches, &sums));
    }
    outputs.write_table(&rows)
}

/// The parts that this shard makes, each with its micro-batches. Shards take neighbouring parts.
fn parts_of_shard(context: &StageContext, update: &Update<'_>, num_parts: usize) -> Vec<(usize, Range<usize>)> {
    let start = |index: u32| num_parts * index as usize / context.shard.num as usize;
    let mine = start(context.shard.index)..start(context.shard.index + 1);
    mine.map(|part| (part, update.part(part, num_parts))).filter(|(_, batches)| !batches.is_empty()).collect()
}

fn row(update: u32, part: usize, num_parts: usize, batches: Range<usize>, sums: &TokenSums) -> GradientSum {
    GradientSum {
        update,
        part: part as u32,
        num_parts: num_parts as u32,
        first_micro_batch: batches.start as u32,
        num_micro_batches: batches.len() as u32,
        num_tokens: sums.tokens,
        loss: sums.loss,
        surrogate_loss: sums.surrogate,
        kl_reference: sums.kl_reference,
        kl_old: sums.kl_old,
        entropy: sums.entropy,
        num_clipped_low: sums.clipped_low as u64,
        num_clipped_high: sums.clipped_high as u64,
        logprob_difference: sums.difference,
        logprob_difference_max: sums.difference_max,
    }
}
