//! The profile of a base model, from which `pretrain` draws a corpus and `make-ladder` problems of the same kind.

use crate::exit::StageFailure;
use anyhow::Context;
use rzero_io::layout::Shard;
use rzero_io::writer::{FooterMetadata, TableWriter};
use rzero_schema::ids::Place;
use rzero_schema::pretrain_profile::PretrainProfile;
use rzero_schema::table::Table;
use rzero_schema::vocab::{Phase, Stage};
use std::path::Path;

/// Reads the profile of a base model; also its digest.
///
/// # Errors
/// When it cannot be read or used: exit code 2.
pub fn read_base_profile(path: &Path) -> anyhow::Result<(PretrainProfile, String)> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        StageFailure::usage(format!("cannot read profile {}: {error}", path.display()))
            .hint("name the profile of a base model with --profile, such as pipelines/profiles/tiny-base.toml")
    })?;
    let profile = PretrainProfile::from_toml(&text).with_context(|| format!("cannot use profile {}", path.display()))?;
    Ok((profile, blake3::hash(text.as_bytes()).to_hex().to_string()))
}

/// Writes a table made from a base profile, outside any run.
///
/// # Errors
/// When the file cannot be written.
pub fn write_base_table<T: Table>(
    path: &Path,
    rows: &[T],
    stage: Stage,
    phase: Phase,
    seed: u64,
    profile_digest: String,
) -> anyhow::Result<()> {
    let place = Place::new(0, phase, 0);
    let footer = FooterMetadata { stage, place, shard: Shard::WHOLE, seed, profile_digest };
    let mut writer = TableWriter::<T>::create(path, &footer)?;
    writer.write(rows)?;
    writer.finish()?;
    Ok(())
}
