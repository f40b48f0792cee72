//! `prune RUN`: removes what nothing reads any more.
//!
//! A training step leaves weights and an optimiser state, which the step after it reads and nobody else. Where the last step of a phase is done, those of
//! the steps before it go, and its own optimiser state. Every table stays, every manifest, and the checkpoint that a phase leaves, so
//! that the run goes on, is audited and summed up as before; what a pruned file was made of, and what its bytes were, is still known. Only `audit
//! --replay` has less to do: a step whose weights are gone is not made again.

use crate::args::EXIT_CODES_HELP;
use crate::console::{Verbosity, print_product, start_log};
use crate::exit::StageFailure;
use crate::markdown::new_table;
use crate::run_dir::MirrorArgs;
use crate::run_record::{RunRecord, no_run};
use rzero_io::layout::RunLayout;
use rzero_io::pruned::prune;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::manifest::FileRecord;
use rzero_schema::profile::Profile;
use rzero_schema::vocab::{Phase, Stage};
use std::path::PathBuf;

/// Remove weights and optimiser states that no stage reads any more; tables, manifests and what a phase leaves stay.
#[derive(Debug, clap::Parser)]
#[command(name = "prune", version, after_help = EXIT_CODES_HELP)]
pub struct Args {
    /// Run directory
    #[arg(env = "RZERO_RUN", value_name = "RUN")]
    run: PathBuf,

    #[command(flatten)]
    mirrors: MirrorArgs,

    /// Tell what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// Prunes a run.
///
/// # Errors
/// When the run lies in an object store (exit 2), the directory holds no run or a manifest cannot be believed (3), or a file cannot be removed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    start_log(Verbosity::Normal);
    let layout = args.mirrors.layout_of(&args.run)?;
    if layout.store().is_some() {
        return Err(StageFailure::usage(format!("{} lies in an object store", args.run.display()))
            .hint("prune removes files of a folder; let the store's own rules expire checkpoints of steps")
            .into());
    }
    let Some(record) = RunRecord::read(&layout)? else { return Err(no_run(&args.run).into()) };
    let mut table = new_table(&["phase", "files", "MB"]);
    let (mut num_files, mut num_bytes) = (0, 0);
    for iteration in layout.iterations()? {
        for (phase, num_steps) in trained(&record.profile) {
            let (files, bytes) = prune_phase(&layout, iteration, phase, num_steps, args.dry_run)?;
            if files > 0 {
                table.add_row([format!("{iteration:03}/{phase}"), files.to_string(), megabytes(bytes)]);
            }
            num_files += files;
            num_bytes += bytes;
        }
    }
    if num_files > 0 {
        print_product(table);
    }
    let done = if args.dry_run { "would go" } else { "removed" };
    print_product(format!("{}: {num_files} files of {} MB {done}", args.run.display(), megabytes(num_bytes)));
    Ok(())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// The phases that train, with their numbers of steps.
fn trained(profile: &Profile) -> impl Iterator<Item = (Phase, u32)> {
    let verifier = profile.verifier.as_ref().filter(|_| profile.has_verifier()).map_or(0, |verifier| verifier.steps);
    let phases =
        [(Phase::Challenger, profile.challenger.steps), (Phase::Verifier, verifier), (Phase::Solver, profile.solver.steps)];
    phases.into_iter().filter(|(_, num_steps)| *num_steps > 0)
}

/// Prunes a phase whose last step is done; how many files went, and their bytes.
fn prune_phase(
    layout: &RunLayout,
    iteration: u32,
    phase: Phase,
    num_steps: u32,
    is_dry_run: bool,
) -> anyhow::Result<(usize, u64)> {
    let last = Place::new(iteration, phase, num_steps);
    if StageOutput::open_finished(layout, Stage::GrpoStep, last)?.is_none() {
        return Ok((0, 0));
    }
    let kept = [layout.step_checkpoint(last), layout.phase_checkpoint(iteration, phase)];
    let (mut num_files, mut num_bytes) = (0, 0);
    for step in 1..=num_steps {
        let place = Place { step, ..last };
        let updates = (1..).map(|update| (update, layout.update_folder(place, update))).take_while(|(_, folder)| folder.is_dir());
        let shared =
            updates.flat_map(|(update, _)| [Stage::GrpoGradient, Stage::GrpoStep].map(|stage| (stage, place.at_update(update))));
        for (stage, place) in shared.chain([(Stage::GrpoStep, place)]) {
            let Some(output) = StageOutput::open_finished(layout, stage, place)? else { continue };
            let records: Vec<FileRecord> = output.input_records();
            let goes = |record: &&FileRecord| {
                let path = layout.absolute(&record.path);
                let is_kept = kept.iter().any(|folder| path.starts_with(folder));
                record.table.is_none() && record.path.ends_with(".safetensors") && !is_kept && path.exists()
            };
            let gone: Vec<&FileRecord> = records.iter().filter(goes).collect();
            if gone.is_empty() {
                continue;
            }
            num_files += gone.len();
            num_bytes += gone.iter().map(|record| record.num_bytes).sum::<u64>();
            if !is_dry_run {
                let files: Vec<_> = gone.iter().map(|record| (record.path.clone(), layout.absolute(&record.path))).collect();
                prune(&layout.stage_folder(stage, place), &files)?;
            }
        }
    }
    Ok((num_files, num_bytes))
}
