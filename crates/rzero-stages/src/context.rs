//! Where a stage works and with what: everything that follows from the flags, derived once.

use crate::args::CommonArgs;
use crate::console::{Verbosity, start_log};
use crate::device::DeviceChoice;
use crate::exit::StageFailure;
use crate::interrupt::Interrupt;
use crate::run_dir::absolute;
use crate::run_record::RunRecord;
use crate::units::shard_rows;
use anyhow::Context;
use rzero_io::error::IoError;
use rzero_io::layout::{RunLayout, Shard, relative_to};
use rzero_io::writer::FooterMetadata;
use rzero_schema::ids::Place;
use rzero_schema::manifest::Build;
use rzero_schema::profile::Profile;
use rzero_schema::vocab::{Phase, Stage};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

/// The surroundings of one stage process.
#[derive(Debug, Clone)]
pub struct StageContext {
    /// The stage.
    pub stage: Stage,
    /// Iteration, phase and step.
    pub place: Place,
    /// Which part of the work.
    pub shard: Shard,
    /// Paths of the run.
    pub layout: RunLayout,
    /// What the stage sees of the resolved profile ([`Profile::seen_by`]); the rest is blank.
    pub profile: Profile,
    /// Its digest.
    pub profile_digest: String,
    /// The whole profile, for records.
    pub run_profile: Profile,
    /// Overrides that were typed.
    pub overrides: Vec<String>,
    /// Threads of the global pool.
    pub threads: usize,
    /// What models run on; the CPU for a stage without one.
    pub device: DeviceChoice,
    /// Folder of runs from which output may be taken.
    pub reuse: Option<PathBuf>,
    /// Whether output from other inputs may be replaced.
    pub is_overwrite: bool,
    /// Whether only to say what would be done.
    pub is_dry_run: bool,
    /// Set by signals.
    pub interrupt: Interrupt,
    /// When the process began, RFC 3339 in UTC.
    pub started_at: String,
    /// The same for durations.
    pub started: Instant,
    typed_root: Option<PathBuf>,
}

impl StageContext {
    /// Derives the surroundings of a stage that serves `phases`. Also starts the log, the thread pool and the signal handlers.
    ///
    /// # Errors
    /// When flags contradict each other or the profile cannot be used: exit code 2. When the run in the directory is another one: 4.
    pub fn new(stage: Stage, args: &CommonArgs, phases: &[Phase]) -> anyhow::Result<Self> {
        start_log(match (args.quiet, args.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, true) => Verbosity::Verbose,
            (false, false) => Verbosity::Normal,
        });
        let layout = args.mirrors.layout_of(&args.run)?;
        let overrides: Vec<String> =
            args.overrides.iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect();
        let profile = resolve_profile(&layout, args.profile.as_deref(), &overrides, args.project_root.as_deref())?;
        let place = resolve_place(stage, args, phases, &profile)?;
        let shard = resolve_shard(args)?;
        RunRecord::new(&profile).check(&layout)?;
        let seen = profile.seen_by(stage, place);
        Ok(Self {
            stage,
            place,
            shard,
            layout,
            profile_digest: seen.digest(),
            profile: seen,
            run_profile: profile,
            overrides,
            threads: start_threads(args.threads)?,
            device: args.device.for_stage(stage)?,
            reuse: args.reuse.clone().filter(|folder| !folder.as_os_str().is_empty()),
            is_overwrite: args.overwrite,
            is_dry_run: args.dry_run,
            interrupt: Interrupt::listen()?,
            started_at: now(),
            started: Instant::now(),
            typed_root: args.project_root.clone(),
        })
    }

    /// Refuses to be one of several shards, for stages whose work is not cut.
    ///
    /// # Errors
    /// When more than one shard was asked for: exit code 2.
    pub fn require_unsharded(&self) -> anyhow::Result<()> {
        if self.shard == Shard::WHOLE {
            return Ok(());
        }
        let message = format!("{} works on all rows at once, but {} shards were asked for", self.stage, self.shard.num);
        Err(StageFailure::usage(message).hint("leave --num-shards and NUM_SHARDS out for this stage").into())
    }

    /// The rows of this shard, of `num_rows` in all.
    #[must_use]
    pub fn shard_rows(&self, num_rows: u64) -> Range<u64> {
        shard_rows(num_rows, self.profile.engine.unit_rows, self.shard)
    }

    /// The folder that the profile's paths are relative to.
    ///
    /// # Errors
    /// When none was given and none is found: exit code 2.
    pub fn project_root(&self) -> anyhow::Result<PathBuf> {
        project_root(self.typed_root.as_deref())
    }

    /// The file that a path of the profile names.
    ///
    /// # Errors
    /// As [`StageContext::project_root`], for a path that is not absolute.
    pub fn project_path(&self, path: &str) -> anyhow::Result<PathBuf> {
        if Path::new(path).is_absolute() { Ok(path.into()) } else { Ok(self.project_root()?.join(path)) }
    }

    /// A path as records name it: relative to the run, or to the project, or whole where it lies outside both.
    #[must_use]
    pub fn record_path(&self, path: &Path) -> String {
        let in_project = || self.project_root().ok().and_then(|root| relative_to(&root, path));
        self.layout.relative(path).or_else(in_project).unwrap_or_else(|| path.display().to_string())
    }

    /// What stands in the footer of every table this process writes.
    #[must_use]
    pub fn footer(&self) -> FooterMetadata {
        FooterMetadata {
            stage: self.stage,
            place: self.place,
            shard: self.shard,
            seed: self.profile.seed,
            profile_digest: self.profile_digest.clone(),
        }
    }
}

/// The project's folder: the one that was typed, or the nearest upwards that looks like it.
///
/// # Errors
/// When none was typed and none is found: exit code 2.
pub fn project_root(typed: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(root) = typed {
        return absolute(root);
    }
    let start = std::env::current_dir().context("cannot tell the current directory")?;
    let is_root = |folder: &&Path| folder.join("justfile").is_file() && folder.join("pipelines").is_dir();
    start.ancestors().find(is_root).map(Path::to_owned).ok_or_else(|| {
        let message = format!("no folder from {} upwards holds `justfile` and `pipelines`", start.display());
        StageFailure::usage(message).hint("name the project's folder with --project-root or RZERO_ROOT").into()
    })
}

/// The moment, RFC 3339 in UTC.
#[must_use]
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// What built this binary.
#[must_use]
pub fn build() -> Build {
    Build {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("RZERO_COMMIT").to_owned(),
        is_dirty: env!("RZERO_IS_DIRTY") == "true",
    }
}

fn resolve_profile(
    layout: &RunLayout,
    path: Option<&Path>,
    overrides: &[String],
    root: Option<&Path>,
) -> anyhow::Result<Profile> {
    let (text, source) = match path {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                let hint = "name a profile with --profile or RZERO_PROFILE; they lie in pipelines/profiles";
                StageFailure::usage(format!("cannot read profile {}: {error}", path.display())).hint(hint)
            })?;
            (text, path.to_owned())
        }
        None => {
            let Some(record) = RunRecord::read(layout)? else {
                let message = format!("no profile was given, and {} holds no run yet", layout.shown(layout.root()).display());
                return Err(StageFailure::usage(message)
                    .hint("name one of pipelines/profiles with --profile or RZERO_PROFILE")
                    .into());
            };
            if overrides.is_empty() {
                return Ok(record.profile);
            }
            let text = toml::to_string(&record.profile).context("cannot write the run's profile as toml")?;
            (text, layout.shown(&layout.run_record()))
        }
    };
    parse_profile(&text, overrides, root).with_context(|| format!("cannot use profile {}", source.display()))
}

/// Reads a profile, and the folder of its domain in the project.
///
/// # Errors
/// As [`Profile::from_toml`].
pub fn parse_profile(text: &str, overrides: &[String], root: Option<&Path>) -> anyhow::Result<Profile> {
    let domain = |folder: &str| {
        let path = if Path::new(folder).is_absolute() {
            Ok(PathBuf::from(folder))
        } else {
            project_root(root).map(|root| root.join(folder))
        };
        let path = path.map_err(|error| format!("{error:#}"))?.join("domain.toml");
        std::fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    Ok(Profile::from_toml(text, overrides, domain)?)
}

fn resolve_place(stage: Stage, args: &CommonArgs, phases: &[Phase], profile: &Profile) -> anyhow::Result<Place> {
    let names = phases.iter().map(|phase| phase.as_str()).collect::<Vec<_>>().join(", ");
    let phase = match (args.phase, phases) {
        (Some(phase), _) if phases.contains(&phase) => phase,
        (Some(phase), _) => {
            return Err(StageFailure::usage(format!("{stage} has no part in phase {phase}"))
                .hint(format!("its phases: {names}"))
                .into());
        }
        (None, [phase]) => *phase,
        (None, _) => {
            return Err(StageFailure::usage(format!("{stage} serves several phases"))
                .hint(format!("name one with --phase: {names}"))
                .into());
        }
    };
    if args.iteration == 0 && phase != Phase::Eval {
        return Err(StageFailure::usage(format!("iteration 0 has no {phase} phase")).hint("iterations count from 1").into());
    }
    let num_steps = match phase {
        Phase::Challenger => Some(profile.challenger.steps),
        Phase::Solver => Some(profile.solver.steps),
        Phase::Verifier => Some(profile.verifier.as_ref().map_or(0, |verifier| verifier.steps)),
        Phase::Curriculum | Phase::Eval => None,
    };
    let step = match (args.step, num_steps) {
        (Some(step), Some(num_steps)) if (1..=num_steps).contains(&step) => step,
        (Some(step), Some(num_steps)) => {
            let message = format!("step {step} is not one of the {num_steps} steps of the {phase} phase");
            return Err(StageFailure::usage(message).hint(format!("steps count from 1 to {phase}.steps of the profile")).into());
        }
        (None, Some(_)) => {
            return Err(StageFailure::usage(format!("the {phase} phase has steps")).hint("name one with --step, from 1").into());
        }
        (None | Some(0), None) => 0,
        (Some(_), None) => {
            return Err(StageFailure::usage(format!("the {phase} phase has no steps")).hint("leave --step out").into());
        }
    };
    Ok(Place::new(args.iteration, phase, step))
}

fn resolve_shard(args: &CommonArgs) -> anyhow::Result<Shard> {
    let typed = args.shard_index.unwrap_or(args.index_base);
    let last = u64::from(args.index_base) + u64::from(args.num_shards);
    let index = typed.checked_sub(args.index_base).filter(|index| *index < args.num_shards);
    index.map(|index| Shard { index, num: args.num_shards }).ok_or_else(|| {
        let message = format!("shard index {typed} is not one of {} shards counted from {}", args.num_shards, args.index_base);
        let hint = match args.num_shards {
            0 => "--num-shards is at least 1".to_owned(),
            _ => format!("--shard-index goes from {} to {}; --index-base says where it begins", args.index_base, last - 1),
        };
        StageFailure::usage(message).hint(hint).into()
    })
}

fn start_threads(typed: Option<usize>) -> anyhow::Result<usize> {
    let threads = match typed {
        Some(0) => return Err(StageFailure::usage("0 threads cannot work").hint("leave --threads out to use all cores").into()),
        Some(threads) => threads,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    // Only the first pool of a process counts; a second context, as in tests, takes the one that is there.
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().ok();
    Ok(threads)
}

/// Reads a text file of the project.
///
/// # Errors
/// When it cannot be read.
pub fn read_text(path: &Path) -> anyhow::Result<String> {
    Ok(std::fs::read_to_string(path).map_err(IoError::file("read", path))?)
}
