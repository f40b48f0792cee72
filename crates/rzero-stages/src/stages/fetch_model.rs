//! `fetch-model`: a repository of the Hugging Face hub to a model folder, whole or not at all.
//!
//! Fetches the files that a model folder needs and no others, of one commit: a moving revision such as `main` is resolved first. Each file
//! is checked against the digest that the hub announces (large files; of small ones it announces the size alone) before it appears under
//! its name, `source.json` says what was fetched, and config.json comes last: a folder that holds it is whole. What was begun goes on
//! where it stopped. Reads `HF_ENDPOINT`, `HF_TOKEN` and the token file of `HF_HOME`.

use crate::console::{Verbosity, print_product, start_log};
use crate::exit::StageFailure;
use crate::hub::download::{self, SourceFile};
use crate::hub::listing::{self, Listing, RemoteFile, is_model_file};
use crate::hub::{Hub, Repositories};
use crate::interrupt::Interrupt;
use rzero_io::atomic::{remove_file, write_bytes};
use rzero_io::error::IoError;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Fetches a model of the Hugging Face hub.
#[derive(Debug, clap::Parser)]
#[command(name = "fetch-model", version)]
pub struct Args {
    /// Repository, such as Qwen/Qwen3-0.6B
    #[arg(long, value_name = "OWNER/NAME")]
    repository: String,
    /// Commit, tag or branch; only a commit means the same tomorrow
    #[arg(long, value_name = "REVISION")]
    revision: String,
    /// Model folder to write
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Replace another model that is there
    #[arg(long)]
    overwrite: bool,
}

/// What a fetched folder says of itself: `source.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    repository: String,
    /// The revision that was asked for.
    revision: String,
    /// The commit that it was.
    commit: String,
    files: Vec<SourceFile>,
}

const SOURCE_FILE: &str = "source.json";
const CONFIG_FILE: &str = "config.json";

/// Runs the command.
///
/// # Errors
/// When the repository, the network or the disk do not serve; when another model is in the way and is not to be replaced.
pub fn run(args: &Args) -> anyhow::Result<()> {
    start_log(Verbosity::Normal);
    let interrupt = Interrupt::listen()?;
    listing::check_repository(&args.repository, &args.revision)?;
    // A commit never changes: what is whole is not asked for again.
    if listing::is_commit(&args.revision) && is_complete(args, &args.revision) {
        return told(args, "already complete");
    }
    let hub = Hub::from_environment(Repositories::Models)?;
    let listing = hub.listing(&args.repository, &args.revision)?;
    if is_complete(args, &listing.commit) {
        return told(args, "already complete");
    }
    let index = match listing.index()? {
        Some(file) => Some(hub.small_file(&args.repository, &listing.commit, file)?),
        None => None,
    };
    let files = listing.model_files(index.as_deref())?;
    clear_the_way(args, &listing.commit, &files)?;
    tracing::info!(commit = listing.commit, bytes = total(&files), files = files.len(), "fetching");
    fetch_all(args, &hub, &listing, &files, &interrupt)?;
    told(args, "done")
}

fn fetch_all(args: &Args, hub: &Hub, listing: &Listing, files: &[RemoteFile], interrupt: &Interrupt) -> anyhow::Result<()> {
    let mut source = Source {
        repository: args.repository.clone(),
        revision: args.revision.clone(),
        commit: listing.commit.clone(),
        files: Vec::new(),
    };
    let mut config = None;
    for file in files {
        let url = hub.url(&args.repository, &listing.commit, &file.name);
        let fetched = download::fetch(hub, &url, file, &args.output, &listing.commit, interrupt)?;
        source.files.push(fetched.record.clone());
        if file.name == CONFIG_FILE {
            config = Some(fetched);
        } else {
            fetched.publish(&args.output)?;
        }
    }
    write_bytes(&args.output.join(SOURCE_FILE), (serde_json::to_string_pretty(&source)? + "\n").as_bytes())?;
    config.map_or(Ok(()), |config| config.publish(&args.output))?;
    remove_begun_files(&args.output)
}

/// Removes what fetches of other commits began here and did not end.
fn remove_begun_files(folder: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).map_err(IoError::file("read", folder))? {
        let path = entry.map_err(IoError::file("read", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') && name.ends_with(".part") {
            remove_file(&path)?;
        }
    }
    Ok(())
}

fn told(args: &Args, state: &str) -> anyhow::Result<()> {
    tracing::info!("{state}");
    print_product(args.output.display());
    Ok(())
}

/// Whether the folder holds this very commit, every file in its size.
fn is_complete(args: &Args, commit: &str) -> bool {
    let Some(source) = read_source(&args.output) else { return false };
    let is_there = |file: &SourceFile| {
        let path = args.output.join(&file.name);
        is_model_file(&file.name) && path.metadata().is_ok_and(|found| found.is_file() && found.len() == file.num_bytes)
    };
    let is_this = source.repository == args.repository && source.commit == commit;
    is_this && source.files.iter().any(|file| file.name == CONFIG_FILE) && source.files.iter().all(is_there)
}

fn read_source(folder: &Path) -> Option<Source> {
    serde_json::from_str(&std::fs::read_to_string(folder.join(SOURCE_FILE)).ok()?).ok()
}

/// Sees to it that no file of another model stays beside the new ones.
fn clear_the_way(args: &Args, commit: &str, files: &[RemoteFile]) -> anyhow::Result<()> {
    let folder = &args.output;
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(IoError::file("read", folder))?,
    };
    let is_same = read_source(folder).is_some_and(|source| source.repository == args.repository && source.commit == commit);
    if is_same {
        // A file of it was lost or changed. It is no whole model until that is mended.
        remove_file(&folder.join(CONFIG_FILE))?;
    }
    let mut others = Vec::new();
    for entry in entries {
        let name = entry.map_err(IoError::file("read", folder))?.file_name().to_string_lossy().into_owned();
        // Without a config the folder is none yet: files of this model in it were left by a fetch that was stopped.
        let is_ours = (is_same || name != CONFIG_FILE) && files.iter().any(|file| file.name == name);
        if is_model_file(&name) && !is_ours {
            others.push(name);
        }
    }
    others.sort_by_key(|name| name != CONFIG_FILE);
    if others.is_empty() {
        return Ok(());
    }
    if !args.overwrite {
        let message = format!("{} holds files of another model, or of another commit: {}", folder.display(), others.join(", "));
        return Err(StageFailure::conflict(message).hint("--overwrite replaces them; another --output keeps them").into());
    }
    for name in others {
        remove_file(&folder.join(name))?;
    }
    Ok(())
}

fn total(files: &[RemoteFile]) -> u64 {
    files.iter().filter_map(|file| file.num_bytes).sum()
}
