//! Where everything of a run lies. No other file builds a path inside a run directory.
//!
//! ```text
//! RUN/run.json                                                      profile and seed of the whole run
//! RUN/iter-001/curriculum/filter/curriculum-00000-of-00001.parquet  a part: {table}-{shard}-of-{shards}
//! RUN/iter-001/curriculum/filter/manifest-00000-of-00001.json       written last: makes the parts of this shard exist
//! RUN/iter-001/solver/step-03/grpo-step/checkpoint/                 the policy after step 3
//! RUN/iter-001/solver/step-03/update-02/grpo-gradient/              parts of the gradient of its second update, where it is shared out
//! RUN/iter-001/solver/checkpoint/                                   the policy after the phase's last step
//! ```

use crate::error::IoError;
use crate::store::RunStore;
use rzero_schema::ids::Place;
use rzero_schema::vocab::{Phase, Stage};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of every checkpoint folder of a run.
pub const CHECKPOINT: &str = "checkpoint";

/// Which part of a stage's work a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard {
    /// Index, from 0.
    pub index: u32,
    /// Number of shards.
    pub num: u32,
}

impl Shard {
    /// The whole work in one shard.
    pub const WHOLE: Self = Self { index: 0, num: 1 };
}

impl fmt::Display for Shard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:05}-of-{:05}", self.index, self.num)
    }
}

/// The paths of one run. Where the run lies in an object store, they are those of its mirror.
#[derive(Debug, Clone)]
pub struct RunLayout {
    root: PathBuf,
    store: Option<Arc<RunStore>>,
}

impl RunLayout {
    /// The layout of the run in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), store: None }
    }

    /// The layout of a run that lies in an object store and is worked on in `mirror`.
    #[must_use]
    pub fn of_store(mirror: impl Into<PathBuf>, store: RunStore) -> Self {
        Self { root: mirror.into(), store: Some(Arc::new(store)) }
    }

    /// The object store that the run lies in; `None` where it lies in a folder.
    #[must_use]
    pub fn store(&self) -> Option<&RunStore> {
        self.store.as_deref()
    }

    /// The run directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The record of the run's profile and seed.
    #[must_use]
    pub fn run_record(&self) -> PathBuf {
        self.root.join("run.json")
    }

    /// The iterations that have a folder, from the first.
    ///
    /// # Errors
    /// When the run directory cannot be read.
    pub fn iterations(&self) -> Result<Vec<u32>, IoError> {
        let names = match &self.store {
            Some(store) => store.list("")?.1,
            None => {
                let entries = std::fs::read_dir(&self.root).map_err(IoError::file("read", &self.root))?;
                let name = |entry: std::io::Result<std::fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
                entries.map(name).collect::<std::io::Result<_>>().map_err(IoError::file("read", &self.root))?
            }
        };
        let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.strip_prefix("iter-")?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Folder of a phase.
    #[must_use]
    pub fn phase_folder(&self, iteration: u32, phase: Phase) -> PathBuf {
        self.root.join(format!("iter-{iteration:03}")).join(phase.as_str())
    }

    /// Folder of a stage's output at a place.
    #[must_use]
    pub fn stage_folder(&self, stage: Stage, place: Place) -> PathBuf {
        let mut folder = self.phase_folder(place.iteration, place.phase);
        if place.step > 0 {
            folder.push(format!("step-{:02}", place.step));
        }
        if place.update > 0 {
            folder.push(update_folder_name(place.update));
        }
        folder.push(stage.as_str());
        folder
    }

    /// One shard of one table.
    #[must_use]
    pub fn part(&self, stage: Stage, place: Place, table: &str, shard: Shard) -> PathBuf {
        self.stage_folder(stage, place).join(format!("{table}-{shard}.parquet"))
    }

    /// The manifest of one shard.
    #[must_use]
    pub fn manifest(&self, stage: Stage, place: Place, shard: Shard) -> PathBuf {
        self.stage_folder(stage, place).join(manifest_name(shard))
    }

    /// What a server has answered so far to the requests of a shard; goes when the shard is done.
    #[must_use]
    pub fn journal(&self, stage: Stage, place: Place, shard: Shard) -> PathBuf {
        self.stage_folder(stage, place).join(format!("requests-{shard}.jsonl"))
    }

    /// The checkpoint that a training step leaves.
    #[must_use]
    pub fn step_checkpoint(&self, place: Place) -> PathBuf {
        self.stage_folder(Stage::GrpoStep, place).join(CHECKPOINT)
    }

    /// The optimiser state that a training step leaves.
    #[must_use]
    pub fn step_optimizer(&self, place: Place) -> PathBuf {
        self.stage_folder(Stage::GrpoStep, place).join("optimizer.safetensors")
    }

    /// Where training stands after an update that is not the last of its step, where the gradient is shared out.
    #[must_use]
    pub fn update_state(&self, place: Place) -> PathBuf {
        self.stage_folder(Stage::GrpoStep, place).join("state.safetensors")
    }

    /// Folder of an update of a step: what lies in it serves to make the step's checkpoint, and may go once that is there.
    #[must_use]
    pub fn update_folder(&self, place: Place, update: u32) -> PathBuf {
        let mut folder = self.phase_folder(place.iteration, place.phase);
        folder.push(format!("step-{:02}", place.step));
        folder.push(update_folder_name(update));
        folder
    }

    /// The checkpoint that a phase leaves after its last step.
    #[must_use]
    pub fn phase_checkpoint(&self, iteration: u32, phase: Phase) -> PathBuf {
        self.phase_folder(iteration, phase).join(CHECKPOINT)
    }

    /// The form in which people say which pseudo-labels of an iteration are true. It belongs to them, so it lies in no stage's folder.
    #[must_use]
    pub fn truths_form(&self, iteration: u32) -> PathBuf {
        self.phase_folder(iteration, Phase::Curriculum).join("truths.csv")
    }

    /// Where training left the checkpoint in `folder`: its iteration and phase, and its step unless it is the phase's last.
    /// `None` for a folder that is no checkpoint of this run.
    #[must_use]
    pub fn checkpoint_origin(&self, folder: &Path) -> Option<(u32, Phase, Option<u32>)> {
        let relative = self.relative(folder)?;
        let (iteration, rest) = relative.strip_prefix("iter-")?.split_once('/')?;
        let (phase, rest) = rest.split_once('/')?;
        let (iteration, phase) = (iteration.parse().ok()?, phase.parse().ok()?);
        if rest == CHECKPOINT {
            return Some((iteration, phase, None));
        }
        let step = rest.strip_prefix("step-")?.split_once('/')?.0.parse().ok()?;
        (self.step_checkpoint(Place::new(iteration, phase, step)) == folder).then_some((iteration, phase, Some(step)))
    }

    /// The stage in whose folder a path lies, and where in the run; `None` for a path in no such folder.
    #[must_use]
    pub fn stage_origin(&self, path: &Path) -> Option<(Stage, Place)> {
        let relative = self.relative(path)?;
        let mut parts = relative.strip_prefix("iter-")?.split('/').peekable();
        let (iteration, phase) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let step = parts.next_if(|part| part.starts_with("step-"));
        let step = step.map_or(Some(0), |part| part.strip_prefix("step-")?.parse().ok())?;
        let update = parts.next_if(|part| part.starts_with("update-"));
        let update = update.map_or(Some(0), |part| part.strip_prefix("update-")?.parse().ok())?;
        let (stage, place) = (parts.next()?.parse().ok()?, Place::new(iteration, phase, step).at_update(update));
        parts.next().filter(|_| path.starts_with(self.stage_folder(stage, place))).map(|_| (stage, place))
    }

    /// A path as records name it: relative to the run, with `/` between its parts. `None` outside the run.
    #[must_use]
    pub fn relative(&self, path: &Path) -> Option<String> {
        relative_to(&self.root, path)
    }

    /// The file that a record of this run names.
    #[must_use]
    pub fn absolute(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }
}

/// A path relative to a folder, with `/` between its parts; `None` outside the folder.
#[must_use]
pub fn relative_to(folder: &Path, path: &Path) -> Option<String> {
    let relative = path.strip_prefix(folder).ok()?;
    Some(relative.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/"))
}

/// The command that makes a stage's output at a place, as a person would type it.
#[must_use]
pub fn command(run: &Path, stage: Stage, place: Place) -> String {
    let step = if place.step > 0 { format!(" --step {}", place.step) } else { String::new() };
    let update = if place.update > 0 { format!(" --update {}", place.update) } else { String::new() };
    format!("{stage} --run {} --iteration {} --phase {}{step}{update}", run.display(), place.iteration, place.phase)
}

fn update_folder_name(update: u32) -> String {
    format!("update-{update:02}")
}

fn manifest_name(shard: Shard) -> String {
    format!("manifest-{shard}.json")
}

/// The shard whose manifest bears this name; `None` for every other name.
#[must_use]
pub fn shard_of_manifest(name: &str) -> Option<Shard> {
    let (index, num) = name.strip_prefix("manifest-")?.strip_suffix(".json")?.split_once("-of-")?;
    let shard = Shard { index: index.parse().ok()?, num: num.parse().ok()? };
    (shard.index < shard.num && manifest_name(shard) == name).then_some(shard)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn paths_read_like_the_run() {
        let layout = RunLayout::new("/runs/a");
        let step = Place::new(1, Phase::Solver, 3);
        let part = layout.part(Stage::SolveSample, step, "rollouts", Shard { index: 2, num: 4 });
        assert_eq!(part, Path::new("/runs/a/iter-001/solver/step-03/solve-sample/rollouts-00002-of-00004.parquet"));
        let curriculum = Place::new(12, Phase::Curriculum, 0);
        let manifest = layout.manifest(Stage::Filter, curriculum, Shard::WHOLE);
        assert_eq!(layout.relative(&manifest).unwrap(), "iter-012/curriculum/filter/manifest-00000-of-00001.json");
        assert_eq!(shard_of_manifest("manifest-00000-of-00001.json"), Some(Shard::WHOLE));
        let origin = |folder: &Path| layout.checkpoint_origin(folder);
        assert_eq!(origin(&layout.step_checkpoint(step)), Some((1, Phase::Solver, Some(3))));
        assert_eq!(origin(&layout.phase_checkpoint(2, Phase::Challenger)), Some((2, Phase::Challenger, None)));
        assert_eq!(origin(Path::new("/models/base")), None);
        assert_eq!(origin(&layout.stage_folder(Stage::GrpoStep, step)), None);
        let of_stage = |path: &Path| layout.stage_origin(path);
        assert_eq!(of_stage(&layout.step_optimizer(step)), Some((Stage::GrpoStep, step)));
        assert_eq!(of_stage(&layout.step_checkpoint(step).join("config.json")), Some((Stage::GrpoStep, step)));
        assert_eq!(of_stage(&manifest), Some((Stage::Filter, curriculum)));
        let update = step.at_update(2);
        let gradient = layout.stage_folder(Stage::GrpoGradient, update);
        assert_eq!(gradient, Path::new("/runs/a/iter-001/solver/step-03/update-02/grpo-gradient"));
        assert!(gradient.starts_with(layout.update_folder(step, 2)));
        assert_eq!(of_stage(&gradient.join("part-00000-of-00002.safetensors")), Some((Stage::GrpoGradient, update)));
        assert_eq!(of_stage(&layout.update_state(update)), Some((Stage::GrpoStep, update)));
        assert_eq!(of_stage(&layout.phase_checkpoint(2, Phase::Solver).join("config.json")), None);
        assert_eq!(of_stage(&layout.run_record()), None);
        for name in ["manifest-0-of-1.json", "manifest-00001-of-00001.json", "manifest.json", "labels-00000-of-00001.json"] {
            assert_eq!(shard_of_manifest(name), None);
        }
    }
}
