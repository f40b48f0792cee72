//! `report RUN...`: one HTML file that tells at a glance what runs have come to, and how they differ where there are several.
//!
//! The file stands alone: no script, no font, no picture from elsewhere, and a policy inside it by which a browser would refuse any. It
//! holds no clock reading but those of the run's own manifests, so equal runs make equal files.
//!
//! [`collect`] and [`questions`] read, [`chart`] draws, [`page`] says what stands where; `report.html.jinja` and `report.css` are how it looks.

mod chart;
mod collect;
mod differences;
mod page;
mod questions;
mod sections;

use crate::console::{Verbosity, print_product, start_log};
use crate::context::project_root;
use crate::exit::StageFailure;
use crate::markdown::legible;
use crate::run_dir::{MirrorArgs, absolute};
use rzero_io::atomic::write_bytes;
use std::path::{Path, PathBuf};

/// How a file is known as one of ours, and may be replaced.
const MARK: &str = "<meta name=\"generator\" content=\"rzero report\">";

/// Write one HTML file that shows what runs have come to: accuracy, labels, questions, training, costs.
#[derive(Debug, clap::Parser)]
#[command(
    name = "report",
    version,
    after_help = "The file needs no network and no other file. Several runs are drawn into the same charts. A run that goes on is shown as \
                  far as it has come."
)]
pub struct Args {
    /// Run directories, or their URLs in an object store
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,

    /// File to write; an earlier report there is replaced
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,

    #[command(flatten)]
    mirrors: MirrorArgs,

    /// Folder that holds the problem sets; left out, the nearest folder upwards that holds `justfile` and `pipelines`
    #[arg(long, env = "RZERO_ROOT", value_name = "DIR")]
    project_root: Option<PathBuf>,
}

/// Writes the report.
///
/// # Errors
/// When a directory holds no run, or a file of it cannot be believed: exit code 3. When the file to write is no report: 4.
pub fn run(args: &Args) -> anyhow::Result<()> {
    start_log(Verbosity::Normal);
    let out = absolute(&args.out)?;
    check_replaceable(&out)?;
    let root = project_root(args.project_root.as_deref()).ok();
    let names = names(&args.runs);
    let runs = args.runs.iter().zip(names);
    let runs: Vec<collect::RunReport> =
        runs.map(|(run, name)| collect::read(run, name, &args.mirrors, root.as_deref())).collect::<anyhow::Result<_>>()?;
    write_bytes(&out, page::html(&runs)?.as_bytes())?;
    print_product(args.out.display());
    Ok(())
}

/// Nothing, or a report, lies there.
fn check_replaceable(path: &Path) -> anyhow::Result<()> {
    let conflict = |what: &str| StageFailure::conflict(format!("{} {what}", path.display())).hint("name another file with --out");
    match std::fs::read(path) {
        Ok(bytes) if String::from_utf8_lossy(&bytes).contains(MARK) => Ok(()),
        Ok(_) => Err(conflict("is there already and is no report").into()),
        Err(_) if path.is_dir() => Err(conflict("is a folder").into()),
        // Whatever else is wrong with it is told where it is written.
        Err(_) => Ok(()),
    }
}

/// What tells runs apart: the last part of their paths, or more of them where that is one.
fn names(runs: &[PathBuf]) -> Vec<String> {
    let tail = |run: &PathBuf, parts: usize| {
        let text = run.to_string_lossy();
        let pieces: Vec<&str> = text.trim_end_matches('/').split('/').collect();
        pieces[pieces.len().saturating_sub(parts)..].join("/")
    };
    let most = runs.iter().map(|run| run.components().count()).max().unwrap_or(1);
    let shortest = (1..=most).find(|parts| {
        let mut names: Vec<String> = runs.iter().map(|run| tail(run, *parts)).collect();
        names.sort();
        names.windows(2).all(|pair| pair[0] != pair[1])
    });
    runs.iter().map(|run| legible(&tail(run, shortest.unwrap_or(most)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_named_by_as_little_as_tells_them_apart() {
        let names = |runs: &[&str]| names(&runs.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(names(&["data/runs/tiny"]), ["tiny"]);
        assert_eq!(names(&["data/runs/a/", "data/runs/b"]), ["a", "b"]);
        assert_eq!(names(&["one/run", "two/run"]), ["one/run", "two/run"]);
        assert_eq!(names(&["same", "same"]), ["same", "same"]);
    }
}
