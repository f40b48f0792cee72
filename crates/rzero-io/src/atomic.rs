//! Files that appear whole or not at all. All bytes of a run leave through here.
//!
//! Bytes go to a temporary file in the target directory, then: flush, fsync, rename, fsync of the directory. The temporary's name
//! tells which process on which host writes it, so that what a killed process left behind can be told from what is being written.
//!
//! Files that count only with another file beside them, as parts do with their manifest, may be renamed at once and synced together
//! ([`Unsynced`]), before that other file gets its name: one wait for the disk instead of one for each.

use crate::error::{IoError, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use tempfile::NamedTempFile;

/// What identifies a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDigest {
    /// blake3 of the bytes, hexadecimal.
    pub digest: String,
    /// Number of bytes.
    pub num_bytes: u64,
}

/// A file being written; it exists under its name only after [`AtomicFile::finish`].
#[derive(Debug)]
pub struct AtomicFile {
    final_path: PathBuf,
    temporary: BufWriter<NamedTempFile>,
    hasher: blake3::Hasher,
    num_bytes: u64,
    /// What the disk is busy with while more is written, and how many bytes stood in the file when that began.
    syncing: Option<JoinHandle<io::Result<()>>>,
    num_synced: u64,
}

/// Bytes after which the disk is given something to do.
const SYNC_BYTES: u64 = 64 << 20;

/// Files that bear their names already and are not yet durable.
#[derive(Debug, Default)]
pub struct Unsynced {
    files: Vec<(PathBuf, File)>,
}

impl Unsynced {
    fn sync_files(&self) -> Result<()> {
        side_by_side(&self.files, |(path, file)| file.sync_all().map_err(IoError::file("sync", path)))
    }
}

/// Calls a function that waits for the disk for all items at once: the disk does together what is asked of it together.
fn side_by_side<T: Sync>(items: &[T], wait: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    match items {
        [] => Ok(()),
        [item] => wait(item),
        items => std::thread::scope(|scope| {
            let threads: Vec<_> = items.iter().map(|item| scope.spawn(|| wait(item))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("waiting for the disk does not panic"))
        }),
    }
}

impl AtomicFile {
    /// Opens a temporary file beside `final_path`, creating the directory where needed.
    ///
    /// # Errors
    /// When the directory or the file cannot be created.
    pub fn create(final_path: &Path) -> Result<Self> {
        let directory = directory_of(final_path);
        fs::create_dir_all(directory).map_err(IoError::file("create directory", directory))?;
        let name = final_path.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!(".{name}.{}.{}.", host_name(), std::process::id());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(TEMPORARY_SUFFIX).rand_bytes(6);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = builder.tempfile_in(directory).map_err(IoError::file("create a temporary file beside", final_path))?;
        Ok(Self {
            final_path: final_path.to_owned(),
            temporary: BufWriter::with_capacity(1 << 18, temporary),
            hasher: blake3::Hasher::new(),
            num_bytes: 0,
            syncing: None,
            num_synced: 0,
        })
    }

    /// blake3 of what was written so far, hexadecimal.
    #[must_use]
    pub fn digest(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    /// Publishes the file, replacing one of the same name.
    ///
    /// # Errors
    /// When a byte could not be made durable; nothing appears under the final name then.
    pub fn finish(self) -> Result<FileDigest> {
        self.publish(|temporary, path| temporary.persist(path).map(drop).map_err(|error| error.error))
    }

    /// Publishes the file unless one of the same name exists. Of several processes that try, exactly one succeeds.
    ///
    /// # Errors
    /// [`IoError::AlreadyExists`] when the name is taken; else as [`AtomicFile::finish`].
    pub fn finish_exclusive(self) -> Result<FileDigest> {
        self.publish(|temporary, path| temporary.persist_noclobber(path).map(drop).map_err(|error| error.error))
    }

    /// Gives the file its name, replacing one of the same name, and leaves to `unsynced` that it becomes durable.
    ///
    /// # Errors
    /// When a byte could not be written or the file not be renamed; nothing appears under the final name then.
    pub fn finish_into(self, unsynced: &mut Unsynced) -> Result<FileDigest> {
        let (temporary, final_path, digest) = self.into_parts()?;
        let file = temporary.persist(&final_path).map_err(|error| IoError::file("publish", &final_path)(error.error))?;
        unsynced.files.push((final_path, file));
        Ok(digest)
    }

    /// As [`AtomicFile::finish_exclusive`], once the files of `before` are durable. So this file never tells of one that is not.
    ///
    /// # Errors
    /// As [`AtomicFile::finish_exclusive`], also for the other files.
    pub fn finish_exclusive_after(self, mut before: Unsynced) -> Result<FileDigest> {
        let (temporary, final_path, digest) = self.into_parts()?;
        let own = temporary.as_file().try_clone().map_err(IoError::file("sync", &final_path))?;
        before.files.push((final_path.clone(), own));
        before.sync_files()?;
        temporary.persist_noclobber(&final_path).map_err(|error| refused(&final_path, error.error))?;
        let mut directories: Vec<&Path> = before.files.iter().map(|(path, _)| directory_of(path)).collect();
        directories.sort_unstable();
        directories.dedup();
        side_by_side(&directories, |directory| sync_directory(directory))?;
        Ok(digest)
    }

    fn publish(self, rename: impl FnOnce(NamedTempFile, &Path) -> io::Result<()>) -> Result<FileDigest> {
        let (temporary, final_path, digest) = self.into_parts()?;
        temporary.as_file().sync_all().map_err(IoError::file("sync", &final_path))?;
        rename(temporary, &final_path).map_err(|error| refused(&final_path, error))?;
        sync_directory(directory_of(&final_path))?;
        Ok(digest)
    }

    /// The whole file, not yet durable, with where it belongs and what identifies it.
    fn into_parts(mut self) -> Result<(NamedTempFile, PathBuf, FileDigest)> {
        self.end_sync().map_err(IoError::file("sync", &self.final_path))?;
        let Self { final_path, temporary, hasher, num_bytes, .. } = self;
        let temporary = temporary.into_inner().map_err(|error| IoError::file("write", &final_path)(error.into_error()))?;
        Ok((temporary, final_path, FileDigest { digest: hasher.finalize().to_hex().to_string(), num_bytes }))
    }

    /// Has the disk take what was written so far, while more is written.
    fn begin_sync(&mut self) -> io::Result<()> {
        self.end_sync()?;
        self.num_synced = self.num_bytes;
        let file = self.temporary.get_ref().as_file().try_clone()?;
        self.syncing = Some(std::thread::spawn(move || file.sync_data()));
        Ok(())
    }

    /// Waits for the disk. A failure is told once, so it must not be lost.
    fn end_sync(&mut self) -> io::Result<()> {
        match self.syncing.take() {
            Some(syncing) => syncing.join().unwrap_or_else(|_| Err(io::Error::other("the thread that synced it ended early"))),
            None => Ok(()),
        }
    }
}

fn refused(path: &Path, error: io::Error) -> IoError {
    match error.kind() {
        io::ErrorKind::AlreadyExists => IoError::AlreadyExists { path: path.to_owned() },
        _ => IoError::file("publish", path)(error),
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.temporary.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.num_bytes += written as u64;
        if self.num_bytes - self.num_synced >= SYNC_BYTES {
            self.begin_sync()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temporary.flush()
    }
}

/// Publishes `bytes` under `path`, replacing a file of the same name.
///
/// # Errors
/// As [`AtomicFile::finish`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<FileDigest> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(IoError::file("write", path))?;
    file.finish()
}

/// Publishes `bytes` under `path` unless the name is taken.
///
/// # Errors
/// As [`AtomicFile::finish_exclusive`].
pub fn write_bytes_exclusive(path: &Path, bytes: &[u8]) -> Result<FileDigest> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(IoError::file("write", path))?;
    file.finish_exclusive()
}

/// Publishes a file that was written beside `path` by other means, such as one that took several processes; it replaces a file of the
/// same name.
///
/// # Errors
/// When it could not be made durable.
pub fn publish_file(written: &Path, path: &Path) -> Result<()> {
    File::open(written).and_then(|file| file.sync_all()).map_err(IoError::file("sync", written))?;
    fs::rename(written, path).map_err(IoError::file("publish", path))?;
    sync_directory(directory_of(path))
}

/// Gives a file a second name, or copies it where the file system has no second names; says what identifies what lies there, which is not yet
/// durable. No file of a run is ever written into, so both names stay what they are.
///
/// # Errors
/// When the file cannot be linked and cannot be copied, or not be read.
pub fn link_into(from: &Path, to: &Path, unsynced: &mut Unsynced) -> Result<FileDigest> {
    let directory = directory_of(to);
    fs::create_dir_all(directory).map_err(IoError::file("create", directory))?;
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(IoError::file("replace", to)(error)),
        _ => {}
    }
    if fs::hard_link(from, to).is_err() {
        let mut source = File::open(from).map_err(IoError::file("open", from))?;
        let mut file = AtomicFile::create(to)?;
        io::copy(&mut source, &mut file).map_err(IoError::file("write", to))?;
        return file.finish_into(unsynced);
    }
    unsynced.files.push((to.to_owned(), File::open(to).map_err(IoError::file("open", to))?));
    digest_file(to)
}

/// Reads a file once and says what identifies its content.
///
/// Large files are read on one thread and digested on the others, a block at a time.
///
/// # Errors
/// When the file cannot be read.
pub fn digest_file(path: &Path) -> Result<FileDigest> {
    let mut file = File::open(path).map_err(IoError::file("open", path))?;
    let mut hasher = blake3::Hasher::new();
    let mut num_bytes = 0;
    let length = file.metadata().map_or(0, |metadata| metadata.len()).min(DIGEST_BLOCK);
    let mut block = Vec::with_capacity(length as usize);
    let mut next = Vec::new();
    read_block(&mut file, &mut block).map_err(IoError::file("read", path))?;
    while !block.is_empty() {
        num_bytes += block.len() as u64;
        if block.len() as u64 == DIGEST_BLOCK {
            let (_, read) = rayon::join(|| hasher.update_rayon(&block), || read_block(&mut file, &mut next));
            read.map_err(IoError::file("read", path))?;
        } else {
            // A block that is not full is the last one.
            hasher.update(&block);
            next.clear();
        }
        std::mem::swap(&mut block, &mut next);
    }
    Ok(FileDigest { digest: hasher.finalize().to_hex().to_string(), num_bytes })
}

/// Bytes that are digested at a time.
const DIGEST_BLOCK: u64 = 4 << 20;

/// Reads until the block is full or the file ends.
fn read_block(file: &mut File, block: &mut Vec<u8>) -> io::Result<()> {
    block.clear();
    file.take(DIGEST_BLOCK).read_to_end(block).map(drop)
}

/// Removes a file if it is there, durably.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory(directory_of(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(IoError::file("remove", path)(error)),
    }
}

/// Removes the temporary files that dead processes of this host left in a directory; returns how many.
/// Those of living processes and of other hosts stay.
///
/// # Errors
/// When the directory is there and cannot be read, or a file cannot be removed.
pub fn remove_stale_temporaries(directory: &Path) -> Result<usize> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(IoError::file("read", directory))?,
    };
    let this_host = host_name();
    let mut num_removed = 0;
    for entry in entries {
        let entry = entry.map_err(IoError::file("read", directory))?;
        let Some((host, pid)) = writer_of(&entry.file_name().to_string_lossy()) else { continue };
        if host == this_host && is_dead(pid) {
            remove_file(&entry.path())?;
            num_removed += 1;
        }
    }
    Ok(num_removed)
}

const TEMPORARY_SUFFIX: &str = ".tmp";

/// Whether a file of this name is one that is, or was, being written.
#[must_use]
pub fn is_temporary(name: &str) -> bool {
    writer_of(name).is_some()
}

/// Host and process of a temporary file named `.{name}.{host}.{pid}.{random}.tmp`; `None` for every other name.
fn writer_of(name: &str) -> Option<(String, u32)> {
    let name = name.strip_prefix('.')?.strip_suffix(TEMPORARY_SUFFIX)?;
    let mut parts = name.rsplitn(4, '.');
    let (random, pid, host) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().filter(|_| random.len() == 6)?;
    Some((host.to_owned(), pid.parse().ok()?))
}

/// Whether a process of this host is gone; where that cannot be told, it counts as alive.
///
/// A killed process whose parent was killed with it can stay listed for a while, as a zombie (state Z): it writes no more.
fn is_dead(pid: u32) -> bool {
    if !Path::new("/proc/self").exists() {
        return false;
    }
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        // "PID (NAME) STATE ...", where the name may hold anything.
        Ok(stat) => stat.rsplit_once(')').is_some_and(|(_, rest)| matches!(rest.trim_start().chars().next(), Some('Z' | 'X'))),
    }
}

/// This host's name, of letters, digits and hyphens only.
fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_default();
    let name: String = name.trim().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(IoError::file("sync", directory))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_with_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/part.txt");
        let written = write_bytes(&path, b"abc").unwrap();
        assert_eq!(written, digest_file(&path).unwrap());
        assert_eq!(written.num_bytes, 3);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn digests_do_not_depend_on_how_a_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        let block = DIGEST_BLOCK as usize;
        for length in [0, 1, block - 1, block, block + 1, 2 * block, 2 * block + 7] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            fs::write(&path, &bytes).unwrap();
            let expected = FileDigest { digest: blake3::hash(&bytes).to_hex().to_string(), num_bytes: length as u64 };
            assert_eq!(digest_file(&path).unwrap(), expected);
        }
    }

    #[test]
    fn an_unfinished_file_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = AtomicFile::create(&folder.path().join("part")).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_one_of_many_publishes_exclusively() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..50 {
            let path = folder.path().join(format!("manifest-{round}"));
            let results: Vec<Result<FileDigest>> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4u8)
                    .map(|thread| {
                        scope.spawn({
                            let path = &path;
                            move || write_bytes_exclusive(path, &[thread; 100])
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let winners: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
            assert_eq!(winners.len(), 1);
            assert_eq!(*winners[0], digest_file(&path).unwrap());
            assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(IoError::AlreadyExists { .. }))));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 50);
    }

    #[test]
    fn only_what_a_dead_process_of_this_host_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let touch = |name: String| fs::write(folder.path().join(name), "x").unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        touch(format!(".part.parquet.{}.{}.abcdef.tmp", host_name(), child.id()));
        touch(format!(".part.parquet.{}.{}.abcdef.tmp", host_name(), std::process::id()));
        touch(format!(".part.parquet.another-host.{}.abcdef.tmp", child.id()));
        touch("part.parquet".to_owned());
        touch(".hidden.tmp".to_owned());
        assert_eq!(remove_stale_temporaries(folder.path()).unwrap(), 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
        assert_eq!(remove_stale_temporaries(&folder.path().join("absent")).unwrap(), 0);
    }
}
