//! A run in an object store, worked on in a local mirror.
//!
//! ```text
//! s3://bucket/run/iter-001/…   what counts
//! MIRROR/iter-001/…            the same names: what this machine has read, and what its stages write
//! ```
//!
//! A stage works on the mirror as it works on any run directory. Before it reads a file here, the store's manifest is brought, and the file
//! itself where the mirror lacks it or has other bytes than that manifest says. When it is done, its files are sent, and then its manifest is
//! created, which the store lets exactly one process do: a part without a manifest in the store does not exist. So the mirror may be
//! removed at any time, and every machine may have its own.

use crate::atomic::{AtomicFile, digest_file, remove_file, write_bytes};
use crate::error::{IoError, Result};
use crate::layout::{RunLayout, Shard, command, shard_of_manifest};
use crate::manifest::{read_manifest, to_json};
use crate::objects::{Objects, is_url};
use rzero_schema::ids::Place;
use rzero_schema::manifest::{FileRecord, Manifest};
use rzero_schema::vocab::Stage;
use std::io;
use std::path::{Path, PathBuf};

/// Requests to the store at a time: those for small objects wait for the network, not for this machine.
const AT_A_TIME: usize = 8;

/// Times that a manifest is published anew because another process changed it meanwhile.
const MAX_ROUNDS: u32 = 10;

/// A run's objects and the folder that mirrors them.
#[derive(Debug)]
pub struct RunStore {
    url: String,
    mirror: PathBuf,
    objects: Box<dyn Objects>,
}

impl RunStore {
    /// The run at `url`, with its mirror.
    #[must_use]
    pub fn new(url: &str, mirror: &Path, objects: Box<dyn Objects>) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), mirror: mirror.to_owned(), objects }
    }

    /// The run's address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What lies in a folder of the run, by name: objects, then folders.
    pub(crate) fn list(&self, folder: &str) -> Result<(Vec<String>, Vec<String>)> {
        self.objects.list(folder).map(|listing| (listing.objects, listing.folders))
    }

    /// The shards that have finished in a folder of the store.
    pub(crate) fn finished_shards(&self, folder: &str) -> Result<Vec<Shard>> {
        Ok(self.list(folder)?.0.iter().filter_map(|name| shard_of_manifest(name)).collect())
    }

    /// Brings small records, which the mirror has as the store has them then; none where the store has none.
    pub(crate) fn refresh(&self, names: &[String]) -> Result<()> {
        some_at_a_time(names, |name| {
            let path = self.local(name)?;
            match self.objects.read(name)? {
                // One that is the same is left alone: others may be reading it.
                Some((bytes, _)) if std::fs::read(&path).is_ok_and(|found| found == bytes) => Ok(()),
                Some((bytes, _)) => write_bytes(&path, &bytes).map(drop),
                None => remove_file(&path),
            }
        })
    }

    /// Brings every manifest below a folder.
    pub(crate) fn refresh_below(&self, folder: &str) -> Result<()> {
        let (objects, folders) = self.list(folder)?;
        let manifests = objects.into_iter().filter(|name| shard_of_manifest(name).is_some());
        self.refresh(&manifests.map(|name| join(folder, &name)).collect::<Vec<_>>())?;
        folders.iter().try_for_each(|name| self.refresh_below(&join(folder, name)))
    }

    /// Brings a file that a manifest lists, unless it is here already: what the manifest's digest says is here then.
    ///
    /// # Errors
    /// [`IoError::MissingFile`] when the store lacks it, [`IoError::DigestDiffers`] when it has other bytes there than the manifest says.
    pub fn bring(&self, record: &FileRecord) -> Result<PathBuf> {
        let path = self.local(&record.path)?;
        if std::fs::metadata(&path).is_ok_and(|found| found.len() == record.num_bytes)
            && digest_file(&path)?.digest == record.digest
        {
            return Ok(path);
        }
        let mut file = AtomicFile::create(&path)?;
        if !self.objects.fetch(&record.path, &mut file)? {
            return Err(self.missing(record));
        }
        let actual = file.digest();
        if actual != record.digest {
            return Err(IoError::DigestDiffers { path: self.shown(&record.path), expected: record.digest.clone(), actual });
        }
        file.finish()?;
        Ok(path)
    }

    /// Checks that the store has every file of a manifest, with the right size.
    ///
    /// # Errors
    /// Names the first that is not there, or has another size.
    pub fn check_sizes(&self, manifest: &Manifest) -> Result<()> {
        some_at_a_time(&manifest.outputs, |record| match self.objects.size(&record.path)? {
            Some(actual) if actual == record.num_bytes => Ok(()),
            Some(actual) => Err(IoError::SizeDiffers { path: self.shown(&record.path), expected: record.num_bytes, actual }),
            None => Err(self.missing(record)),
        })
    }

    /// Publishes the mirror's run.json unless the store has one; either way the mirror has the store's then.
    pub(crate) fn publish_run_record(&self, path: &Path) -> Result<()> {
        let name = "run.json".to_owned();
        let bytes = std::fs::read(path).map_err(IoError::file("read", path))?;
        if self.objects.create(&name, &bytes)? { Ok(()) } else { self.refresh(&[name]) }
    }

    /// Sends the files that a manifest of the mirror lists, and then creates the manifest in the store.
    ///
    /// Where the store has one with the same fingerprint, the work was done twice. If that was at the same time, each file there is of
    /// whichever was sent last: then the manifest is replaced by one that describes the files as they lie there.
    ///
    /// # Errors
    /// [`IoError::AlreadyExists`] when the manifest there was made from something else.
    pub(crate) fn publish(&self, path: &Path, name: &str) -> Result<()> {
        let ours = read_manifest(path)?;
        if self.refuse_other(name, &ours)? {
            return self.refresh(&[name.to_owned()]);
        }
        some_at_a_time(&ours.outputs, |record| self.objects.send(&self.local(&record.path)?, &record.path, &record.digest))?;
        for _ in 0..MAX_ROUNDS {
            if self.objects.create(name, &to_json(&ours))? {
                return Ok(());
            }
            // It may be gone again by now.
            if self.refuse_other(name, &ours)? && self.describe_as_it_lies(name, &ours)? {
                return self.refresh(&[name.to_owned()]);
            }
        }
        let problem = format!("others changed it {MAX_ROUNDS} times while this process published it");
        Err(IoError::StoreFailed { url: self.shown(name).display().to_string(), problem })
    }

    /// Whether the store has a manifest of the same fingerprint; one of another is an error.
    fn refuse_other(&self, name: &str, ours: &Manifest) -> Result<bool> {
        match self.objects.read(name)? {
            None => Ok(false),
            Some((bytes, _)) if self.parse(name, &bytes)?.fingerprint == ours.fingerprint => Ok(true),
            Some(_) => Err(IoError::AlreadyExists { path: self.shown(name) }),
        }
    }

    /// Makes the manifest in the store say what its files are; whether it does now. It does not where another process changed it meanwhile.
    fn describe_as_it_lies(&self, name: &str, ours: &Manifest) -> Result<bool> {
        let Some((bytes, version)) = self.objects.read(name)? else { return Ok(false) };
        let theirs = self.parse(name, &bytes)?;
        let mut actual = theirs.clone();
        for record in actual.outputs.iter_mut().filter(|record| !ours.outputs.contains(record)) {
            let mut hasher = Digesting::default();
            if !self.objects.fetch(&record.path, &mut hasher)? {
                return Err(self.missing(record));
            }
            (record.digest, record.num_bytes) = (hasher.hasher.finalize().to_hex().to_string(), hasher.num_bytes);
        }
        Ok(actual == theirs || self.objects.replace(name, &to_json(&actual), &version)?)
    }

    fn parse(&self, name: &str, bytes: &[u8]) -> Result<Manifest> {
        crate::manifest::parse_manifest(&self.shown(name), bytes)
    }

    /// Removes objects of the run.
    pub(crate) fn remove(&self, names: &[String]) -> Result<()> {
        some_at_a_time(names, |name| self.objects.remove(name))
    }

    /// Removes all objects below a folder, manifests first: what remains of it, should the process be killed, counts as nothing.
    pub(crate) fn remove_below(&self, folder: &str) -> Result<()> {
        let (objects, folders) = self.list(folder)?;
        let (manifests, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(|name| shard_of_manifest(name).is_some());
        for names in [manifests, others] {
            self.remove(&names.iter().map(|name| join(folder, name)).collect::<Vec<_>>())?;
        }
        folders.iter().try_for_each(|name| self.remove_below(&join(folder, name)))
    }

    fn missing(&self, record: &FileRecord) -> IoError {
        let folder = record.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        IoError::MissingFile { path: self.shown(&record.path), manifest: self.shown(&join(folder, "manifest-*.json")) }
    }

    /// An object as people name it.
    pub(crate) fn shown(&self, name: &str) -> PathBuf {
        format!("{}/{name}", self.url).into()
    }

    /// Where the mirror has an object. A record can be forged; what it names must not lead out of the mirror.
    fn local(&self, name: &str) -> Result<PathBuf> {
        let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\\');
        if name.split('/').all(is_plain) && !Path::new(name).is_absolute() {
            return Ok(self.mirror.join(name));
        }
        Err(IoError::Record { path: self.shown("its manifest"), problem: format!("lists `{name}`, which is no file of the run") })
    }
}

impl RunLayout {
    /// Brings what the store has of some manifests; nothing for a run that lies in no store.
    ///
    /// # Errors
    /// When the store fails.
    pub fn refresh_manifests(&self, stage: Stage, place: Place, shards: &[Shard]) -> Result<()> {
        let Some(store) = self.store() else { return Ok(()) };
        let names = shards.iter().map(|shard| self.object_name(&self.manifest(stage, place, *shard)));
        store.refresh(&names.collect::<Vec<_>>())
    }

    /// The same for all manifests of the run, for what reads them all.
    ///
    /// # Errors
    /// When the store fails.
    pub fn refresh_all_manifests(&self) -> Result<()> {
        self.store().map_or(Ok(()), |store| store.refresh_below(""))
    }

    /// Every file of the run by its name, in no order; links are files, wherever they lead.
    ///
    /// # Errors
    /// When a folder cannot be read, or the store fails.
    pub fn names(&self) -> Result<Vec<String>> {
        let (mut names, mut folders) = (Vec::new(), vec![String::new()]);
        while let Some(folder) = folders.pop() {
            let (files, below) = match self.store() {
                Some(store) => store.list(&folder)?,
                None => list_folder(&self.absolute(&folder))?,
            };
            names.extend(files.iter().map(|name| join(&folder, name)));
            folders.extend(below.iter().map(|name| join(&folder, name)));
        }
        Ok(names)
    }

    /// Where a file that a manifest lists lies on this machine, brought there if the run lies in a store.
    ///
    /// # Errors
    /// When it cannot be brought, or has other bytes in the store than its manifest says.
    pub fn bring(&self, record: &FileRecord) -> Result<PathBuf> {
        self.store().map_or_else(|| Ok(self.absolute(&record.path)), |store| store.bring(record))
    }

    /// Brings what the store has of run.json.
    ///
    /// # Errors
    /// When the store fails.
    pub fn refresh_run_record(&self) -> Result<()> {
        self.store().map_or(Ok(()), |store| store.refresh(&[self.object_name(&self.run_record())]))
    }

    /// Publishes run.json where the run lies in a store that has none; the store's counts.
    ///
    /// # Errors
    /// When the store fails.
    pub fn publish_run_record(&self) -> Result<()> {
        self.store().map_or(Ok(()), |store| store.publish_run_record(&self.run_record()))
    }

    /// Publishes a shard, which is whole in the mirror, where the run lies in a store.
    ///
    /// # Errors
    /// [`IoError::AlreadyExists`] when the store has the shard made from something else; else when the store fails.
    pub fn publish_shard(&self, stage: Stage, place: Place, shard: Shard) -> Result<()> {
        let path = self.manifest(stage, place, shard);
        self.store().map_or(Ok(()), |store| store.publish(&path, &self.object_name(&path)))
    }

    /// Removes a file of the run, in its store as well: there first, since the store is what counts.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn remove(&self, path: &Path) -> Result<()> {
        if let Some(store) = self.store() {
            store.remove(&[self.object_name(path)])?;
        }
        remove_file(path)
    }

    /// Removes a folder of the run with all it holds, in its store as well.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn remove_folder(&self, folder: &Path) -> Result<()> {
        if let Some(store) = self.store() {
            store.remove_below(&self.object_name(folder))?;
        }
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(IoError::file("remove", folder)(error)),
            _ => Ok(()),
        }
    }

    /// A path of the run as people name it: where it lies in the store, if the run does.
    #[must_use]
    pub fn shown(&self, path: &Path) -> PathBuf {
        match (self.store(), self.relative(path)) {
            (Some(store), Some(name)) if name.is_empty() => store.url().into(),
            (Some(store), Some(name)) => store.shown(&name),
            _ => path.to_owned(),
        }
    }

    /// The command that makes a stage's output at a place, as a person would type it for this run.
    #[must_use]
    pub fn command(&self, stage: Stage, place: Place) -> String {
        command(&self.shown(self.root()), stage, place)
    }

    fn object_name(&self, path: &Path) -> String {
        self.relative(path).unwrap_or_default()
    }
}

/// Where a run's mirror lies below a folder, by its URL.
///
/// # Errors
/// When the URL cannot name a run.
pub fn mirror_below(folder: &Path, url: &str) -> Result<PathBuf> {
    debug_assert!(is_url(url), "{url}");
    Ok(folder.join(crate::objects::parts_of(url)?.iter().collect::<PathBuf>()))
}

/// What lies in a folder, by name: files, then folders.
fn list_folder(folder: &Path) -> Result<(Vec<String>, Vec<String>)> {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder).map_err(IoError::file("read", folder))? {
        let entry = entry.map_err(IoError::file("read", folder))?;
        let is_folder = entry.file_type().map_err(IoError::file("read", entry.path()))?.is_dir();
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_folder { folders.push(name) } else { files.push(name) }
    }
    Ok((files, folders))
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Calls a function that waits for the store for all items, some at a time.
fn some_at_a_time<T: Sync>(items: &[T], call: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            call(item)?;
        }
        Ok(())
    };
    if items.len() < 2 {
        return work();
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..items.len().min(AT_A_TIME)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("waiting for a store does not panic"))
    })
}

/// Digests what is written to it, and keeps nothing.
#[derive(Debug, Default)]
struct Digesting {
    hasher: blake3::Hasher,
    num_bytes: u64,
}

impl io::Write for Digesting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.num_bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
