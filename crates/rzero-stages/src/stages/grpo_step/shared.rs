//! A step whose gradient is shared out: map and reduce over files.
//!
//! ```text
//! RUN/…/step-03/update-01/grpo-gradient/part-00002-of-00008.safetensors   by any number of processes, each some whole parts
//!                                       gradient_sums-…parquet            the tokens and losses of each part
//! RUN/…/step-03/update-01/grpo-step/state.safetensors                     after all updates but the last: weights, moments, figures
//! RUN/…/step-03/grpo-step/checkpoint/                                     after the last, as a step in one process leaves it
//! ```
//!
//! g = g_1 + g_2 + ... over the parts, in order; then clipping and AdamW. Everything in the update folders follows from the step's declared
//! inputs, which every file here is held against, and may be removed when the step is done.

use super::start::Reading;
use crate::console::print_product;
use crate::context::StageContext;
use crate::exit::StageFailure;
use crate::inputs::StageInputs;
use crate::outputs::StageOutputs;
use rzero_io::error::IoError;
use rzero_io::layout::Shard;
use rzero_io::set::StageOutput;
use rzero_model::tensor_file::TensorFile;
use rzero_schema::ids::Place;
use rzero_schema::manifest::Manifest;
use rzero_schema::profile::GrpoSettings;
use rzero_schema::tables::GradientSum;
use rzero_schema::vocab::{Role, Stage};
use rzero_train::TrainError;
use rzero_train::checkpoint::TrainState;
use rzero_train::gradient::add;
use rzero_train::grpo::{GrpoSample, GrpoTimings, StepTotals, TokenSums, Update, apply, check, updates};
use rzero_train::trainable::Trainable;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Name of the tensor in a part's file.
pub(crate) const GRADIENT: &str = "gradient";

/// File of a part of a gradient.
pub(crate) fn part_name(part: usize, num_parts: usize) -> String {
    format!("part-{part:05}-of-{num_parts:05}.safetensors")
}

/// One update of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UpdateOfStep {
    /// From 1.
    pub(crate) number: u32,
    /// Updates of a step by the profile.
    num_updates: u32,
}

impl UpdateOfStep {
    /// The update that was typed, which need not be where a step has one.
    ///
    /// # Errors
    /// When there is no such update: exit code 2.
    pub(crate) fn resolve(context: &StageContext, role: Role, typed: Option<u32>) -> anyhow::Result<Self> {
        let num_updates = context.profile.num_updates(role);
        let number = match typed {
            None if num_updates == 1 => 1,
            None => {
                let message = format!("a step of the {role} has {num_updates} updates");
                return Err(StageFailure::usage(message).hint("name one with --update, from 1").into());
            }
            Some(number) if (1..=num_updates).contains(&number) => number,
            Some(number) => {
                let message = format!("update {number} is not one of the {num_updates} updates of a step of the {role}");
                let hint = format!("updates count from 1; a step has its rollouts by {role}.grpo.update_batch of them");
                return Err(StageFailure::usage(message).hint(hint).into());
            }
        };
        Ok(Self { number, num_updates })
    }

    /// Whether it leaves the step's checkpoint.
    pub(crate) fn is_last(self) -> bool {
        self.number == self.num_updates
    }

    /// Where grpo-step leaves this update.
    pub(crate) fn place(self, step: Place) -> Place {
        if self.is_last() { step.at_update(0) } else { step.at_update(self.number) }
    }

    /// The samples of this update, which may be none: a curriculum can have fewer questions than the profile asks for.
    pub(crate) fn samples<'a, 'b>(self, samples: &'a [GrpoSample<'b>], settings: &GrpoSettings) -> &'a [GrpoSample<'b>] {
        self.range(samples.len(), settings).first().map_or(&[], |range| &samples[range.clone()])
    }

    /// Which samples of a step of so many belong to this update; nothing where it has none.
    pub(crate) fn range(self, num_samples: usize, settings: &GrpoSettings) -> Vec<std::ops::Range<usize>> {
        updates(num_samples, settings).into_iter().skip(self.number as usize - 1).take(1).collect()
    }
}

/// Says so and answers yes where update `first`, or one after it, is done already: what led to it may be gone then.
pub(crate) fn tell_if_applied(context: &StageContext, update: UpdateOfStep, first: u32) -> bool {
    let places = (first..=update.num_updates).map(|number| UpdateOfStep { number, ..update }.place(context.place));
    let is_done = |place: &Place| StageOutput::open(&context.layout, Stage::GrpoStep, *place).is_ok();
    let Some(place) = places.filter(|_| !context.is_overwrite).find(is_done) else { return false };
    let manifest = context.layout.manifest(Stage::GrpoStep, place, Shard::WHOLE);
    tracing::info!(manifest = %manifest.display(), "the gradient was used already");
    print_product(manifest.display());
    true
}

/// The state that the update before this one left; none at the first.
pub(crate) fn state_before(
    context: &StageContext,
    inputs: &StageInputs<'_>,
    update: UpdateOfStep,
    outputs: &mut StageOutputs<'_>,
) -> anyhow::Result<Option<PathBuf>> {
    if update.number == 1 {
        return Ok(None);
    }
    let place = context.place.at_update(update.number - 1);
    open_derived(context, inputs, Stage::GrpoStep, place, outputs)?;
    Ok(Some(context.layout.update_state(place)))
}

/// Opens output that must have been made from the inputs of this very step, and notes that it was read.
fn open_derived(
    context: &StageContext,
    inputs: &StageInputs<'_>,
    stage: Stage,
    place: Place,
    outputs: &mut StageOutputs<'_>,
) -> anyhow::Result<StageOutput> {
    let mut command = context.layout.command(stage, place);
    if stage == Stage::GrpoStep {
        command.push_str(" --from-gradients");
    }
    let output = StageOutput::open(&context.layout, stage, place).map_err(|error| match error {
        IoError::NoOutput { stage, folder, .. } => IoError::NoOutput { stage, folder, command: command.clone() },
        other => other,
    })?;
    output.verify_digests()?;
    let expected: Vec<_> = inputs.records().into_iter().map(|record| (record.path, record.digest)).collect();
    let is_of_step = |manifest: &Manifest| {
        manifest.profile_digest == context.profile_digest
            && manifest.inputs.iter().map(|record| (&record.path, &record.digest)).eq(expected.iter().map(|(a, b)| (a, b)))
    };
    if !output.manifests().iter().all(is_of_step) {
        let folder = context.layout.shown(&context.layout.stage_folder(stage, place));
        let message = format!("{} was made from other rollouts, weights or settings than this step has", folder.display());
        return Err(StageFailure::input(message).hint(format!("run {command} --overwrite, in all shards")).into());
    }
    outputs.note_derived(output.input_records());
    Ok(output)
}

/// Adds up the parts of an update, moves the policy, and returns the figures of the step up to this update.
pub(crate) fn apply_parts(
    reading: &Reading<'_>,
    outputs: &mut StageOutputs<'_>,
    update: UpdateOfStep,
    samples: &[GrpoSample<'_>],
    learning_rate: f64,
    policy: &mut Trainable,
    state: &mut TrainState,
) -> anyhow::Result<(StepTotals, GrpoTimings)> {
    let Reading { context, inputs, settings } = *reading;
    check(samples)?;
    let mut totals = state.totals.take().unwrap_or_default();
    let mut timings = GrpoTimings::default();
    let place = context.place.at_update(update.number);
    let output = open_derived(context, inputs, Stage::GrpoGradient, place, outputs)?;
    let rows = output.read::<GradientSum>()?;
    let laid_out = Update::new(update.samples(samples, settings), settings, &policy.weights().config)?;
    require_all_parts(context, place, laid_out.as_ref(), settings.gradient_parts, &rows)?;
    if rows.is_empty() {
        return Ok((totals, timings));
    }
    let clock = Instant::now();
    let folder = context.layout.stage_folder(Stage::GrpoGradient, place);
    let num_trained = policy.values().len();
    let (mut gradient, mut sums) = (vec![0f32; num_trained], TokenSums::default());
    let mut of_part = vec![0f32; if rows.len() > 1 { num_trained } else { 0 }];
    for (index, row) in rows.iter().enumerate() {
        context.interrupt.check()?;
        let path = folder.join(part_name(row.part as usize, row.num_parts as usize));
        let target = if index == 0 { &mut gradient } else { &mut of_part };
        read_part(&path, target)?;
        sums.add(&token_sums(row));
        if index > 0 {
            add(&mut gradient, 0..num_trained, &of_part);
        }
    }
    timings.gradient = clock.elapsed();
    let clock = Instant::now();
    let norm = apply(policy, &mut state.adam, &gradient, &sums, settings, learning_rate)?;
    timings.optimizer = clock.elapsed();
    totals.add(sums, norm);
    Ok((totals, timings))
}

/// The parts must be those that this process would cut the update into, in order.
fn require_all_parts(
    context: &StageContext,
    place: Place,
    update: Option<&Update<'_>>,
    num_parts: usize,
    rows: &[GradientSum],
) -> anyhow::Result<()> {
    let parts = (0..num_parts).map(|part| (part, update.map_or(0..0, |update| update.part(part, num_parts))));
    let expected = parts.filter(|(_, batches)| !batches.is_empty());
    let found = rows.iter().map(|row| (row.part as usize, row.num_parts as usize, row.num_micro_batches as usize));
    if expected.map(|(part, batches)| (part, num_parts, batches.len())).eq(found) {
        return Ok(());
    }
    let folder = context.layout.shown(&context.layout.stage_folder(Stage::GrpoGradient, place));
    let message = format!("the parts in {} are not those of this update", folder.display());
    let command = context.layout.command(Stage::GrpoGradient, place);
    Err(StageFailure::input(message).hint(format!("run {command} --overwrite, in all shards")).into())
}

fn read_part(path: &Path, target: &mut [f32]) -> Result<(), TrainError> {
    let mut file = TensorFile::open(path)?;
    Ok(file.read(GRADIENT, &[target.len()], target)?)
}

fn token_sums(row: &GradientSum) -> TokenSums {
    TokenSums {
        loss: row.loss,
        surrogate: row.surrogate_loss,
        kl_reference: row.kl_reference,
        kl_old: row.kl_old,
        entropy: row.entropy,
        clipped_low: row.num_clipped_low as f64,
        clipped_high: row.num_clipped_high as f64,
        difference: row.logprob_difference,
        difference_max: row.logprob_difference_max,
        tokens: row.num_tokens,
    }
}

/// Removes what an update no longer needs: its parts, and after the last one all that stood between the updates of the step.
pub(crate) fn drop_used(context: &StageContext, update: UpdateOfStep) -> anyhow::Result<()> {
    let step = context.place.at_update(0);
    let remove = |folder: &Path| context.layout.remove_folder(folder);
    if !update.is_last() {
        remove(&context.layout.stage_folder(Stage::GrpoGradient, step.at_update(update.number)))?;
        // The state before this one has been used as well.
        return if update.number > 1 { Ok(remove(&context.layout.update_folder(step, update.number - 1))?) } else { Ok(()) };
    }
    for number in 1..=update.num_updates {
        remove(&context.layout.update_folder(step, number))?;
    }
    Ok(())
}
