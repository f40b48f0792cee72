//! One file from the hub to the disk: begun, gone on with, checked, and only then under its name.
//!
//! Bytes go to a hidden file that is named after the commit and locked while it is written. A fetch that was stopped leaves it, and the
//! next one asks for the rest.

use super::listing::RemoteFile;
use super::{Hub, Incoming, RequestError};
use crate::console::Progress;
use crate::exit::StageFailure;
use crate::interrupt::Interrupt;
use rzero_io::atomic::{publish_file, remove_file};
use rzero_io::error::IoError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Failures in a row, without a byte between them, after which the fetch gives up.
const MAX_FAILURES: u32 = 6;

/// Wait after the first failure; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(500);

const BUFFER_BYTES: usize = 1 << 18;

/// What is known of a file that came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceFile {
    pub(crate) name: String,
    pub(crate) num_bytes: u64,
    /// Of the bytes that came.
    pub(crate) sha256: String,
    /// Whether the hub announced that digest; else its size was compared alone.
    pub(crate) is_digest_announced: bool,
}

/// A file that is whole and checked, but not yet under its name.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) record: SourceFile,
    /// Where it lies; `None` where it lies under its name already.
    part: Option<PathBuf>,
}

impl Fetched {
    /// Puts the file under its name.
    pub(crate) fn publish(&self, folder: &Path) -> anyhow::Result<()> {
        Ok(self.part.as_ref().map_or(Ok(()), |part| publish_file(part, &folder.join(&self.record.name)))?)
    }
}

/// Fetches a file, or what is missing of it.
pub(crate) fn fetch(
    hub: &Hub,
    url: &str,
    file: &RemoteFile,
    folder: &Path,
    commit: &str,
    interrupt: &Interrupt,
) -> anyhow::Result<Fetched> {
    let published = folder.join(&file.name);
    if let Some(record) = published_before(&published, file, interrupt)? {
        return Ok(Fetched { record, part: None });
    }
    std::fs::create_dir_all(folder).map_err(IoError::file("create directory", folder))?;
    let path = folder.join(format!(".{}.{}.part", file.name, &commit[..12.min(commit.len())]));
    let mut part = Part::open(&path, interrupt)?;
    let mut announced = file.clone();
    let progress = Progress::start(&format!("fetching {}", file.name), file.num_bytes.unwrap_or(0), "bytes");
    progress.advance(part.num_bytes);
    let mut failures = 0;
    loop {
        if announced.num_bytes.is_some_and(|num_bytes| part.num_bytes > num_bytes) {
            part.begin_again()?;
        }
        if announced.num_bytes == Some(part.num_bytes) {
            break;
        }
        let before = part.num_bytes;
        let problem = match hub.open(url, part.num_bytes) {
            Ok(incoming) => match part.take(incoming, &mut announced, &progress, interrupt)? {
                None => break,
                Some(problem) => problem,
            },
            Err(RequestError::Passing(problem)) => problem,
            Err(RequestError::Final(error)) => return Err(error),
        };
        failures = if part.num_bytes > before { 1 } else { failures + 1 };
        if failures > MAX_FAILURES {
            return Err(hub.unreachable(&problem));
        }
        tracing::warn!(file = file.name, bytes = part.num_bytes, "the transfer broke off and goes on: {problem}");
        interrupt.wait(FIRST_WAIT * 2u32.pow(failures - 1))?;
    }
    let record = part.finish(&announced)?;
    Ok(Fetched { record, part: Some(path) })
}

/// What a fetch that was stopped had put under its name. Without an announced digest it is fetched again: such files are small.
fn published_before(path: &Path, file: &RemoteFile, interrupt: &Interrupt) -> anyhow::Result<Option<SourceFile>> {
    let (Some(digest), Some(num_bytes)) = (&file.sha256, file.num_bytes) else { return Ok(None) };
    if !path.metadata().is_ok_and(|found| found.is_file() && found.len() == num_bytes) {
        return Ok(None);
    }
    let mut hasher = Sha256::new();
    let mut found = File::open(path).map_err(IoError::file("open", path))?;
    hash_rest(&mut found, path, &mut hasher, interrupt)?;
    let sha256 = hexadecimal(&hasher);
    let record = SourceFile { name: file.name.clone(), num_bytes, sha256, is_digest_announced: true };
    Ok((record.sha256 == *digest).then_some(record))
}

/// The hidden file with what has come so far.
struct Part {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    num_bytes: u64,
}

impl Part {
    /// Opens what an earlier fetch left, or begins. Only one process writes it.
    fn open(path: &Path, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(IoError::file("open", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!("another process is fetching {}", path.display());
                return Err(StageFailure::conflict(message).hint("wait for it, or name another --output").into());
            }
            // Some network file systems know no locks; the digest still tells when two have written at once.
            Err(TryLockError::Error(error)) => tracing::debug!("cannot lock {}: {error}", path.display()),
        }
        let mut hasher = Sha256::new();
        let num_bytes = hash_rest(&mut file, path, &mut hasher, interrupt)?;
        Ok(Self { path: path.to_owned(), file, hasher, num_bytes })
    }

    /// Takes what comes. `Some` says why the transfer broke off, `None` that the server sent all it has.
    fn take(
        &mut self,
        mut incoming: Incoming,
        announced: &mut RemoteFile,
        progress: &Progress,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Option<String>> {
        announced.num_bytes = announced.num_bytes.or(incoming.num_bytes);
        announced.sha256 = announced.sha256.take().or(incoming.sha256.take());
        if incoming.num_bytes.is_some() && incoming.num_bytes != announced.num_bytes {
            return Err(self.wrong(announced, format!("is sent with {:?} bytes", incoming.num_bytes.unwrap_or(0))));
        }
        if incoming.status == 416 || (incoming.status == 206 && incoming.start != self.num_bytes) {
            self.begin_again()?;
            return Ok(Some("the server has nothing at this place".to_owned()));
        }
        if incoming.status == 200 && self.num_bytes > 0 {
            // The server does not serve parts, and sends the file from its beginning.
            self.begin_again()?;
        }
        let most = announced.num_bytes.unwrap_or_else(|| announced.max_bytes());
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            interrupt.check()?;
            let length = match incoming.body.read(&mut buffer) {
                Ok(0) if announced.num_bytes.is_some_and(|num_bytes| self.num_bytes < num_bytes) => {
                    return Ok(Some("the connection was closed before the end".to_owned()));
                }
                Ok(0) => return Ok(None),
                Ok(length) => length,
                Err(error) => return Ok(Some(error.to_string())),
            };
            if self.num_bytes + length as u64 > most {
                return Err(self.wrong(announced, "is sent with more bytes than that".to_owned()));
            }
            self.file.write_all(&buffer[..length]).map_err(IoError::file("write", &self.path))?;
            self.hasher.update(&buffer[..length]);
            self.num_bytes += length as u64;
            progress.advance(length as u64);
        }
    }

    /// Compares what has come with what was announced.
    fn finish(self, announced: &RemoteFile) -> anyhow::Result<SourceFile> {
        let sha256 = hexadecimal(&self.hasher);
        if announced.num_bytes.is_some_and(|num_bytes| num_bytes != self.num_bytes) {
            let come = self.num_bytes;
            return Err(self.wrong(announced, format!("came with {come}")));
        }
        if announced.sha256.as_ref().is_some_and(|digest| *digest != sha256) {
            return Err(self.wrong(announced, format!("came with another sha256: {sha256}")));
        }
        let is_digest_announced = announced.sha256.is_some();
        Ok(SourceFile { name: announced.name.clone(), num_bytes: self.num_bytes, sha256, is_digest_announced })
    }

    fn begin_again(&mut self) -> anyhow::Result<()> {
        self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0))).map_err(IoError::file("write", &self.path))?;
        self.hasher = Sha256::new();
        self.num_bytes = 0;
        Ok(())
    }

    /// What came is not what was announced: it is not kept.
    fn wrong(&self, announced: &RemoteFile, how: String) -> anyhow::Error {
        if let Err(error) = remove_file(&self.path) {
            return error.into();
        }
        let RemoteFile { name, num_bytes, sha256 } = announced;
        let digest = sha256.as_ref().map_or_else(String::new, |digest| format!(" and sha256 {digest}"));
        let message = format!("{name}, announced with {} bytes{digest}, {how}", num_bytes.unwrap_or_default());
        StageFailure::input(message)
            .hint("what came was thrown away: run the same command again; if it stays so, the hub's copy, or a proxy before it, is damaged")
            .into()
    }
}

/// Reads a file from where it stands to its end; returns the bytes read.
fn hash_rest(file: &mut File, path: &Path, hasher: &mut Sha256, interrupt: &Interrupt) -> anyhow::Result<u64> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut num_bytes = 0;
    loop {
        interrupt.check()?;
        let length = file.read(&mut buffer).map_err(IoError::file("read", path))?;
        if length == 0 {
            return Ok(num_bytes);
        }
        hasher.update(&buffer[..length]);
        num_bytes += length as u64;
    }
}

fn hexadecimal(hasher: &Sha256) -> String {
    hasher.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
