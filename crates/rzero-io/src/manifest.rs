//! Manifests on disk. A part without a manifest does not exist; a manifest whose fingerprint does not follow from it is not believed.

use crate::atomic::{AtomicFile, Unsynced, digest_file, write_bytes};
use crate::error::{IoError, Result};
use crate::layout::RunLayout;
use rzero_schema::manifest::{MANIFEST_VERSION, Manifest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write;
use std::path::Path;

/// blake3 over everything that decides a shard's output: stage, place, shard, seed, profile, the digests of prompts, tokenizer and model,
/// and every input file with its digest.
///
/// The digest of a part depends on how its stage was cut into shards, so outputs made from the same rows in another number of shards
/// have other fingerprints downstream: a run keeps one shard count for each finished stage.
#[must_use]
pub fn fingerprint(manifest: &Manifest) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut feed = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    let mut place = format!("{:03}/{}/{:02}", manifest.iteration, manifest.phase, manifest.step);
    if manifest.update > 0 {
        place.push_str(&format!("/update-{:02}", manifest.update));
    }
    feed(&format!("rzero manifest {}", manifest.manifest_version));
    feed(&manifest.stage);
    feed(&place);
    feed(&format!("{}/{}", manifest.shard_index, manifest.num_shards));
    feed(&manifest.seed.to_string());
    feed(&manifest.profile_digest);
    for (what, digest) in &manifest.digests {
        feed(what);
        feed(digest);
    }
    feed("inputs");
    for input in &manifest.inputs {
        feed(&input.path);
        feed(&input.digest);
    }
    hasher.finalize().to_hex().to_string()
}

/// Publishes a manifest.
///
/// When one with the same fingerprint is there already, two processes did the same work at once, and each file is of whichever wrote
/// it last: then the manifest is replaced by one that describes the files as they lie there. All files of both are written by now,
/// since a process writes its manifest after them.
///
/// # Errors
/// [`IoError::AlreadyExists`] when the manifest there was made from something else.
pub fn write_manifest(layout: &RunLayout, path: &Path, manifest: &Manifest) -> Result<()> {
    write_manifest_after(layout, path, manifest, Unsynced::default())
}

/// The same, once the files of `outputs` are durable.
///
/// # Errors
/// As [`write_manifest`], also for those files.
pub fn write_manifest_after(layout: &RunLayout, path: &Path, manifest: &Manifest, outputs: Unsynced) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(&to_json(manifest)).map_err(IoError::file("write", path))?;
    match file.finish_exclusive_after(outputs) {
        Err(IoError::AlreadyExists { path }) if read_manifest(&path)?.fingerprint == manifest.fingerprint => {
            let mut actual = manifest.clone();
            for record in &mut actual.outputs {
                let digest = digest_file(&layout.absolute(&record.path))?;
                (record.digest, record.num_bytes) = (digest.digest, digest.num_bytes);
            }
            write_bytes(&path, &to_json(&actual)).map(drop)
        }
        result => result.map(drop),
    }
}

/// Reads a manifest and checks its version and its fingerprint.
///
/// # Errors
/// [`IoError::TornManifest`] when it is no JSON, as one that is empty or cut short; else when it is no manifest, has another version, or was edited.
pub fn read_manifest(path: &Path) -> Result<Manifest> {
    parse_manifest(path, &std::fs::read(path).map_err(IoError::file("read", path))?)
}

/// The same for bytes that were read from `path`.
pub(crate) fn parse_manifest(path: &Path, bytes: &[u8]) -> Result<Manifest> {
    let refuse = |problem: String| IoError::Record { path: path.to_owned(), problem };
    let value: serde_json::Value = serde_json::from_slice(bytes)
        .map_err(|error| IoError::TornManifest { path: path.to_owned(), problem: error.to_string() })?;
    match value.get("manifest_version").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(MANIFEST_VERSION) => {}
        Some(version) => {
            return Err(refuse(format!("has manifest version {version}, expected {MANIFEST_VERSION}")));
        }
        None => return Err(refuse("is no manifest: it has no `manifest_version`".to_owned())),
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(|error| refuse(format!("is no valid manifest: {error}")))?;
    if fingerprint(&manifest) != manifest.fingerprint {
        return Err(refuse("has a fingerprint that does not follow from its content: it was edited".to_owned()));
    }
    Ok(manifest)
}

/// Reads a JSON record.
///
/// # Errors
/// When the file cannot be read or is not such a record.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).map_err(IoError::file("read", path))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| IoError::Record { path: path.to_owned(), problem: format!("is no valid record: {error}") })
}

/// A record as it stands on disk: indented JSON and a final newline.
///
/// # Panics
/// When a map has keys that are no text, which no record of this project has.
pub fn to_json<T: Serialize>(record: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(record).expect("records hold text, numbers, lists and maps with text keys");
    bytes.push(b'\n');
    bytes
}
