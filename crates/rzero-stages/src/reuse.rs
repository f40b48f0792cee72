//! What another run has made already, from the same inputs and by the same build, is taken from there instead of being made again.
//!
//! Runs of a matrix differ in a key or two, and a stage's fingerprint covers only what the stage sees of the profile
//! ([`rzero_schema::profile::Profile::seen_by`]): so two runs whose fingerprints are equal at a place have the same bytes there, and one links the other's
//! files. Each file is held against its digest. What cannot be taken for any reason is made here, as without this.

use crate::context::StageContext;
use crate::outputs::StageOutputs;
use rzero_io::atomic::link_into;
use rzero_io::error::IoError;
use rzero_io::layout::RunLayout;
use rzero_io::manifest::read_manifest;
use rzero_io::pruned::{prune, pruned_files};
use rzero_schema::manifest::Manifest;
use std::path::PathBuf;

/// Takes the output of this shard from a run that has it, and says from which; `None` where there is none, and nothing was taken.
///
/// # Errors
/// When a file cannot be linked or copied into this run.
pub(crate) fn take(context: &StageContext, planned: &Manifest, outputs: &mut StageOutputs<'_>) -> anyhow::Result<Option<String>> {
    // A store has no second names, and what belongs to an update lasts only until its step is done.
    if context.layout.store().is_some() || context.place.update > 0 {
        return Ok(None);
    }
    for layout in other_runs(context)? {
        let Ok(found) = read_manifest(&layout.manifest(context.stage, context.place, context.shard)) else { continue };
        let is_same =
            (&found.fingerprint, &found.build, &found.device) == (&planned.fingerprint, &planned.build, &planned.device);
        if is_same && link_all(context, &layout, &found, outputs)? {
            outputs.files = found.outputs;
            outputs.derived = found.derived;
            outputs.counts = found.counts;
            outputs.metrics = found.metrics;
            return Ok(Some(context.record_path(layout.root())));
        }
    }
    Ok(None)
}

/// The runs of the folder that was named, in the order of their names, without this one.
fn other_runs(context: &StageContext) -> anyhow::Result<Vec<RunLayout>> {
    let Some(folder) = &context.reuse else { return Ok(Vec::new()) };
    let folder = std::path::absolute(folder)?;
    let mut runs: Vec<PathBuf> = match std::fs::read_dir(&folder) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        // Nothing was made there yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(IoError::file("read", &folder)(error).into()),
    };
    runs.sort();
    Ok(runs.into_iter().filter(|run| run != context.layout.root()).map(RunLayout::new).collect())
}

/// Links the files of a shard; false where one is not what its manifest says. What was pruned there is not there here either.
fn link_all(context: &StageContext, from: &RunLayout, found: &Manifest, outputs: &mut StageOutputs<'_>) -> anyhow::Result<bool> {
    let pruned = pruned_files(&from.stage_folder(context.stage, context.place)).unwrap_or_default();
    let mut absent = Vec::new();
    for record in &found.outputs {
        let (source, target) = (from.absolute(&record.path), context.layout.absolute(&record.path));
        if !source.exists() {
            if !pruned.contains(&record.path) {
                return Ok(false);
            }
            absent.push((record.path.clone(), target));
            continue;
        }
        let linked = link_into(&source, &target, &mut outputs.unsynced)?;
        if linked.digest != record.digest {
            tracing::warn!(file = %source.display(), "is not what its manifest says, so it is made here");
            std::fs::remove_file(&target).map_err(IoError::file("remove", &target))?;
            return Ok(false);
        }
    }
    if !absent.is_empty() {
        prune(&context.layout.stage_folder(context.stage, context.place), &absent)?;
    }
    Ok(true)
}
