//! What was removed of a stage's output because nothing reads it any more.
//!
//! A manifest stays as it was written: it says which bytes there were, and what was made from them goes on naming them. The files that are gone stand in
//! `pruned.json` beside it, so that a file that was removed on purpose is told from one that was lost. The record is written before the first
//! file goes; a process that is killed in between leaves files that count as there, and goes on with them the next time.

use crate::atomic::{remove_file, write_bytes};
use crate::error::{IoError, Result};
use crate::manifest::{read_json, to_json};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The record's name.
pub const PRUNED: &str = "pruned.json";

const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    pruned_version: u32,
    /// Paths as manifests have them.
    files: BTreeSet<String>,
}

/// The files of a stage's folder that were pruned, as manifests name them; none where there is no record.
///
/// # Errors
/// When the record is there and cannot be read.
pub fn pruned_files(folder: &Path) -> Result<BTreeSet<String>> {
    let path = folder.join(PRUNED);
    let record = match read_json::<Record>(&path) {
        Err(IoError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        record => record?,
    };
    if record.pruned_version != VERSION {
        let problem = format!("has version {}, expected {VERSION}", record.pruned_version);
        return Err(IoError::Record { path, problem });
    }
    Ok(record.files)
}

/// Removes files of the stage's folder, each named as manifests name it with where it lies.
///
/// # Errors
/// When the record cannot be written, before anything is removed; or a file cannot be removed.
pub fn prune(folder: &Path, files: &[(String, PathBuf)]) -> Result<()> {
    let mut names = pruned_files(folder)?;
    names.extend(files.iter().map(|(name, _)| name.clone()));
    write_bytes(&folder.join(PRUNED), &to_json(&Record { pruned_version: VERSION, files: names }))?;
    files.iter().try_for_each(|(_, path)| remove_file(path))
}

/// Forgets what was pruned of a folder, before its stage writes there anew.
///
/// # Errors
/// When the record is there and cannot be removed.
pub fn forget(folder: &Path) -> Result<()> {
    remove_file(&folder.join(PRUNED))
}
