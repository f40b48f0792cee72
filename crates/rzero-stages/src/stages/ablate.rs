//! `ablate`: a matrix of settings and seeds. `cells` says which runs it is made of, `table` what they came to.
//!
//! The runs themselves are made by `just ablate NAME`, which calls the loop for each cell; this binary only reads. Every figure is over all
//! seeds of a cell: a problem is worth the mean of what it is worth in each run, and intervals are drawn over problems. Cells are compared
//! with the first, seed by seed and problem by problem.

mod measure;
mod show;

use crate::console::{Verbosity, print_product, start_log};
use crate::context::read_text;
use crate::exit::StageFailure;
use crate::run_dir::MirrorArgs;
use rzero_io::atomic::write_bytes;
use rzero_io::manifest::to_json;
use rzero_schema::ablation::{Ablation, Cell};
use std::path::{Path, PathBuf};

/// A matrix of settings and seeds: which runs it is made of, and what they came to.
#[derive(Debug, clap::Parser)]
#[command(name = "ablate", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print the runs, one a line: folder, profile, overrides and iterations, with a tab between
    Cells(Matrix),
    /// Print what the runs came to, as far as they have come
    Table {
        #[command(flatten)]
        matrix: Matrix,

        /// Folder for table.md and results.json; left out, the table is only printed
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct Matrix {
    /// The matrix, such as pipelines/ablations/paper.toml
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Folder of its runs
    #[arg(long, value_name = "DIR")]
    runs: PathBuf,

    /// Iterations of each run, if not as many as the file says
    #[arg(long, value_name = "N")]
    iterations: Option<u32>,

    #[command(flatten)]
    mirrors: MirrorArgs,
}

impl Matrix {
    fn read(&self) -> anyhow::Result<Ablation> {
        let text = read_text(&self.file)?;
        let mut ablation = Ablation::from_toml(&text).map_err(|error| {
            StageFailure::usage(format!("cannot use {}: {error}", self.file.display()))
                .hint("a matrix is written as pipelines/ablations/paper.toml is")
        })?;
        if let Some(iterations) = self.iterations {
            ablation.iterations = iterations;
        }
        Ok(ablation)
    }

    fn run(&self, cell: &Cell, seed: u64) -> PathBuf {
        self.runs.join(format!("{}-{seed}", cell.name))
    }
}

/// Prints the runs of a matrix, or what they came to.
///
/// # Errors
/// When the file is no matrix: exit code 2. When a file of a run cannot be believed: 3.
pub fn run(args: &Args) -> anyhow::Result<()> {
    start_log(Verbosity::Normal);
    match &args.command {
        Command::Cells(matrix) => {
            let ablation = matrix.read()?;
            for cell in &ablation.cells {
                for seed in &ablation.seeds {
                    let set = cell.set.iter().map(|set| set.replace("{seed}", &seed.to_string()));
                    let set = set.chain([format!("seed={seed}")]).collect::<Vec<_>>().join(";");
                    let run = matrix.run(cell, *seed);
                    print_product(format!("{}\t{}\t{set}\t{}", run.display(), ablation.profile, ablation.iterations));
                }
            }
        }
        Command::Table { matrix, out } => {
            let ablation = matrix.read()?;
            let results = measure::measure(&ablation, |cell, seed| matrix.run(cell, seed), &matrix.mirrors)?;
            let table = show::table(&ablation, &results);
            print_product(&table);
            if let Some(out) = out {
                write(out, &table, &results)?;
            }
        }
    }
    Ok(())
}

fn write(out: &Path, table: &str, results: &[measure::CellResult]) -> anyhow::Result<()> {
    write_bytes(&out.join("table.md"), format!("{table}\n").as_bytes())?;
    write_bytes(&out.join("results.json"), &to_json(&results))?;
    Ok(())
}
