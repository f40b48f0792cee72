//! What is typed: the flags that every stage shares. Nothing is derived here; [`crate::context`] does that once.

use crate::device::DeviceChoice;
use crate::run_dir::MirrorArgs;
use clap::Args;
use rzero_schema::ids::Place;
use rzero_schema::vocab::Phase;
use std::path::{Path, PathBuf};

/// Flags that say where a stage works. What it does stands in the profile.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Where")]
pub struct CommonArgs {
    /// Run directory, or its URL in an object store (s3://, gs://, az://, file://): everything a run reads and writes lies below it
    #[arg(long, env = "RZERO_RUN", value_name = "DIR")]
    pub run: PathBuf,

    /// Where a run in an object store is worked on.
    #[command(flatten)]
    pub mirrors: MirrorArgs,

    /// Profile with every number of the run; left out, the one that the run began with
    #[arg(long, env = "RZERO_PROFILE", value_name = "FILE")]
    pub profile: Option<PathBuf>,

    /// Replace one key of the profile, for example solver.grpo.kl_coef=0; may be repeated (in the environment: split by `;`)
    #[arg(long = "set", env = "RZERO_SET", value_name = "KEY=VALUE", value_delimiter = ';')]
    pub overrides: Vec<String>,

    /// Iteration, from 1; 0 is the base model and has an evaluation only
    #[arg(long, value_name = "N")]
    pub iteration: u32,

    /// Phase of the iteration (challenger, curriculum, solver, eval), for stages that serve several
    #[arg(long, value_name = "PHASE")]
    pub phase: Option<Phase>,

    /// Step within the phase, from 1; in the challenger and solver phases only
    #[arg(long, value_name = "N")]
    pub step: Option<u32>,

    /// Which shard of the work to do; left out, the first
    #[arg(long, env = "SHARD_INDEX", value_name = "I")]
    pub shard_index: Option<u32>,

    /// Into how many shards the work is cut
    #[arg(long, env = "NUM_SHARDS", value_name = "M", default_value_t = 1)]
    pub num_shards: u32,

    /// Number of the first shard: 1 for schedulers that count array jobs from 1
    #[arg(long, env = "RZERO_INDEX_BASE", value_name = "B", default_value_t = 0)]
    pub index_base: u32,

    /// Threads to use; left out, all cores. Does not change what is written
    #[arg(long, env = "RZERO_THREADS", value_name = "N", help_heading = "How")]
    pub threads: Option<usize>,

    /// What models run on: cpu, cuda or cuda:N, with :bf16 or :f16 behind it for 16 bits. Results of a CUDA device differ by rounding
    #[arg(long, env = "RZERO_DEVICE", value_name = "DEVICE", default_value = "cpu", help_heading = "How")]
    pub device: DeviceChoice,

    /// Folder that the profile's paths are relative to; left out, the nearest folder upwards that holds `justfile` and `pipelines`
    #[arg(long, env = "RZERO_ROOT", value_name = "DIR")]
    pub project_root: Option<PathBuf>,

    /// Folder of other runs: what one of them has made from the same inputs, by the same build, is taken from there instead of being made again
    #[arg(long, env = "RZERO_REUSE", value_name = "DIR", help_heading = "How")]
    pub reuse: Option<PathBuf>,

    /// Replace output that was made from other inputs or another profile
    #[arg(long, help_heading = "How")]
    pub overwrite: bool,

    /// Say what would be done, and why, and do nothing
    #[arg(long, help_heading = "How")]
    pub dry_run: bool,

    /// No progress and no messages but warnings and errors, whatever RUST_LOG says
    #[arg(long, short, help_heading = "How")]
    pub quiet: bool,

    /// More messages, whatever RUST_LOG says; RUST_LOG alone chooses them one by one
    #[arg(long, short, help_heading = "How", conflicts_with = "quiet")]
    pub verbose: bool,
}

impl CommonArgs {
    /// The flags of a stage whose output is only looked at: the run's own profile, the whole work, nothing written.
    #[must_use]
    pub fn for_reading(
        run: &Path,
        mirrors: &MirrorArgs,
        place: Place,
        threads: Option<usize>,
        project_root: Option<&Path>,
    ) -> Self {
        Self {
            run: run.to_owned(),
            mirrors: mirrors.clone(),
            profile: None,
            overrides: Vec::new(),
            iteration: place.iteration,
            phase: Some(place.phase),
            step: (place.step > 0).then_some(place.step),
            shard_index: None,
            num_shards: 1,
            index_base: 0,
            threads: threads.filter(|threads| *threads > 0),
            device: DeviceChoice::default(),
            project_root: project_root.map(Path::to_owned),
            reuse: None,
            overwrite: false,
            dry_run: true,
            quiet: false,
            verbose: false,
        }
    }
}

/// How the exit codes stand in `--help`.
pub const EXIT_CODES_HELP: &str = "\
Exit codes: 0 done, or already complete; 1 internal error; 2 usage or profile; 3 an input breaks its schema or is incomplete;
4 output exists that was made from something else; 5 the profile's stop rule holds; 75 interrupted, safe to run again.

Prints the path of the manifest to stdout; messages and progress go to stderr.";
