//! Files of a data set of the Hugging Face hub, brought into a folder once and taken from there ever after.
//!
//! A moving revision such as `main` is resolved first. A file lies under the commit it is of, and only once it is whole and has the digest
//! that the hub announced; so a file of a commit that is there is not asked for again, and a machine without a network may hold it too.

use super::locate::Part;
use crate::hub::listing::{self, RemoteFile};
use crate::hub::{Hub, Repositories, download};
use crate::interrupt::Interrupt;
use std::path::{Path, PathBuf};

/// What is fetched.
pub(super) struct Wanted<'a> {
    pub(super) repository: &'a str,
    pub(super) revision: &'a str,
    /// Paths in the repository.
    pub(super) files: Vec<&'a str>,
    /// Folder that keeps what was fetched.
    pub(super) cache: &'a Path,
}

/// The files in the order asked for, and the commit they are of.
///
/// # Errors
/// When the names, the hub, the network or the disk do not serve.
pub(super) fn fetch(wanted: &Wanted<'_>) -> anyhow::Result<(Vec<Part>, String)> {
    listing::check_repository(wanted.repository, wanted.revision)?;
    if let Some(parts) = fetched_before(wanted) {
        return Ok((parts, wanted.revision.to_owned()));
    }
    let interrupt = Interrupt::listen()?;
    let hub = Hub::from_environment(Repositories::Datasets)?;
    let listing = hub.listing(wanted.repository, wanted.revision)?;
    let mut parts = Vec::new();
    for name in &wanted.files {
        let remote = listing.file(name)?;
        let path = place(wanted, &listing.commit, &remote.name);
        let folder = path.parent().unwrap_or(wanted.cache);
        // Below its folder it has its last name only.
        let last_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = RemoteFile { name: last_name, ..remote.clone() };
        let url = hub.url(wanted.repository, &listing.commit, &remote.name);
        download::fetch(&hub, &url, &file, folder, &listing.commit, &interrupt)?.publish(folder)?;
        parts.push(part(wanted, name, path));
    }
    Ok((parts, listing.commit))
}

/// Every file, where a whole commit is asked for and all of them are there. They lie under their names only since they are whole.
fn fetched_before(wanted: &Wanted<'_>) -> Option<Vec<Part>> {
    let is_known = |name: &str| listing::is_commit(wanted.revision) && listing::is_inside(name);
    let found = |name: &&str| {
        let path = is_known(name).then(|| place(wanted, wanted.revision, name)).filter(|path| path.is_file())?;
        Some(part(wanted, name, path))
    };
    wanted.files.iter().map(found).collect()
}

fn part(wanted: &Wanted<'_>, name: &str, path: PathBuf) -> Part {
    Part { source: Some(format!("{}:{name}", wanted.repository)), ..Part::new(path) }
}

fn place(wanted: &Wanted<'_>, commit: &str, name: &str) -> PathBuf {
    wanted.cache.join(wanted.repository.replace('/', "--")).join(commit).join(name)
}
