//! A stage's whole output at one place: all shards or nothing.
//!
//! Opening reads the manifests, and refuses what is missing, mixed or damaged, with the command that mends it. Rows are read in shard
//! order, which is row order. Before a part is decoded its digest is compared with its manifest, and its rows are counted after.

use crate::atomic::digest_file;
use crate::error::{IoError, Result};
use crate::layout::{RunLayout, Shard, shard_of_manifest};
use crate::manifest::read_manifest;
use crate::pruned::pruned_files;
use crate::reader::{TableStream, read_table, stream_table};
use crate::scan::{Piece, pieces};
use rzero_schema::ids::Place;
use rzero_schema::manifest::{FileRecord, Manifest};
use rzero_schema::table::Table;
use rzero_schema::vocab::Stage;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The complete output of one stage at one place.
#[derive(Debug, Clone)]
pub struct StageOutput {
    layout: RunLayout,
    stage: Stage,
    place: Place,
    manifests: Vec<Manifest>,
}

impl StageOutput {
    /// Opens the output of `stage` at `place`.
    ///
    /// # Errors
    /// When there is none, shards are missing, several sets lie side by side, shards disagree about what they were made from, or
    /// a file is missing or has another size than its manifest says.
    pub fn open(layout: &RunLayout, stage: Stage, place: Place) -> Result<Self> {
        let shards = finished_shards(layout, stage, place)?;
        let folder = layout.shown(&layout.stage_folder(stage, place));
        let command = layout.command(stage, place);
        let counts: Vec<u32> = shards.iter().map(|shard| shard.num).collect::<BTreeSet<_>>().into_iter().collect();
        let num_shards = match counts.as_slice() {
            [] => return Err(IoError::NoOutput { stage: stage.as_str(), folder, command }),
            [num_shards] => *num_shards,
            _ => return Err(IoError::SeveralSets { stage: stage.as_str(), folder, counts, command }),
        };
        let missing: Vec<u32> =
            (0..num_shards).filter(|index| !shards.contains(&Shard { index: *index, num: num_shards })).collect();
        if !missing.is_empty() {
            let command = format!("{command} --num-shards {num_shards}");
            return Err(IoError::MissingShards { stage: stage.as_str(), folder, missing, num_shards, command });
        }
        layout.refresh_manifests(stage, place, &shards)?;
        let mut manifests = Vec::new();
        for shard in shards {
            let path = layout.manifest(stage, place, shard);
            let manifest = read_manifest(&path)?;
            check_identity(&path, &manifest, stage, place, shard)?;
            // Of a run in a store, each file is held against its digest when it is brought.
            if layout.store().is_none() {
                check_sizes(layout, &path, &manifest)?;
            }
            manifests.push(manifest);
        }
        for manifest in &manifests[1..] {
            if let Some(what) = disagreement(&manifests[0], manifest) {
                let (first, second) = (manifests[0].shard_index, manifest.shard_index);
                let command = format!("{command} --num-shards {num_shards} --shard-index {second}");
                return Err(IoError::ShardsDisagree { folder, what, first, second, command });
            }
        }
        Ok(Self { layout: layout.clone(), stage, place, manifests })
    }

    /// The same; none where the stage has not finished there, or not with all its shards.
    ///
    /// # Errors
    /// As [`Self::open`], but for what is not there yet.
    pub fn open_finished(layout: &RunLayout, stage: Stage, place: Place) -> Result<Option<Self>> {
        match Self::open(layout, stage, place) {
            Ok(output) => Ok(Some(output)),
            Err(IoError::NoOutput { .. } | IoError::MissingShards { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The stage that wrote it.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Where in the run it lies.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// The manifests, in shard order.
    #[must_use]
    pub fn manifests(&self) -> &[Manifest] {
        &self.manifests
    }

    /// Every file that was written, as a stage that reads them records its inputs.
    #[must_use]
    pub fn input_records(&self) -> Vec<FileRecord> {
        self.manifests.iter().flat_map(|manifest| manifest.outputs.iter().cloned()).collect()
    }

    /// The files of one table, in shard order, as they lie on this machine.
    ///
    /// # Errors
    /// When the output has no such table, or a file cannot be brought from the run's store.
    pub fn parts<T: Table>(&self) -> Result<Vec<PathBuf>> {
        self.records::<T>()?.into_iter().map(|record| self.layout.bring(record)).collect()
    }

    /// Brings the files below a path of the run, or the one at it, to this machine, where the run lies in a store.
    ///
    /// # Errors
    /// When one cannot be brought, or has other bytes in the store than its manifest says.
    pub fn bring_below(&self, path: &Path) -> Result<()> {
        let records = self.manifests.iter().flat_map(|manifest| &manifest.outputs);
        records
            .filter(|record| self.layout.absolute(&record.path).starts_with(path))
            .try_for_each(|record| self.layout.bring(record).map(drop))
    }

    /// Where a file with the bytes that its manifest says lies on this machine.
    fn checked(&self, record: &FileRecord) -> Result<PathBuf> {
        let path = self.layout.bring(record)?;
        // What was brought was held against its digest.
        if self.layout.store().is_none() {
            check_digest(&path, record)?;
        }
        Ok(path)
    }

    /// All rows of a table, in shard order.
    ///
    /// # Errors
    /// When the output has no such table, a file is damaged, or the row counts are not those of the manifests.
    pub fn read<T: Table>(&self) -> Result<Vec<T>> {
        let mut rows = Vec::new();
        for record in self.records::<T>()? {
            let path = self.checked(record)?;
            let mut part = read_table::<T>(&path)?;
            check_rows(&path, record, part.len() as u64)?;
            rows.append(&mut part);
        }
        Ok(rows)
    }

    /// The rows of a table, some at a time, in shard order.
    ///
    /// # Errors
    /// When the output has no such table; each batch has its own errors, as [`StageOutput::read`].
    pub fn stream<T: Table>(&self, batch_rows: usize) -> Result<impl Iterator<Item = Result<Vec<T>>>> {
        let records = self.records::<T>()?;
        let streams = records.into_iter().map(move |record| {
            let path = self.layout.absolute(&record.path);
            match self.checked(record).and_then(|path| stream_table::<T>(&path, batch_rows)) {
                Ok(stream) => CountedStream { stream: Some(stream), path, record, num_rows: 0, error: None },
                Err(error) => CountedStream { stream: None, path, record, num_rows: 0, error: Some(error) },
            }
        });
        Ok(streams.flatten())
    }

    /// Some columns of a table, as pieces in row order that can be decoded side by side.
    ///
    /// # Errors
    /// When the output has no such table, a file is damaged, or the row counts are not those of the manifests; each piece has its own
    /// errors.
    pub fn scan<T: Table>(&self, columns: &[&'static str]) -> Result<Vec<Piece<T>>> {
        self.scan_where(columns, |_| true)
    }

    /// The same of those pieces that `is_wanted`. Files without one are not read beyond their footers: of a large table, each of many shards
    /// reads its own part.
    ///
    /// # Errors
    /// As [`Self::scan`]; whether a file is damaged is found only for those that are read.
    pub fn scan_where<T: Table>(&self, columns: &[&'static str], is_wanted: impl Fn(&Piece<T>) -> bool) -> Result<Vec<Piece<T>>> {
        let mut all = Vec::new();
        let mut num_before = 0;
        for record in self.records::<T>()? {
            let path = self.layout.bring(record)?;
            // A footer that is damaged can look like another: what follows from it holds only once the digest is checked.
            let part = pieces::<T>(&path, columns, num_before);
            let wanted = |part: &Vec<Piece<T>>| part.iter().any(&is_wanted);
            if part.as_ref().map_or(true, wanted) {
                self.checked(record)?;
            }
            let part = part?;
            let num_rows = part.iter().map(Piece::num_rows).sum();
            check_rows(&path, record, num_rows)?;
            num_before += num_rows;
            all.extend(part.into_iter().filter(&is_wanted));
        }
        Ok(all)
    }

    /// The files that were pruned, and are not there.
    ///
    /// # Errors
    /// When the record of what was pruned cannot be read.
    pub fn pruned(&self) -> Result<Vec<&FileRecord>> {
        let names = pruned_files(&self.layout.stage_folder(self.stage, self.place))?;
        let records = self.manifests.iter().flat_map(|manifest| &manifest.outputs);
        Ok(records.filter(|record| names.contains(&record.path) && !self.layout.absolute(&record.path).exists()).collect())
    }

    /// Rows of a table by the manifests.
    ///
    /// # Errors
    /// When the output has no such table.
    pub fn num_rows<T: Table>(&self) -> Result<u64> {
        Ok(self.records::<T>()?.iter().filter_map(|record| record.num_rows).sum())
    }

    /// Reads every file, tables and others, and compares it with its digest.
    ///
    /// # Errors
    /// Names the first file whose bytes are not those that were written.
    pub fn verify_digests(&self) -> Result<()> {
        for record in self.manifests.iter().flat_map(|manifest| &manifest.outputs) {
            self.checked(record)?;
        }
        Ok(())
    }

    fn records<T: Table>(&self) -> Result<Vec<&FileRecord>> {
        let is_table = |record: &&FileRecord| record.table.as_deref() == Some(T::NAME);
        let records: Vec<&FileRecord> =
            self.manifests.iter().flat_map(|manifest| manifest.outputs.iter().filter(is_table)).collect();
        if records.is_empty() {
            let folder = self.layout.shown(&self.layout.stage_folder(self.stage, self.place));
            return Err(IoError::NoTable { stage: self.stage.as_str(), folder, table: T::NAME });
        }
        Ok(records)
    }
}

/// The shards of a stage that have a manifest, in order.
///
/// # Errors
/// When the folder is there and cannot be read.
pub fn finished_shards(layout: &RunLayout, stage: Stage, place: Place) -> Result<Vec<Shard>> {
    let folder = layout.stage_folder(stage, place);
    let mut shards = match layout.store() {
        Some(store) => store.finished_shards(&layout.relative(&folder).unwrap_or_default())?,
        None => shards_in(&folder)?,
    };
    shards.sort_by_key(|shard| (shard.num, shard.index));
    Ok(shards)
}

fn shards_in(folder: &Path) -> Result<Vec<Shard>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(IoError::file("read", folder))?,
    };
    let mut shards = Vec::new();
    for entry in entries {
        let entry = entry.map_err(IoError::file("read", folder))?;
        shards.extend(shard_of_manifest(&entry.file_name().to_string_lossy()));
    }
    Ok(shards)
}

/// Checks that every file which a manifest lists is on this machine with the right size, or was pruned.
///
/// # Errors
/// Names the first that is not.
pub fn check_sizes(layout: &RunLayout, manifest_path: &Path, manifest: &Manifest) -> Result<()> {
    for record in &manifest.outputs {
        let path = layout.absolute(&record.path);
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.len() == record.num_bytes => {}
            Ok(metadata) => {
                return Err(IoError::SizeDiffers { path, expected: record.num_bytes, actual: metadata.len() });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let folder = manifest_path.parent().unwrap_or(Path::new(""));
                if record.table.is_none() && pruned_files(folder)?.contains(&record.path) {
                    continue;
                }
                return Err(IoError::MissingFile { path, manifest: manifest_path.to_owned() });
            }
            Err(error) => return Err(IoError::file("read", &path)(error)),
        }
    }
    Ok(())
}

/// A manifest must speak of the place where it lies: one that was copied elsewhere is refused.
///
/// # Errors
/// When it speaks of another.
pub fn check_identity(path: &Path, manifest: &Manifest, stage: Stage, place: Place, shard: Shard) -> Result<()> {
    let speaks_of = (manifest.stage.as_str(), manifest.iteration, manifest.phase.as_str(), manifest.step, manifest.update);
    let lies_at = (stage.as_str(), place.iteration, place.phase.as_str(), place.step, place.update);
    if speaks_of == lies_at && (manifest.shard_index, manifest.num_shards) == (shard.index, shard.num) {
        return Ok(());
    }
    let problem = format!(
        "speaks of {} at {:03}/{}/{:02}, shard {} of {}: it was copied from there",
        manifest.stage, manifest.iteration, manifest.phase, manifest.step, manifest.shard_index, manifest.num_shards
    );
    Err(IoError::Record { path: path.to_owned(), problem })
}

/// What two shards of one set were made from differently; `None` where that is nothing.
#[must_use]
pub fn disagreement(first: &Manifest, second: &Manifest) -> Option<&'static str> {
    let digests = |manifest: &Manifest| -> Vec<(String, String)> {
        manifest.inputs.iter().map(|input| (input.path.clone(), input.digest.clone())).collect()
    };
    if first.seed != second.seed {
        Some("seed")
    } else if first.profile_digest != second.profile_digest {
        Some("profile")
    } else if first.digests != second.digests {
        Some("prompts, tokenizer or model")
    } else if digests(first) != digests(second) {
        Some("input files")
    } else {
        None
    }
}

fn check_digest(path: &Path, record: &FileRecord) -> Result<()> {
    let actual = digest_file(path)?.digest;
    if actual == record.digest {
        return Ok(());
    }
    Err(IoError::DigestDiffers { path: path.to_owned(), expected: record.digest.clone(), actual })
}

fn check_rows(path: &Path, record: &FileRecord, actual: u64) -> Result<()> {
    match record.num_rows {
        Some(expected) if expected != actual => Err(IoError::RowsDiffer { path: path.to_owned(), expected, actual }),
        _ => Ok(()),
    }
}

/// One part as a stream that ends with an error if it was shorter or longer than its manifest says.
struct CountedStream<'a, T: Table> {
    stream: Option<TableStream<T>>,
    path: PathBuf,
    record: &'a FileRecord,
    num_rows: u64,
    error: Option<IoError>,
}

impl<T: Table> Iterator for CountedStream<'_, T> {
    type Item = Result<Vec<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.error.take() {
            return Some(Err(error));
        }
        match self.stream.as_mut()?.next() {
            Some(Ok(rows)) => {
                self.num_rows += rows.len() as u64;
                Some(Ok(rows))
            }
            Some(Err(error)) => {
                self.stream = None;
                Some(Err(error))
            }
            None => {
                self.stream = None;
                check_rows(&self.path, self.record, self.num_rows).err().map(Err)
            }
        }
    }
}
