//! `audit`: whether a run can be believed, from its last checkpoint back to the base model.
//!
//! | pass | what it holds against what | where |
//! | --- | --- | --- |
//! | files | every file against the manifest that lists it: there, size, digest, table, version, columns, rows; and what no manifest lists | `files.rs` |
//! | chain | every input against the output it was; shards against one another and run.json; steps without a gap; what lies in the project | `chain.rs` |
//! | keys | rows of every table: keys named once | `rzero_io::keys` |
//! | rows | challenges, rewards, advantages, grades and the figures of a step against the rows they follow from | `derive.rs` |
//! | replay | what vote-label, filter and label-probe write when they run again on the same inputs; with `--replay`, every stage | `replay.rs` |
//!
//! What is wrong with one file or one shard is one finding, told by the pass that comes nearest to the cause; what was made from a file with
//! a finding is not derived again from it.

mod chain;
mod derive;
mod differ;
mod files;
mod findings;
mod replay;

use crate::console::{Verbosity, print_product, start_log};
use crate::context::project_root;
use crate::exit::StageFailure;
use crate::interrupt::Interrupt;
use crate::run_dir::MirrorArgs;
use crate::run_record::{RunRecord, no_run};
use findings::{Findings, Kind, Severity};
use rzero_io::layout::RunLayout;
use rzero_schema::vocab::Stage;
use serde_json::json;
use std::path::PathBuf;

/// Hold a whole run against itself: every file, row, label, reward and figure against what it follows from.
#[derive(Debug, clap::Parser)]
#[command(
    name = "audit",
    version,
    after_help = "Exit codes: 0 no findings; 2 usage; 3 the directory holds no run; 6 something cannot be believed; 7 something does not \
                  belong, and nothing is worse; 75 interrupted, safe to run again."
)]
pub struct Args {
    /// Run directory, or its URL in an object store
    #[arg(env = "RZERO_RUN", value_name = "RUN")]
    run: PathBuf,

    #[command(flatten)]
    mirrors: MirrorArgs,

    /// Run every stage again, those with a model too, and compare what it writes, byte for byte: as long as the run took
    #[arg(long)]
    replay: bool,

    /// Derive only what these stages wrote, split by commas; files, inputs and keys are checked of all
    #[arg(long, value_name = "STAGES", value_delimiter = ',')]
    stages: Vec<Stage>,

    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,

    /// Threads to use; left out, all cores
    #[arg(long, env = "RZERO_THREADS", value_name = "N")]
    threads: Option<usize>,

    /// Folder that the profile's paths are relative to; left out, the nearest folder upwards that holds `justfile` and `pipelines`
    #[arg(long, env = "RZERO_ROOT", value_name = "DIR")]
    project_root: Option<PathBuf>,
}

/// A run that is being audited.
struct Audit<'a> {
    layout: &'a RunLayout,
    record: RunRecord,
    args: &'a Args,
    project_root: PathBuf,
    interrupt: Interrupt,
}

/// Runs the audit.
///
/// # Errors
/// With findings: exit code 6, or 7 where all of them are warnings. When the directory holds no run: 3.
pub fn run(args: &Args) -> anyhow::Result<()> {
    start_log(Verbosity::Normal);
    let layout = args.mirrors.layout_of(&args.run)?;
    layout.refresh_all_manifests()?;
    let mut findings = Findings::default();
    let record = match RunRecord::read(&layout) {
        Ok(Some(record)) => record,
        Ok(None) => return Err(no_run(&args.run).into()),
        Err(error) => {
            // Nothing of the run can be told without it.
            findings.add(Severity::Error, Kind::RunRecord, "run.json", format!("{error:#}"), "restore run.json from a copy");
            return tell(args, &findings, &files::Census::default(), None);
        }
    };
    let audit = Audit {
        layout: &layout,
        record,
        args,
        project_root: project_root(args.project_root.as_deref())?,
        interrupt: Interrupt::listen()?,
    };
    if let Some(threads) = args.threads.filter(|threads| *threads > 0) {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().ok();
    }
    let census = files::check(&audit, &mut findings)?;
    let lineage = chain::check(&audit, &census, &mut findings)?;
    let replay = replay::Replay::new(&audit, &census, &mut findings)?;
    // In the order in which the run made them, so that what is wrong is known before what was made from it.
    let is_wanted = |stage: Stage| args.stages.is_empty() || args.stages.contains(&stage);
    for ((_, place, stage), shards) in census.sets().into_iter().filter(|((.., stage), _)| is_wanted(*stage)) {
        audit.interrupt.check()?;
        derive::check(&audit, stage, place, &shards, &mut findings);
        replay.check(&audit, stage, place, &shards, &mut findings)?;
    }
    tell(args, &findings, &census, Some(&lineage))
}

fn tell(args: &Args, findings: &Findings, census: &files::Census, lineage: Option<&chain::Lineage>) -> anyhow::Result<()> {
    let (errors, warnings) = (findings.count(Severity::Error), findings.count(Severity::Warning));
    let (pruned, reused) = (census.pruned.len(), census.num_reused());
    if args.json {
        print_product(json!({
            "run": args.run,
            "shards": census.shards.len(),
            "files": census.num_files,
            "bytes": census.num_bytes,
            "pruned": pruned,
            "reused": reused,
            "rows": census.num_rows,
            "replayed": findings.num_replayed,
            "lineage": lineage.map(|lineage| lineage.json()),
            "errors": errors,
            "warnings": warnings,
            "findings": findings.json(),
        }));
    } else {
        print_product(format!(
            "{}: {} shards, {} files, {:.1} MB, {} rows; {} shards run again{}{}",
            args.run.display(),
            census.shards.len(),
            census.num_files,
            census.num_bytes as f64 / 1e6,
            census.num_rows,
            findings.num_replayed,
            if pruned == 0 { String::new() } else { format!("; {pruned} files were pruned") },
            if reused == 0 { String::new() } else { format!("; {reused} shards are another run's") },
        ));
        lineage.into_iter().for_each(|lineage| print_product(lineage.line()));
        if !findings.is_empty() {
            print_product(findings.table());
        }
    }
    match (errors, warnings) {
        (0, 0) => {
            if !args.json {
                print_product("no findings");
            }
            Ok(())
        }
        (0, warnings) => Err(StageFailure::doubtful(format!("{warnings} warnings")).into()),
        (errors, warnings) => Err(StageFailure::broken(format!("{errors} errors, {warnings} warnings")).into()),
    }
}
