//! `RUN/run.json`: with which profile and seed a run began. One run is one experiment; a second profile needs a second directory.
//!
//! The sections `judge`, `probe` and `cluster` are no part of the experiment ([`Profile::experiment`]): they may change while a run goes on.

use crate::exit::StageFailure;
use rzero_io::atomic::write_bytes_exclusive;
use rzero_io::error::IoError;
use rzero_io::layout::RunLayout;
use rzero_io::manifest::{read_json, to_json};
use rzero_schema::profile::Profile;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// What the first stage of a run leaves for all later ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    /// Name of the profile.
    pub profile_name: String,
    /// Digest of the resolved profile.
    pub profile_digest: String,
    /// Seed of the run.
    pub seed: u64,
    /// The resolved profile.
    pub profile: Profile,
}

impl RunRecord {
    /// The record of a run with this profile.
    #[must_use]
    pub fn new(profile: &Profile) -> Self {
        Self {
            profile_name: profile.name.clone(),
            profile_digest: profile.digest(),
            seed: profile.seed,
            profile: profile.clone(),
        }
    }

    /// Reads the record of a run; `None` where no stage has written one.
    ///
    /// # Errors
    /// When it is there but is no record, or was edited.
    pub fn read(layout: &RunLayout) -> anyhow::Result<Option<Self>> {
        layout.refresh_run_record()?;
        let path = layout.run_record();
        if !path.exists() {
            return Ok(None);
        }
        let record: Self = read_json(&path)?;
        if record.profile.digest() != record.profile_digest {
            let message =
                format!("the profile in {} does not have the digest that stands beside it", layout.shown(&path).display());
            return Err(StageFailure::input(message).hint("restore the file; a new profile needs a new run directory").into());
        }
        Ok(Some(record))
    }

    /// Begins the run, or checks that it began with this profile.
    ///
    /// # Errors
    /// When the run began with another profile: exit code 4.
    pub fn begin_or_check(&self, layout: &RunLayout) -> anyhow::Result<()> {
        if Self::read(layout)?.is_none() {
            match write_bytes_exclusive(&layout.run_record(), &to_json(self)) {
                // Another stage began the run at the same moment: then its record counts.
                Err(IoError::AlreadyExists { .. }) => {}
                result => drop(result?),
            }
            layout.publish_run_record()?;
        }
        self.check(layout)
    }

    /// Checks that the run has not begun, or began with this profile.
    ///
    /// # Errors
    /// When the run began with another profile: exit code 4.
    pub fn check(&self, layout: &RunLayout) -> anyhow::Result<()> {
        match Self::read(layout)? {
            Some(found) if found.profile_digest != self.profile_digest => {
                let message = format!(
                    "{} holds a run of profile `{}`, which differs from the one given (`{}`): {}",
                    layout.shown(layout.root()).display(),
                    found.profile_name,
                    self.profile_name,
                    differences(&found.profile, &self.profile)
                );
                let hint =
                    "name another run directory for this profile, or leave --profile and --set out to go on with the run's own";
                Err(StageFailure::conflict(message).hint(hint).into())
            }
            _ => Ok(()),
        }
    }
}

/// A directory that is asked for what a run holds and has no record: exit code 3. Who asks says how else to name one.
#[must_use]
pub fn no_run(run: &Path) -> StageFailure {
    StageFailure::input(format!("{} holds no run: it has no run.json", run.display()))
        .hint("name the directory of a run, such as data/runs/tiny")
}

const SHOWN_DIFFERENCES: usize = 10;

/// The keys in which two profiles differ, such as `seed 1 -> 2, solver.steps 15 -> 20`.
fn differences(old: &Profile, new: &Profile) -> String {
    let (old, new) = (flat_keys(old), flat_keys(new));
    let absent = "(absent)".to_owned();
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    let differences: Vec<String> = keys
        .into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| format!("{key} {} -> {}", old.get(key).unwrap_or(&absent), new.get(key).unwrap_or(&absent)))
        .collect();
    let shown = differences.iter().take(SHOWN_DIFFERENCES).cloned().collect::<Vec<_>>().join(", ");
    match differences.len().saturating_sub(SHOWN_DIFFERENCES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn flat_keys(profile: &Profile) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    flatten("", &profile.experiment(), &mut keys);
    keys
}

fn flatten(prefix: &str, value: &Value, keys: &mut BTreeMap<String, String>) {
    let join = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| flatten(&join(key), value, keys)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| flatten(&join(&index.to_string()), value, keys))
        }
        _ => {
            keys.insert(prefix.to_owned(), value.to_string());
        }
    }
}
