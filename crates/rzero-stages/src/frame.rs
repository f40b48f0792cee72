//! The one way a stage runs: inputs, fingerprint, is it done already, work, manifest last.
//!
//! Equal fingerprints mean equal outputs: then the stage does nothing and exits 0. Output of another fingerprint is refused (exit 4)
//! unless `--overwrite`. Parts without a manifest, which a killed process leaves, count as nothing and are replaced.

use crate::console::print_product;
use crate::context::{StageContext, build, now};
use crate::exit::{StageFailure, hints};
use crate::inputs::StageInputs;
use crate::outputs::StageOutputs;
use crate::reuse;
use crate::run_record::RunRecord;
use rzero_io::atomic::{remove_file, remove_stale_temporaries};
use rzero_io::error::IoError;
use rzero_io::layout::{CHECKPOINT, Shard};
use rzero_io::manifest::{fingerprint, read_manifest, write_manifest_after};
use rzero_io::pruned;
use rzero_io::set::{check_sizes, finished_shards};
use rzero_schema::manifest::{MANIFEST_VERSION, Manifest};
use rzero_schema::vocab::Stage;
use std::path::Path;

/// Runs a stage: calls `work` unless its output is there already, then writes the manifest and prints its path.
///
/// # Errors
/// When an input is missing (exit 3), other output is in the way (4), a signal came (75), or `work` fails.
pub fn run_stage(
    context: &StageContext,
    inputs: StageInputs<'_>,
    work: impl FnOnce(&StageInputs<'_>, &mut StageOutputs<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if context.is_dry_run {
        return tell_plan(context, &inputs);
    }
    let inputs = inputs.require_all()?;
    let mut manifest = planned_manifest(context, &inputs);
    let manifest_path = context.layout.manifest(context.stage, context.place, context.shard);
    match output_state(context, &manifest_path, &manifest.fingerprint)? {
        OutputState::Complete => {
            tracing::info!(manifest = %manifest_path.display(), "already complete");
            print_product(context.layout.shown(&manifest_path).display());
            return Ok(());
        }
        OutputState::Unpublished => {
            tracing::info!(manifest = %manifest_path.display(), "complete on this machine, to be published");
            return publish(context);
        }
        OutputState::Absent => {}
        OutputState::Damaged(problem) => {
            tracing::warn!("the output is not whole and is made anew: {problem}");
            context.layout.remove(&manifest_path)?;
        }
        OutputState::Other(problem) if context.is_overwrite => {
            tracing::warn!("replacing output, as asked: {problem}");
            remove_other_output(context, &manifest_path)?;
        }
        OutputState::Other(problem) => return Err(refusal(context, problem).into()),
    }
    if context.reuse.is_none() {
        inputs.require_unpruned()?;
    }
    RunRecord::new(&context.run_profile).begin_or_check(&context.layout)?;
    pruned::forget(&context.layout.stage_folder(context.stage, context.place))?;
    remove_what_dead_processes_left(context)?;
    context.interrupt.check()?;
    let mut outputs = StageOutputs::new(context);
    if let Some(run) = reuse::take(context, &manifest, &mut outputs)? {
        tracing::info!(stage = %context.stage, place = %context.place, from = %run, "taken from another run");
        manifest.reused_from = Some(run);
    } else {
        inputs.require_unpruned()?;
        tracing::info!(stage = %context.stage, place = %context.place, shard = %context.shard, threads = context.threads, device = %context.device, "running");
        work(&inputs, &mut outputs)?;
    }

    manifest.outputs = outputs.files;
    manifest.derived = outputs.derived;
    manifest.counts = outputs.counts;
    manifest.metrics = outputs.metrics;
    manifest.finished_at = now();
    manifest.seconds = context.started.elapsed().as_secs_f64();
    write_manifest_after(&context.layout, &manifest_path, &manifest, outputs.unsynced)?;
    tracing::info!(seconds = format!("{:.1}", manifest.seconds), "done");
    publish(context)
}

/// Makes a shard that is whole on this machine exist for others, and says where.
fn publish(context: &StageContext) -> anyhow::Result<()> {
    let StageContext { layout, stage, place, shard, .. } = context;
    layout.publish_shard(*stage, *place, *shard)?;
    remove_file(&layout.journal(*stage, *place, *shard))?;
    print_product(layout.shown(&layout.manifest(*stage, *place, *shard)).display());
    Ok(())
}

/// What is where the output belongs.
enum OutputState {
    /// Nothing with a manifest.
    Absent,
    /// This very output, whole.
    Complete,
    /// This very output, whole in the mirror of a store that lacks it.
    Unpublished,
    /// This very output, but a file is missing or has another size; or output whose manifest tells nothing.
    Damaged(IoError),
    /// Output of something else, and why.
    Other(String),
}

fn output_state(context: &StageContext, manifest_path: &Path, fingerprint: &str) -> anyhow::Result<OutputState> {
    let shards = finished_shards(&context.layout, context.stage, context.place)?;
    if let Some(other) = shards.iter().find(|shard| shard.num != context.shard.num) {
        let folder = context.layout.shown(&context.layout.stage_folder(context.stage, context.place));
        let (stage, asked) = (context.stage, context.shard.num);
        return Ok(OutputState::Other(format!(
            "{} holds output of {stage} cut into {} shards, not {asked}",
            folder.display(),
            other.num
        )));
    }
    if !shards.contains(&context.shard) {
        return Ok(unpublished_state(context, manifest_path, fingerprint));
    }
    context.layout.refresh_manifests(context.stage, context.place, &[context.shard])?;
    let found = match read_manifest(manifest_path) {
        Ok(found) => found,
        Err(error @ IoError::TornManifest { .. }) => return Ok(OutputState::Damaged(error)),
        Err(error @ IoError::Record { .. }) => return Ok(OutputState::Other(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    if found.fingerprint != fingerprint {
        return Ok(OutputState::Other(format!(
            "{} was made from other inputs or settings",
            context.layout.shown(manifest_path).display()
        )));
    }
    let checked = match context.layout.store() {
        Some(store) => store.check_sizes(&found),
        None => check_sizes(&context.layout, manifest_path, &found),
    };
    match checked {
        Ok(()) => Ok(OutputState::Complete),
        Err(problem @ (IoError::SizeDiffers { .. } | IoError::MissingFile { .. })) => Ok(OutputState::Damaged(problem)),
        Err(error) => Err(error.into()),
    }
}

/// The state of a shard that the run does not have. Where the run lies in a store, this machine may have finished it and not have come to publish it.
fn unpublished_state(context: &StageContext, manifest_path: &Path, fingerprint: &str) -> OutputState {
    let is_whole =
        |found: &Manifest| found.fingerprint == fingerprint && check_sizes(&context.layout, manifest_path, found).is_ok();
    match read_manifest(manifest_path) {
        Ok(found) if context.layout.store().is_some() && is_whole(&found) => OutputState::Unpublished,
        _ => OutputState::Absent,
    }
}

fn refusal(context: &StageContext, problem: String) -> StageFailure {
    let mut command = context.layout.command(context.stage, context.place);
    if context.shard != Shard::WHOLE {
        let Shard { index, num } = context.shard;
        command.push_str(&format!(" --num-shards {num} --shard-index {index}"));
    }
    StageFailure::conflict(problem)
        .hint(format!("to replace it, run: {command} --overwrite; to keep it, name another run directory"))
}

/// Removes the temporary files of killed processes from every folder that the stage writes to.
fn remove_what_dead_processes_left(context: &StageContext) -> anyhow::Result<()> {
    let StageContext { layout, stage, place, .. } = context;
    let folder = layout.stage_folder(*stage, *place);
    let mut folders = vec![layout.root().to_owned(), folder.join(CHECKPOINT), folder];
    if *stage == Stage::GrpoStep {
        folders.push(layout.phase_checkpoint(place.iteration, place.phase));
    }
    let mut removed = 0;
    for folder in folders {
        removed += remove_stale_temporaries(&folder)?;
    }
    if removed > 0 {
        tracing::info!(removed, "removed temporary files of processes that died");
    }
    Ok(())
}

/// Removes the manifest of this shard, and manifests and parts of other shard counts; what remains without a manifest counts as nothing.
fn remove_other_output(context: &StageContext, manifest_path: &Path) -> anyhow::Result<()> {
    let StageContext { layout, stage, place, .. } = context;
    layout.remove(manifest_path)?;
    let mut others = finished_shards(layout, *stage, *place)?;
    others.retain(|shard| shard.num != context.shard.num);
    layout.refresh_manifests(*stage, *place, &others)?;
    for shard in others {
        let path = layout.manifest(*stage, *place, shard);
        let parts = read_manifest(&path).map(|manifest| manifest.outputs).unwrap_or_default();
        layout.remove(&path)?;
        for part in parts.iter().filter(|part| part.table.is_some()) {
            layout.remove(&layout.absolute(&part.path))?;
        }
    }
    Ok(())
}

/// The manifest as far as it is known before the work: all that decides the output, and so the fingerprint.
fn planned_manifest(context: &StageContext, inputs: &StageInputs<'_>) -> Manifest {
    let mut manifest = Manifest {
        manifest_version: MANIFEST_VERSION,
        stage: context.stage.to_string(),
        iteration: context.place.iteration,
        phase: context.place.phase.to_string(),
        step: context.place.step,
        update: context.place.update,
        shard_index: context.shard.index,
        num_shards: context.shard.num,
        fingerprint: String::new(),
        build: build(),
        argv: std::env::args().collect(),
        profile_digest: context.profile_digest.clone(),
        overrides: context.overrides.clone(),
        profile: Some(context.run_profile.clone()),
        seed: context.profile.seed,
        digests: inputs.digests().clone(),
        inputs: inputs.records(),
        derived: Vec::new(),
        outputs: Vec::new(),
        reused_from: None,
        counts: Default::default(),
        metrics: Default::default(),
        device: context.device.to_string(),
        threads: u32::try_from(context.threads).unwrap_or(u32::MAX),
        started_at: context.started_at.clone(),
        finished_at: String::new(),
        seconds: 0.0,
    };
    manifest.fingerprint = fingerprint(&manifest);
    manifest
}

/// Prints what would be done, and why.
fn tell_plan(context: &StageContext, inputs: &StageInputs<'_>) -> anyhow::Result<()> {
    let manifest_path = context.layout.manifest(context.stage, context.place, context.shard);
    print_product(format!("{} at {}, shard {}", context.stage, context.place, context.shard));
    let mut num_missing = 0;
    for input in inputs.states() {
        match input.problem {
            None => print_product(format!("  input  {}: present ({})", input.what, input.path.display())),
            Some(problem) => {
                num_missing += 1;
                print_product(format!("  input  {}: {problem}", input.what));
                hints(problem).iter().for_each(|hint| print_product(format!("         hint: {hint}")));
            }
        }
    }
    let output = match num_missing {
        0 => match output_state(context, &manifest_path, &planned_manifest(context, inputs).fingerprint)? {
            OutputState::Complete => "already complete, would do nothing".to_owned(),
            OutputState::Unpublished => "complete on this machine, would be published".to_owned(),
            OutputState::Absent | OutputState::Damaged(_) if inputs.require_unpruned().is_err() => {
                "absent, would refuse (exit 3): what it is made from was pruned".to_owned()
            }
            OutputState::Absent => "absent, would run".to_owned(),
            OutputState::Damaged(problem) => format!("not whole, would run: {problem}"),
            OutputState::Other(problem) if context.is_overwrite => format!("would be replaced: {problem}"),
            OutputState::Other(problem) => format!("would refuse (exit 4): {problem}"),
        },
        _ => format!("would refuse (exit 3): {num_missing} of the inputs cannot be used"),
    };
    print_product(format!("  output {}: {output}", context.layout.shown(&manifest_path).display()));
    Ok(())
}
