//! What a stage leaves: tables, files, counts and figures, all of which the manifest will list.
//!
//! Files have their names as soon as they are whole; the frame makes all of them durable at once, before the manifest.

use crate::context::StageContext;
use anyhow::Context;
use rzero_io::atomic::{AtomicFile, Unsynced};
use rzero_io::error::IoError;
use rzero_io::writer::TableWriter;
use rzero_schema::manifest::FileRecord;
use rzero_schema::table::Table;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Collects what a running stage writes.
#[derive(Debug)]
pub struct StageOutputs<'a> {
    context: &'a StageContext,
    pub(crate) files: Vec<FileRecord>,
    /// Files that were read and follow from the declared inputs.
    pub(crate) derived: Vec<FileRecord>,
    pub(crate) counts: BTreeMap<String, u64>,
    pub(crate) metrics: BTreeMap<String, f64>,
    /// What must be durable before the manifest is written.
    pub(crate) unsynced: Unsynced,
}

impl<'a> StageOutputs<'a> {
    pub(crate) fn new(context: &'a StageContext) -> Self {
        Self {
            context,
            files: Vec::new(),
            derived: Vec::new(),
            counts: BTreeMap::new(),
            metrics: BTreeMap::new(),
            unsynced: Unsynced::default(),
        }
    }

    /// Opens this shard's part of a table. A stage that writes a table writes it in every shard, with no rows if it has none.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn table_writer<T: Table>(&self) -> anyhow::Result<TableWriter<T>> {
        let StageContext { layout, stage, place, shard, .. } = self.context;
        Ok(TableWriter::create(&layout.part(*stage, *place, T::NAME, *shard), &self.context.footer())?)
    }

    /// Publishes a part and lists it.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn finish_table<T: Table>(&mut self, writer: TableWriter<T>) -> anyhow::Result<()> {
        let written = writer.finish_into(&mut self.unsynced)?;
        self.add_file(FileRecord {
            path: self.context.record_path(&written.path),
            digest: written.digest,
            num_bytes: written.num_bytes,
            table: Some(T::NAME.to_owned()),
            table_version: Some(T::VERSION),
            num_rows: Some(written.num_rows),
        });
        Ok(())
    }

    /// Writes this shard's part of a table at once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_table<T: Table>(&mut self, rows: &[T]) -> anyhow::Result<()> {
        let mut writer = self.table_writer::<T>()?;
        writer.write(rows)?;
        self.finish_table(writer)
    }

    /// Where a file of the stage's folder lies, such as `checkpoint/config.json`.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.context.layout.stage_folder(self.context.stage, self.context.place).join(name)
    }

    /// Publishes bytes as a file of the run and lists it.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_file(&mut self, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        self.write_file_with(path, |file| Ok(file.write_all(bytes)?))
    }

    /// Publishes a file of the run that `write` fills, without holding it in memory, and lists it.
    ///
    /// # Errors
    /// When it cannot be written, or `write` fails.
    pub fn write_file_with(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut file = AtomicFile::create(path)?;
        write(&mut file).with_context(|| format!("cannot write {}", path.display()))?;
        let written = file.finish_into(&mut self.unsynced)?;
        self.add_file(file_record(self.context, path, written.digest, written.num_bytes));
        Ok(())
    }

    /// Publishes a copy of a file as a file of the run and lists it.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn copy_file(&mut self, from: &Path, to: &Path) -> anyhow::Result<()> {
        let mut source = std::fs::File::open(from).map_err(IoError::file("open", from))?;
        self.write_file_with(to, |file| {
            std::io::copy(&mut source, file)?;
            Ok(())
        })
    }

    /// Lists a file that was written by other means. Its path is relative to the run.
    pub fn add_file(&mut self, record: FileRecord) {
        self.files.push(record);
    }

    /// Notes files that were read and follow from the declared inputs, so that they decide nothing that those do not.
    pub fn note_derived(&mut self, records: Vec<FileRecord>) {
        self.derived.extend(records);
    }

    /// Adds to a count, such as the rows dropped for a reason.
    pub fn count(&mut self, reason: impl Into<String>, number: u64) {
        *self.counts.entry(reason.into()).or_default() += number;
    }

    /// Notes a headline figure. One that is no number cannot stand in a manifest: it is left out, with a warning.
    pub fn metric(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        if value.is_finite() {
            self.metrics.insert(name, value);
        } else {
            tracing::warn!(name, value, "a metric is no number and is left out of the manifest");
        }
    }
}

fn file_record(context: &StageContext, path: &Path, digest: String, num_bytes: u64) -> FileRecord {
    FileRecord { path: context.record_path(path), digest, num_bytes, table: None, table_version: None, num_rows: None }
}
