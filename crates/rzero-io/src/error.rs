//! Everything that can go wrong with a run's files. Each error names the file and knows what to do about it.

use rzero_schema::table::TableError;
use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, IoError>;

/// Why a file of a run could not be written, read or believed.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, such as `read` or `sync`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that must not be replaced is there.
    #[error("{} exists already", path.display())]
    AlreadyExists {
        /// The file.
        path: PathBuf,
    },
    /// The bytes are not those of a whole Parquet file.
    #[error("{} is no readable parquet file: {problem}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        problem: String,
    },
    /// The same of a file that others wrote.
    #[error("{} is no readable parquet file: {problem}", path.display())]
    ForeignParquet {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        problem: String,
    },
    /// Rows could not be encoded.
    #[error("cannot encode rows of table `{table}` for {}: {problem}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// The table.
        table: &'static str,
        /// What the encoder said.
        problem: String,
    },
    /// A Parquet file that no stage of this project wrote.
    #[error("{} carries no `rzero.table` in its footer, expected table `{expected}`", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// Table that was expected.
        expected: &'static str,
    },
    /// The file holds another table.
    #[error("{} holds table `{actual}`, expected `{expected}`", path.display())]
    WrongTable {
        /// The file.
        path: PathBuf,
        /// Table that was expected.
        expected: &'static str,
        /// Table its footer names.
        actual: String,
    },
    /// The table has another version.
    #[error("{} holds version {actual} of table `{table}`, expected version {expected}", path.display())]
    WrongVersion {
        /// The file.
        path: PathBuf,
        /// The table.
        table: &'static str,
        /// Version this build reads.
        expected: u32,
        /// Version the footer names.
        actual: String,
    },
    /// Columns, types or nulls are not as declared.
    #[error("{}: {source}", path.display())]
    Columns {
        /// The file.
        path: PathBuf,
        /// Which column, and how.
        source: TableError,
    },
    /// A column that the table does not declare.
    #[error("{} has a column `{column}` that table `{table}` does not declare", path.display())]
    UnknownColumn {
        /// The file.
        path: PathBuf,
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
    },
    /// A manifest, or another JSON record, that cannot be believed.
    #[error("{} {problem}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A manifest that is empty, cut short or overwritten with something else.
    #[error("{} is no whole manifest: {problem}", path.display())]
    TornManifest {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        problem: String,
    },
    /// A stage has no finished output at the place asked for.
    #[error("{} holds no finished output of {stage}", folder.display())]
    NoOutput {
        /// The stage.
        stage: &'static str,
        /// Where it was looked for.
        folder: PathBuf,
        /// The command that makes it.
        command: String,
    },
    /// Some shards have not finished.
    #[error("{} lacks {} of {num_shards} shards of {stage}: {}", folder.display(), missing.len(), list(missing))]
    MissingShards {
        /// The stage.
        stage: &'static str,
        /// Where it was looked for.
        folder: PathBuf,
        /// Indices of the missing shards.
        missing: Vec<u32>,
        /// Shards of the set.
        num_shards: u32,
        /// The command that makes a shard, but for its index.
        command: String,
    },
    /// Outputs of several shard counts lie side by side.
    #[error("{} holds outputs of {stage} cut into {} shards at once", folder.display(), list(counts))]
    SeveralSets {
        /// The stage.
        stage: &'static str,
        /// Where it was looked for.
        folder: PathBuf,
        /// The shard counts found.
        counts: Vec<u32>,
        /// The command that makes one set of them.
        command: String,
    },
    /// Two shards of one set were made from different things.
    #[error("shards {first} and {second} in {} differ in their {what}", folder.display())]
    ShardsDisagree {
        /// The folder.
        folder: PathBuf,
        /// What differs.
        what: &'static str,
        /// One shard.
        first: u32,
        /// The other.
        second: u32,
        /// The command that makes the second anew.
        command: String,
    },
    /// A file that a manifest promises is not there.
    #[error("{} is missing although {} lists it", path.display(), manifest.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
        /// The manifest.
        manifest: PathBuf,
    },
    /// A file has another size than its manifest says.
    #[error("{} has {actual} bytes, its manifest says {expected}", path.display())]
    SizeDiffers {
        /// The file.
        path: PathBuf,
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes found.
        actual: u64,
    },
    /// A file has other bytes than its manifest says.
    #[error("{} has digest {actual}, its manifest says {expected}", path.display())]
    DigestDiffers {
        /// The file.
        path: PathBuf,
        /// Digest by the manifest.
        expected: String,
        /// Digest found.
        actual: String,
    },
    /// A table has another number of rows than its manifest says.
    #[error("{} holds {actual} rows, its manifest says {expected}", path.display())]
    RowsDiffer {
        /// The file.
        path: PathBuf,
        /// Rows by the manifest.
        expected: u64,
        /// Rows found.
        actual: u64,
    },
    /// An object store, or what leads to it, that will refuse again.
    #[error("{url} cannot be used: {problem}")]
    StoreRefused {
        /// The run, or the object.
        url: String,
        /// What is wrong.
        problem: String,
        /// What to do about it.
        hint: String,
    },
    /// An object store that failed and may not fail again.
    #[error("the store of {url} failed: {problem}")]
    StoreFailed {
        /// The object.
        url: String,
        /// What it said.
        problem: String,
    },
    /// A stage's output has no such table.
    #[error("the output of {stage} in {} has no table `{table}`", folder.display())]
    NoTable {
        /// The stage.
        stage: &'static str,
        /// The folder.
        folder: PathBuf,
        /// The table.
        table: &'static str,
    },
}

/// Whose fault an error is; the stages turn it into an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The system or the program.
    Internal,
    /// An input breaks its schema, or is incomplete.
    Input,
    /// An output is there that was made from something else.
    Conflict,
    /// Flags, environment or the way to a store are wrong.
    Usage,
    /// Something outside that may pass.
    Passing,
}

impl IoError {
    /// Wraps what the operating system said about a file.
    pub fn file(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::File { action, path, source }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::File { action: "read" | "open", source, .. } if source.kind() == std::io::ErrorKind::NotFound => Blame::Input,
            Self::File { .. } | Self::Encode { .. } => Blame::Internal,
            Self::AlreadyExists { .. } => Blame::Conflict,
            Self::StoreRefused { .. } => Blame::Usage,
            Self::StoreFailed { .. } => Blame::Passing,
            _ => Blame::Input,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::File { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => "check the path".to_owned(),
                std::io::ErrorKind::PermissionDenied => "check the permissions of the file and its folder".to_owned(),
                std::io::ErrorKind::ReadOnlyFilesystem => {
                    "name a folder that can be written to, or mount the disk to be written".to_owned()
                }
                std::io::ErrorKind::QuotaExceeded => "free some of your quota and run the command again".to_owned(),
                std::io::ErrorKind::StorageFull => "free disk space and run the command again".to_owned(),
                _ => return None,
            },
            Self::AlreadyExists { .. } => "move it away if it is no longer wanted".to_owned(),
            Self::Encode { .. } => return None,
            Self::Parquet { .. } | Self::SizeDiffers { .. } | Self::DigestDiffers { .. } | Self::RowsDiffer { .. } => {
                "the file is damaged or was changed by hand: remove it with its manifest and rerun the stage that wrote it"
                    .to_owned()
            }
            Self::ForeignParquet { .. } => "fetch or export the file anew, or name another one".to_owned(),
            Self::TornManifest { .. } => {
                "a crash or a full disk leaves such a file: rerun the stage that wrote it, which makes its output anew".to_owned()
            }
            Self::MissingFile { manifest, .. } => {
                format!("restore the file, or remove {} and rerun its stage", manifest.display())
            }
            Self::NotOurs { .. } | Self::WrongTable { .. } => "name a file that a stage of this project wrote".to_owned(),
            Self::WrongVersion { .. } => {
                "rerun the stage that wrote it with this build, or read it with the build that wrote it".to_owned()
            }
            Self::Columns { .. } | Self::UnknownColumn { .. } => "compare the file with schemas/<table>.json".to_owned(),
            Self::Record { path, .. } => format!(
                "if another build wrote it, use that; if it is damaged, remove {} and rerun the stage that wrote it",
                path.display()
            ),
            Self::NoOutput { command, .. } => format!("run: {command}"),
            Self::MissingShards { missing, command, .. } => {
                let shown = missing.iter().take(8).map(|index| format!("run: {command} --shard-index {index}"));
                let rest = missing.len().saturating_sub(8);
                let rest = (rest > 0).then(|| format!("and likewise the other {rest} missing shards"));
                shown.chain(rest).collect::<Vec<_>>().join("\n      ")
            }
            Self::SeveralSets { command, .. } => format!("choose one shard count and run: {command} --overwrite"),
            Self::ShardsDisagree { command, .. } => {
                format!("rerun every shard from the same inputs, first: {command} --overwrite")
            }
            Self::StoreRefused { hint, .. } => hint.clone(),
            Self::StoreFailed { .. } => "nothing was lost; run the same command again once the store answers".to_owned(),
            Self::NoTable { .. } => "rerun the stage with this build".to_owned(),
        };
        Some(hint)
    }
}

fn list(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}
