//! Object stores by the crate `object_store`: S3 and what speaks like it, Google's, Azure's, and folders.

use super::{Listing, Objects, Version, parts_of};
use crate::error::{IoError, Result};
use object_store::path::Path as ObjectPath;
use object_store::{Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use tokio::runtime::Runtime;

/// Files of more bytes are sent in parts of so many, which is above the 5 MiB that S3 asks for.
const PART_BYTES: u64 = 8 << 20;

/// Parts of one file that are under way at a time.
const PARTS_UNDER_WAY: usize = 4;

/// The objects below one URL.
#[derive(Debug)]
pub(super) struct RemoteObjects {
    url: String,
    store: Box<dyn ObjectStore>,
    base: ObjectPath,
    runtime: Runtime,
}

impl RemoteObjects {
    pub(super) fn connect(url: &str, settings: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        parts_of(url)?;
        let refuse = |problem: String| IoError::StoreRefused {
            url: url.to_owned(),
            problem,
            hint:
                "name a run as s3://BUCKET/RUN, gs://BUCKET/RUN, az://CONTAINER/RUN or file:///FOLDER; keys, region and endpoint \
                   stand in the environment (AWS_*, GOOGLE_*, AZURE_*)"
                    .to_owned(),
        };
        // Another connection of this process may have chosen it already, which is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
        let parsed = url::Url::parse(url).map_err(|error| refuse(format!("is no URL: {error}")))?;
        let settings = settings.into_iter().map(|(key, value)| (key.to_lowercase(), value));
        let (store, base) = object_store::parse_url_opts(&parsed, settings).map_err(|error| refuse(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("store")
            .enable_all()
            .build()
            .map_err(IoError::file("start the threads of", url))?;
        Ok(Self { url: url.trim_end_matches('/').to_owned(), store, base, runtime })
    }

    fn path(&self, name: &str) -> ObjectPath {
        name.split('/').filter(|part| !part.is_empty()).fold(self.base.clone(), |path, part| path.join(part))
    }

    fn failed(&self, name: &str, error: &Error) -> IoError {
        let url = if name.is_empty() { self.url.clone() } else { format!("{}/{name}", self.url) };
        let hint = match error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                "the store does not let these keys do it: look at AWS_*, GOOGLE_* or AZURE_* in the environment"
            }
            Error::NotFound { .. } => "create the bucket first, or correct its name or AWS_ENDPOINT",
            Error::NotSupported { .. } | Error::NotImplemented { .. } => {
                "use a store that can create an object only if its name is free"
            }
            Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } => {
                "correct the URL or the settings in the environment"
            }
            _ => return IoError::StoreFailed { url, problem: one_line(error) },
        };
        IoError::StoreRefused { url, problem: one_line(error), hint: hint.to_owned() }
    }

    fn put(&self, name: &str, bytes: &[u8], mode: PutMode) -> object_store::Result<()> {
        let path = self.path(name);
        let payload = PutPayload::from(bytes.to_vec());
        self.runtime.block_on(self.store.put_opts(&path, payload, PutOptions::from(mode))).map(drop)
    }

    async fn send_parts(&self, file: &mut File, from: &Path, name: &str, digest: &str) -> Result<()> {
        let failed = |error: &Error| self.failed(name, error);
        let mut upload = self.store.put_multipart(&self.path(name)).await.map_err(|error| failed(&error))?;
        let sent = self.send_all(&mut *upload, file, from, name, digest).await;
        if sent.is_err() {
            // What was sent costs storage until it is given up. Where even that fails, the store's own rule for unfinished ones must do.
            upload.abort().await.ok();
        }
        sent
    }

    async fn send_all(
        &self,
        upload: &mut dyn MultipartUpload,
        file: &mut File,
        from: &Path,
        name: &str,
        digest: &str,
    ) -> Result<()> {
        let failed = |error: &Error| self.failed(name, error);
        let mut under_way = std::collections::VecDeque::new();
        let mut hasher = blake3::Hasher::new();
        loop {
            let mut part = Vec::new();
            file.take(PART_BYTES).read_to_end(&mut part).map_err(IoError::file("read", from))?;
            if part.is_empty() {
                break;
            }
            hasher.update(&part);
            under_way.push_back(tokio::spawn(upload.put_part(part.into())));
            if under_way.len() == PARTS_UNDER_WAY {
                finish(under_way.pop_front()).await.map_err(|error| failed(&error))?;
            }
        }
        while !under_way.is_empty() {
            finish(under_way.pop_front()).await.map_err(|error| failed(&error))?;
        }
        check(from, digest, &hasher)?;
        upload.complete().await.map(drop).map_err(|error| failed(&error))
    }
}

/// Waits for a part.
async fn finish(part: Option<tokio::task::JoinHandle<object_store::Result<()>>>) -> object_store::Result<()> {
    match part {
        Some(part) => part.await.unwrap_or_else(|error| Err(Error::JoinError { source: error })),
        None => Ok(()),
    }
}

fn check(path: &Path, expected: &str, hasher: &blake3::Hasher) -> Result<()> {
    let actual = hasher.finalize().to_hex().to_string();
    if actual == expected {
        return Ok(());
    }
    Err(IoError::DigestDiffers { path: path.to_owned(), expected: expected.to_owned(), actual })
}

/// An error and its causes, without what stands in them twice. Stores answer with pages of XML.
fn one_line(error: &Error) -> String {
    const SHOWN: usize = 400;
    let text = error.to_string();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

impl Objects for RemoteObjects {
    fn list(&self, folder: &str) -> Result<Listing> {
        let path = self.path(folder);
        let found = match self.runtime.block_on(self.store.list_with_delimiter(Some(&path))) {
            Ok(found) => found,
            // Where nothing was written yet, a store of folders has none.
            Err(Error::NotFound { .. }) if self.url.starts_with("file:") => return Ok(Listing::default()),
            Err(error) => return Err(self.failed(folder, &error)),
        };
        let name = |path: &ObjectPath| path.filename().unwrap_or_default().to_owned();
        Ok(Listing {
            objects: found.objects.iter().map(|object| name(&object.location)).collect(),
            folders: found.common_prefixes.iter().map(name).collect(),
        })
    }

    fn read(&self, name: &str) -> Result<Option<(Vec<u8>, Version)>> {
        let read = async {
            let found = self.store.get(&self.path(name)).await?;
            let version = Version { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
            Ok((found.bytes().await?.to_vec(), version))
        };
        match self.runtime.block_on(read) {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(name, &error)),
        }
    }

    fn fetch(&self, name: &str, target: &mut dyn Write) -> Result<bool> {
        use futures_util::StreamExt;
        let failed = |error: &Error| self.failed(name, error);
        self.runtime.block_on(async {
            let mut stream = match self.store.get(&self.path(name)).await {
                Ok(found) => found.into_stream(),
                Err(Error::NotFound { .. }) => return Ok(false),
                Err(error) => return Err(failed(&error)),
            };
            while let Some(block) = stream.next().await {
                target.write_all(&block.map_err(|error| failed(&error))?).map_err(IoError::file("write", name))?;
            }
            Ok(true)
        })
    }

    fn size(&self, name: &str) -> Result<Option<u64>> {
        match self.runtime.block_on(self.store.head(&self.path(name))) {
            Ok(found) => Ok(Some(found.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(name, &error)),
        }
    }

    fn send(&self, from: &Path, name: &str, digest: &str) -> Result<()> {
        let mut file = File::open(from).map_err(IoError::file("open", from))?;
        let num_bytes = file.metadata().map_err(IoError::file("read", from))?.len();
        if num_bytes > PART_BYTES {
            return self.runtime.block_on(self.send_parts(&mut file, from, name, digest));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(IoError::file("read", from))?;
        check(from, digest, blake3::Hasher::new().update(&bytes))?;
        self.put(name, &bytes, PutMode::Overwrite).map_err(|error| self.failed(name, &error))
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        match self.put(name, bytes, PutMode::Create) {
            Ok(()) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(self.failed(name, &error)),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8], version: &Version) -> Result<bool> {
        let version = UpdateVersion { e_tag: version.e_tag.clone(), version: version.version.clone() };
        let replaced = match self.put(name, bytes, PutMode::Update(version)) {
            // Folders cannot be asked that.
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => self.put(name, bytes, PutMode::Overwrite),
            result => result,
        };
        match replaced {
            Ok(()) => Ok(true),
            Err(Error::Precondition { .. } | Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.failed(name, &error)),
        }
    }

    fn remove(&self, name: &str) -> Result<()> {
        match self.runtime.block_on(self.store.delete(&self.path(name))) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(name, &error)),
        }
    }
}
