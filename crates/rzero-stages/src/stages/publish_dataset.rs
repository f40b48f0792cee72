//! `publish-dataset`: a folder that others load as it is: what a run kept, sampled and scored, with a card that says how it was made.
//!
//! ```text
//! DIR/README.md                                          the card: configs, features, provenance, sampling, statistics
//! DIR/data/curriculum/iteration_1-00000-of-00001.parquet the run's own parts, byte for byte
//! DIR/provenance.json                                    every file with its digest and the manifest it came with
//! ```

mod card;

use crate::console::{Verbosity, print_product, start_log};
use crate::context::project_root;
use crate::exit::StageFailure;
use crate::run_dir::{MirrorArgs, absolute};
use crate::run_record::{RunRecord, no_run};
use card::{Card, Config, Split};
use rzero_io::atomic::{AtomicFile, write_bytes};
use rzero_io::error::IoError;
use rzero_io::layout::{RunLayout, Shard};
use rzero_io::manifest::to_json;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::table::Table;
use rzero_schema::tables::{CurriculumRow, EvalResult, Rollout};
use rzero_schema::vocab::{Phase, Stage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the file by which a folder is known as one of ours.
const PROVENANCE: &str = "provenance.json";

/// Make a dataset of a run: curriculum, rollouts and evaluation results, with a card.
#[derive(Debug, clap::Parser)]
#[command(
    name = "publish-dataset",
    version,
    after_help = "The folder loads as it is: datasets.load_dataset(DIR, \"curriculum\"), or any reader of Parquet. Nothing is sent anywhere."
)]
pub struct Args {
    /// Run directory, or its URL in an object store
    #[arg(value_name = "RUN")]
    run: PathBuf,

    /// Folder of the dataset, which is new or holds one of this run
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    #[command(flatten)]
    mirrors: MirrorArgs,

    /// Licence under which it is published, as the hubs name it, such as cc-by-4.0
    #[arg(long, value_name = "ID", default_value = "unknown")]
    license: String,

    /// Folder that the profile's paths are relative to; left out, the nearest folder upwards that holds `justfile` and `pipelines`
    #[arg(long, env = "RZERO_ROOT", value_name = "DIR")]
    project_root: Option<PathBuf>,
}

/// What every file of a dataset is.
#[derive(Debug, Serialize, Deserialize)]
struct Provenance {
    run_profile: String,
    profile_digest: String,
    seed: u64,
    files: BTreeMap<String, Origin>,
}

/// Where a file came from.
#[derive(Debug, Serialize, Deserialize)]
struct Origin {
    /// Its name in the run.
    path: String,
    /// The manifest that lists it.
    manifest: String,
    /// blake3 of its bytes.
    digest: String,
    num_rows: u64,
    /// Commit of the binary that wrote it.
    commit: String,
}

/// A table of the run that becomes a split.
struct Source {
    config: &'static str,
    split: String,
    stage: Stage,
    place: Place,
}

/// Makes the dataset.
///
/// # Errors
/// When the directory holds no run, or nothing of it has finished: exit code 3. When the folder holds something else: 4.
pub fn run(args: &Args) -> anyhow::Result<()> {
    start_log(Verbosity::Normal);
    let layout = args.mirrors.layout_of(&args.run)?;
    let Some(record) = RunRecord::read(&layout)? else {
        return Err(no_run(&args.run).into());
    };
    let folder = absolute(&args.folder)?;
    make_room(&folder, &record)?;
    let mut provenance = Provenance {
        run_profile: record.profile_name.clone(),
        profile_digest: record.profile_digest.clone(),
        seed: record.seed,
        files: BTreeMap::new(),
    };
    // By this the folder is known as ours, should the process be killed.
    write_bytes(&folder.join(PROVENANCE), &to_json(&provenance))?;
    let mut configs: Vec<Config> = Vec::new();
    for source in sources(&layout)? {
        let Some(output) = StageOutput::open_finished(&layout, source.stage, source.place)? else { continue };
        let (name, split) = (source.config, &source.split);
        let files = match name {
            "curriculum" => publish::<CurriculumRow>(&layout, &output, &folder, name, split, &mut provenance)?,
            "rollouts" => publish::<Rollout>(&layout, &output, &folder, name, split, &mut provenance)?,
            _ => publish::<EvalResult>(&layout, &output, &folder, name, split, &mut provenance)?,
        };
        let split = Split::new(split, &output, files)?;
        match configs.iter_mut().find(|config| config.name == name) {
            Some(config) => config.splits.push(split),
            None => configs.push(Config { name, splits: vec![split] }),
        }
    }
    if configs.is_empty() {
        let message = format!("nothing of {} has finished that could be published", args.run.display());
        return Err(StageFailure::input(message).hint("run `just iterate 1`").into());
    }
    let root = project_root(args.project_root.as_deref()).ok();
    let card =
        Card { record: &record, configs: &configs, license: &args.license, layout: &layout, project_root: root.as_deref() };
    write_bytes(&folder.join("README.md"), card.text()?.as_bytes())?;
    write_bytes(&folder.join(PROVENANCE), &to_json(&provenance))?;
    print_product(folder.display());
    Ok(())
}

/// The tables of a run in the order of its iterations.
fn sources(layout: &RunLayout) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for iteration in layout.iterations()? {
        let place = |phase| Place::new(iteration, phase, 0);
        let split = format!("iteration_{iteration}");
        if iteration > 0 {
            let curriculum = place(Phase::Curriculum);
            let of_role = |role: &str| format!("{split}_{role}");
            sources.push(Source { config: "curriculum", split: split.clone(), stage: Stage::Filter, place: curriculum });
            sources.push(Source {
                config: "rollouts",
                split: of_role("challenger"),
                stage: Stage::ChallengeGen,
                place: curriculum,
            });
            sources.push(Source { config: "rollouts", split: of_role("solver"), stage: Stage::SolveSample, place: curriculum });
        }
        sources.push(Source { config: "eval_results", split, stage: Stage::Eval, place: place(Phase::Eval) });
    }
    // A hub shows the first config: what was trained on.
    sources.sort_by_key(|source| ["curriculum", "rollouts", "eval_results"].iter().position(|name| *name == source.config));
    Ok(sources)
}

/// An empty folder, or one that holds a dataset of this very run, whose files are replaced.
fn make_room(folder: &Path, record: &RunRecord) -> anyhow::Result<()> {
    let known = std::fs::read(folder.join(PROVENANCE)).ok();
    let known = known.and_then(|bytes| serde_json::from_slice::<Provenance>(&bytes).ok());
    let conflict = |what: &str| {
        StageFailure::conflict(format!("{} holds {what}", folder.display())).hint("name a new folder, or remove that one")
    };
    match known {
        Some(known) if (&known.profile_digest, known.seed) != (&record.profile_digest, record.seed) => {
            Err(conflict("the dataset of another run").into())
        }
        Some(known) => {
            for name in known.files.keys().map(String::as_str).chain(["README.md", PROVENANCE]) {
                rzero_io::atomic::remove_file(&folder.join(name))?;
            }
            Ok(())
        }
        None => match std::fs::read_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(IoError::file("read", folder)(error).into()),
            Ok(mut entries) => entries.next().map_or(Ok(()), |_| Err(conflict("something else").into())),
        },
    }
}

/// Copies the parts of a table, each held against its digest on the way; returns their names in the dataset.
fn publish<T: Table>(
    layout: &RunLayout,
    output: &StageOutput,
    folder: &Path,
    config: &str,
    split: &str,
    provenance: &mut Provenance,
) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for manifest in output.manifests() {
        let shard = Shard { index: manifest.shard_index, num: manifest.num_shards };
        for record in manifest.outputs.iter().filter(|record| record.table.as_deref() == Some(T::NAME)) {
            let name = format!("data/{config}/{split}-{shard}.parquet");
            let (from, to) = (layout.bring(record)?, folder.join(&name));
            let mut file = AtomicFile::create(&to)?;
            let mut source = std::fs::File::open(&from).map_err(IoError::file("open", &from))?;
            std::io::copy(&mut source, &mut file).map_err(IoError::file("write", &to))?;
            if file.digest() != record.digest {
                let (expected, actual) = (record.digest.clone(), file.digest());
                return Err(IoError::DigestDiffers { path: from, expected, actual }.into());
            }
            file.finish()?;
            let manifest_path = layout.manifest(output.stage(), output.place(), shard);
            let origin = Origin {
                path: record.path.clone(),
                manifest: layout.relative(&manifest_path).unwrap_or_default(),
                digest: record.digest.clone(),
                num_rows: record.num_rows.unwrap_or(0),
                commit: manifest.build.commit.clone(),
            };
            provenance.files.insert(name.clone(), origin);
            names.push(name);
        }
    }
    Ok(names)
}
