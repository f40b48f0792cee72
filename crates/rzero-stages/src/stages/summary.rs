//! `summary RUN`: what a run has come to, as tables for people or one JSON object an iteration for machines.
//!
//! Reads whatever is finished, so it can be asked while a run goes on; what is not there yet is left out and named. Nothing is written.
//! Accuracies, shares and gains are percent points from 0 to 100, in both forms; intervals are 95 %. Rewards, divergences (nats a token)
//! and seconds are as in the tables.
//!
//! [`collect`] reads the run, [`scores`], [`benchmarks`] and [`crate::scores`] compute, [`show`] and [`json`] print; [`judge`] does all
//! three for second opinions.

mod benchmarks;
pub(super) mod collect;
mod json;
mod judge;
pub(super) mod scores;
pub(in crate::stages) mod show;
#[cfg(test)]
mod tests;

use crate::console::{Verbosity, print_product, start_log};
use crate::run_dir::MirrorArgs;
use std::path::PathBuf;

/// Print what a run has come to: accuracy, labels, drops, rewards and seconds of every iteration.
#[derive(Debug, clap::Parser)]
#[command(
    name = "summary",
    version,
    after_help = "Accuracies, shares and gains are percent points from 0 to 100. Iteration 0 is the base model."
)]
pub struct Args {
    /// Run directory, or its URL in an object store
    #[arg(env = "RZERO_RUN", value_name = "RUN")]
    run: PathBuf,

    #[command(flatten)]
    mirrors: MirrorArgs,

    /// One JSON object an iteration, one a line
    #[arg(long)]
    json: bool,

    /// Only problems whose subject, or benchmark, begins with one of these, split by commas, such as rg_easy,svamp
    #[arg(long, value_name = "SUBJECTS", value_delimiter = ',')]
    subjects: Vec<String>,
}

/// Prints the summary.
///
/// # Errors
/// When the directory holds no run, or a file of it cannot be believed: exit code 3.
pub fn run(args: &Args) -> anyhow::Result<()> {
    start_log(Verbosity::Normal);
    let summary = collect::read_run(&args.run, &args.mirrors.layout_of(&args.run)?, &args.subjects)?;
    if args.json {
        let num_samples = summary.record.profile.eval.num_samples;
        summary.iterations.iter().for_each(|iteration| print_product(json::object(iteration, num_samples)));
    } else {
        print_product(show::tables(&summary, &args.subjects));
    }
    Ok(())
}
