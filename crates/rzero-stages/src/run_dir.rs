//! Where a run lies: in a folder, or in an object store that a URL names.

use anyhow::Context;
use clap::Args;
use rzero_io::layout::RunLayout;
use rzero_io::objects::{connect, is_url};
use rzero_io::store::{RunStore, mirror_below};
use std::path::{Path, PathBuf};

/// What stands before the settings of stores in the environment.
const SETTINGS: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// Folder of mirrors below the one for temporary files.
const MIRRORS: &str = "rzero-mirror";

/// Where runs in object stores are worked on.
#[derive(Debug, Clone, Default, Args)]
pub struct MirrorArgs {
    /// Folder of this machine below which runs in object stores are worked on, by their URLs; left out, one for temporary files
    #[arg(long, env = "RZERO_MIRRORS", value_name = "DIR", help_heading = "Where")]
    pub mirrors: Option<PathBuf>,
}

impl MirrorArgs {
    /// The layout of the run that was typed: a folder, or a URL.
    ///
    /// # Errors
    /// When the URL cannot name a run, or its store cannot be used: exit code 2.
    pub fn layout_of(&self, run: &Path) -> anyhow::Result<RunLayout> {
        let Some(url) = run.to_str().filter(|run| is_url(run)) else { return Ok(RunLayout::new(absolute(run)?)) };
        let mirrors = match &self.mirrors {
            Some(folder) => absolute(folder)?,
            None => std::env::temp_dir().join(MIRRORS),
        };
        let mirror = mirror_below(&mirrors, url)?;
        let settings = std::env::vars().filter(|(key, _)| SETTINGS.iter().any(|known| key.starts_with(known)));
        let store = RunStore::new(url, &mirror, connect(url, settings)?);
        tracing::debug!(mirror = %mirror.display(), "the run lies in a store");
        Ok(RunLayout::of_store(mirror, store))
    }
}

/// A path from the root of the file system.
///
/// # Errors
/// When it is empty, or the current directory is gone.
pub fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot use path {}", path.display()))
}
