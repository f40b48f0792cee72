//! What a run asks of an object store. A run directory that is a URL lies in one, and is worked on in a local mirror ([`crate::store`]).
//!
//! Names are relative to the run, with `/` between their parts: those that records use. The stores themselves are reached by [`connect`],
//! which is there with the feature `stores`.

use crate::error::{IoError, Result};
use std::fmt::Debug;
use std::io::Write;
use std::path::Path;

#[cfg(feature = "stores")]
mod remote;

/// What lies in a folder of a store, each by its own name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Objects that lie in it.
    pub objects: Vec<String>,
    /// Folders that hold some.
    pub folders: Vec<String>,
}

/// Which of the contents that a name has had: a replacement names the one it replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The store's tag of the content.
    pub e_tag: Option<String>,
    /// The store's number of it, where it keeps old ones.
    pub version: Option<String>,
}

/// The objects of one run. Each call is done when it returns; calls of several threads go side by side.
///
/// All of them fail with [`IoError::StoreRefused`] where the store will refuse again, and with [`IoError::StoreFailed`] where trying again
/// later may help.
pub trait Objects: Debug + Send + Sync {
    /// What lies in a folder; nothing where there is none. The empty name is the run itself.
    ///
    /// # Errors
    /// When the store fails.
    fn list(&self, folder: &str) -> Result<Listing>;

    /// The whole of a small object; `None` where there is none.
    ///
    /// # Errors
    /// When the store fails.
    fn read(&self, name: &str) -> Result<Option<(Vec<u8>, Version)>>;

    /// Writes an object to `target`; whether there was one.
    ///
    /// # Errors
    /// When the store fails, or `target` cannot take it.
    fn fetch(&self, name: &str, target: &mut dyn Write) -> Result<bool>;

    /// Bytes of an object; `None` where there is none.
    ///
    /// # Errors
    /// When the store fails.
    fn size(&self, name: &str) -> Result<Option<u64>>;

    /// Makes a local file an object, replacing one of the same name. An object appears whole or not at all.
    ///
    /// # Errors
    /// [`IoError::DigestDiffers`] when the file does not have the blake3 `digest`, so that nothing appears; else when it cannot be read or
    /// the store fails.
    fn send(&self, from: &Path, name: &str, digest: &str) -> Result<()>;

    /// Makes an object unless the name is taken; whether it did. Of several processes that try, exactly one succeeds.
    ///
    /// # Errors
    /// When the store fails.
    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool>;

    /// Replaces an object if it still has this version; whether it did.
    ///
    /// # Errors
    /// When the store fails.
    fn replace(&self, name: &str, bytes: &[u8], version: &Version) -> Result<bool>;

    /// Removes an object if it is there.
    ///
    /// # Errors
    /// When the store fails.
    fn remove(&self, name: &str) -> Result<()>;
}

/// Whether a run directory is named by a URL.
#[must_use]
pub fn is_url(run: &str) -> bool {
    run.contains("://")
}

/// The objects below a URL: `s3://BUCKET/RUN`, `gs://BUCKET/RUN`, `az://CONTAINER/RUN` or `file:///FOLDER`. Who asks, and where the store is,
/// stands in `settings`, as the store's own tools have it in the environment, such as `AWS_REGION`.
///
/// # Errors
/// [`IoError::StoreRefused`] when the URL or the settings cannot be used.
#[cfg(feature = "stores")]
pub fn connect(url: &str, settings: impl IntoIterator<Item = (String, String)>) -> Result<Box<dyn Objects>> {
    Ok(Box::new(remote::RemoteObjects::connect(url, settings)?))
}

/// The same without the feature `stores`: it says so.
///
/// # Errors
/// [`IoError::StoreRefused`] always.
#[cfg(not(feature = "stores"))]
pub fn connect(url: &str, _settings: impl IntoIterator<Item = (String, String)>) -> Result<Box<dyn Objects>> {
    Err(IoError::StoreRefused {
        url: url.to_owned(),
        problem: "these binaries were built without object stores".to_owned(),
        hint: format!("build them with `just run={url} setup`, or name a folder as the run directory"),
    })
}

/// The parts of a URL that name a run: scheme, bucket and folders, fit for a path of the same parts.
///
/// # Errors
/// [`IoError::StoreRefused`] when a part is empty, `.` or `..`, or there is anything behind the path.
pub fn parts_of(url: &str) -> Result<Vec<&str>> {
    let refuse = |problem: &str| IoError::StoreRefused {
        url: url.to_owned(),
        problem: problem.to_owned(),
        hint: "name a run as s3://BUCKET/RUN, gs://BUCKET/RUN, az://CONTAINER/RUN or file:///FOLDER".to_owned(),
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(|| refuse("is no URL"))?;
    let rest =
        if scheme == "file" { rest.strip_prefix('/').ok_or_else(|| refuse("names no folder of this machine"))? } else { rest };
    let parts: Vec<&str> = std::iter::once(scheme).chain(rest.trim_end_matches('/').split('/')).collect();
    if !["s3", "gs", "az", "file"].contains(&scheme) {
        return Err(refuse("is in no kind of store that is known"));
    }
    if parts.len() < 3 && scheme != "file" {
        return Err(refuse("names a whole store, not a run in it"));
    }
    let is_plain = |part: &&str| {
        !matches!(*part, "" | "." | "..") && !part.contains(['?', '#', '\\', '%']) && !part.contains(char::is_whitespace)
    };
    if parts.iter().all(is_plain) { Ok(parts) } else { Err(refuse("has a part that cannot be the name of a folder")) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_run_or_is_refused() {
        assert_eq!(parts_of("s3://bucket/runs/tiny/").unwrap(), ["s3", "bucket", "runs", "tiny"]);
        assert_eq!(parts_of("file:///data/run").unwrap(), ["file", "data", "run"]);
        for url in [
            "s3://bucket",
            "s3:///run",
            "s3://b/../c",
            "file://host/x/..",
            "file://data/run",
            "http://b/c",
            "s3://b/c?d=e",
            "s3://b//c",
            "s3://b/%2e%2e/c",
        ] {
            let error = parts_of(url).unwrap_err();
            assert!(matches!(error, IoError::StoreRefused { .. }), "{url}: {error}");
        }
    }
}
