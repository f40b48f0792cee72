//! The manifest: written last, it makes a part of a stage's output exist. It says from what, by what and with what settings.

use crate::profile::Profile;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the manifest's own form.
pub const MANIFEST_VERSION: u32 = 2;

/// The record of one stage process that finished.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this form.
    pub manifest_version: u32,
    /// Stage binary.
    pub stage: String,
    /// Iteration, 0 for the base model.
    pub iteration: u32,
    /// Phase.
    pub phase: String,
    /// Step, 0 where the phase has none.
    pub step: u32,
    /// Update within the step, 0 for what belongs to the whole step.
    #[serde(default)]
    pub update: u32,
    /// Index of this shard.
    pub shard_index: u32,
    /// Number of shards.
    pub num_shards: u32,
    /// blake3 over everything that decides the output: stage, place, shard, what the stage sees of the profile, prompts, model and input digests.
    /// Equal fingerprints mean equal outputs.
    pub fingerprint: String,
    /// What built the binary.
    pub build: Build,
    /// The command line.
    pub argv: Vec<String>,
    /// Digest of what the stage sees of the resolved profile ([`Profile::seen_by`]).
    pub profile_digest: String,
    /// Overrides that were typed.
    pub overrides: Vec<String>,
    /// The resolved profile; absent for stages that take none.
    pub profile: Option<Profile>,
    /// Seed of the run.
    pub seed: u64,
    /// Digests of prompts, tokenizer and model, by what they are.
    pub digests: BTreeMap<String, String>,
    /// Files that were read.
    pub inputs: Vec<FileRecord>,
    /// Files that were read and follow from the inputs, such as parts of a gradient: no part of the fingerprint, and free to go afterwards.
    #[serde(default)]
    pub derived: Vec<FileRecord>,
    /// Files that were written.
    pub outputs: Vec<FileRecord>,
    /// The run that they were taken from, which had made them from the same; absent where they were made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused_from: Option<String>,
    /// Rows dropped, by reason; also every counted parse failure.
    pub counts: BTreeMap<String, u64>,
    /// Headline figures.
    pub metrics: BTreeMap<String, f64>,
    /// `cpu`, or the accelerator.
    pub device: String,
    /// Threads used.
    pub threads: u32,
    /// Start, RFC 3339 in UTC.
    pub started_at: String,
    /// End, RFC 3339 in UTC.
    pub finished_at: String,
    /// Duration in seconds.
    pub seconds: f64,
}

/// What built a binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Package version.
    pub version: String,
    /// Git commit, or `unknown` outside a checkout.
    pub commit: String,
    /// Whether the checkout had uncommitted changes.
    pub is_dirty: bool,
}

/// One file with what identifies its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Path relative to the run directory, or to the project's root for what lies outside the run.
    pub path: String,
    /// blake3 of the bytes, hexadecimal.
    pub digest: String,
    /// Size in bytes.
    pub num_bytes: u64,
    /// Table name; absent for files that are no table.
    pub table: Option<String>,
    /// Table version.
    pub table_version: Option<u32>,
    /// Rows of a table.
    pub num_rows: Option<u64>,
}
