//! Every file of a run: those that manifests list, held against them, and those that none lists.

use super::findings::{Findings, Kind, Severity};
use super::{Audit, chain};
use crate::console::Progress;
use crate::tables::for_table;
use rzero_io::atomic::{digest_file, is_temporary};
use rzero_io::error::IoError;
use rzero_io::layout::{Shard, shard_of_manifest};
use rzero_io::manifest::read_manifest;
use rzero_io::pruned::{PRUNED, pruned_files};
use rzero_io::reader::{checked_num_rows, read_footer};
use rzero_io::set::check_identity;
use rzero_schema::ids::Place;
use rzero_schema::manifest::{FileRecord, Manifest};
use rzero_schema::profile::Profile;
use rzero_schema::vocab::Stage;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A shard that has a manifest which can be read.
#[derive(Debug, Clone)]
pub(super) struct KnownShard {
    pub(super) stage: Stage,
    pub(super) place: Place,
    pub(super) shard: Shard,
    /// Its manifest's name.
    pub(super) name: String,
    pub(super) manifest: Manifest,
}

/// What a run consists of.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// In the order in which a run makes them.
    pub(super) shards: Vec<KnownShard>,
    pub(super) num_files: u64,
    pub(super) num_bytes: u64,
    pub(super) num_rows: u64,
    /// Files that are gone because they were pruned.
    pub(super) pruned: BTreeSet<String>,
}

impl Census {
    /// Every file that a shard wrote, with its shard.
    pub(super) fn outputs(&self) -> BTreeMap<&str, (&FileRecord, &KnownShard)> {
        let of_shard = |shard| move |record| (record, shard);
        let records = self.shards.iter().flat_map(|shard: &KnownShard| shard.manifest.outputs.iter().map(of_shard(shard)));
        records.map(|(record, shard): (&FileRecord, &KnownShard)| (record.path.as_str(), (record, shard))).collect()
    }

    /// Shards that were taken from other runs.
    pub(super) fn num_reused(&self) -> usize {
        self.shards.iter().filter(|shard| shard.manifest.reused_from.is_some()).count()
    }

    /// The shards by the stage and place that they are part of.
    pub(super) fn sets(&self) -> BTreeMap<(u32, Place, Stage), Vec<&KnownShard>> {
        let mut sets: BTreeMap<(u32, Place, Stage), Vec<&KnownShard>> = BTreeMap::new();
        for shard in &self.shards {
            sets.entry((shard.place.iteration, shard.place, shard.stage)).or_default().push(shard);
        }
        sets
    }
}

/// Checks them all.
pub(super) fn check(audit: &Audit<'_>, findings: &mut Findings) -> anyhow::Result<Census> {
    let mut names = audit.layout.names()?;
    names.sort_unstable();
    let mut census = Census::default();
    let mut unread = BTreeSet::new();
    for name in &names {
        let path = audit.layout.absolute(name);
        let file = name.rsplit('/').next().unwrap_or_default();
        let (Some(shard), Some((stage, place))) = (shard_of_manifest(file), audit.layout.stage_origin(&path)) else { continue };
        match read_manifest(&path).and_then(|manifest| {
            check_identity(&path, &manifest, stage, place, shard)?;
            Ok(manifest)
        }) {
            Ok(manifest) => census.shards.push(KnownShard { stage, place, shard, name: name.clone(), manifest }),
            Err(error) => {
                unread.insert((stage, place));
                let (kind, todo) = match error {
                    IoError::TornManifest { .. } => (Kind::ManifestTorn, "run the stage again: it makes this shard anew"),
                    _ => (Kind::ManifestEdited, "restore it from a copy, or remove it and run the stage again"),
                };
                findings.add(Severity::Error, kind, name, short(&error), todo);
            }
        }
    }
    census
        .shards
        .sort_by_key(|known| (known.place.at_update(0), known.stage, known.place.update == 0, known.place.update, known.shard));
    check_listed(audit, &mut census, findings)?;
    check_unlisted(audit, &names, &census, &unread, findings);
    Ok(census)
}

fn check_listed(audit: &Audit<'_>, census: &mut Census, findings: &mut Findings) -> anyhow::Result<()> {
    let num_bytes = census.shards.iter().flat_map(|known| &known.manifest.outputs).map(|record| record.num_bytes).sum();
    let progress = Progress::start("reading", num_bytes, "bytes");
    for known in &census.shards {
        audit.interrupt.check()?;
        check_manifest(audit, known, findings);
        let pruned = pruned_of(audit, known, findings);
        for record in &known.manifest.outputs {
            progress.advance(record.num_bytes);
            if record.table.is_none() && pruned.contains(&record.path) && !audit.layout.absolute(&record.path).exists() {
                census.pruned.insert(record.path.clone());
                continue;
            }
            let rerun = format!("remove {} and run {} there again", known.name, known.stage);
            match check_file(audit, known, record) {
                Ok(num_rows) => census.num_rows += num_rows,
                Err((kind, problem)) => findings.add(Severity::Error, kind, &record.path, problem, rerun),
            }
            census.num_files += 1;
            census.num_bytes += record.num_bytes;
        }
    }
    Ok(())
}

/// The files of a shard's stage that were pruned, by its record.
fn pruned_of(audit: &Audit<'_>, known: &KnownShard, findings: &mut Findings) -> BTreeSet<String> {
    let folder = audit.layout.stage_folder(known.stage, known.place);
    pruned_files(&folder).unwrap_or_else(|error| {
        let name = audit.layout.relative(&folder.join(PRUNED)).unwrap_or_default();
        let todo = "restore it from a copy; it says which files were removed on purpose";
        findings.add(Severity::Error, Kind::Damaged, &name, short(&error), todo);
        BTreeSet::new()
    })
}

/// One file against its record; its rows, if it is a table.
fn check_file(audit: &Audit<'_>, known: &KnownShard, record: &FileRecord) -> Result<u64, (Kind, String)> {
    let path = audit.layout.bring(record).map_err(|error| (kind_of(&error), short(&error)))?;
    let found = digest_file(&path).map_err(|error| (Kind::Missing, short(&error)))?;
    if found.num_bytes != record.num_bytes {
        return Err((Kind::Damaged, format!("has {} bytes, its manifest says {}", found.num_bytes, record.num_bytes)));
    }
    if found.digest != record.digest {
        let problem = format!(
            "has other bytes than were written: digest {}, its manifest says {}",
            brief(&found.digest),
            brief(&record.digest)
        );
        return Err((Kind::Damaged, problem));
    }
    let Some(table) = record.table.as_deref() else { return Ok(0) };
    let rows = for_table!(table, checked_num_rows(&path))
        .ok_or_else(|| (Kind::Schema, format!("is of no table that is known: `{table}`")))?;
    let rows = rows.map_err(|error| (Kind::Schema, short(&error)))?;
    if record.num_rows != Some(rows) {
        let said = record.num_rows.map_or_else(|| "nothing".to_owned(), |rows| rows.to_string());
        return Err((Kind::Rows, format!("holds {rows} rows, its manifest says {said}")));
    }
    let footer = read_footer(&path).map_err(|error| (Kind::Schema, short(&error)))?;
    let expected = [
        ("rzero.stage", known.stage.to_string()),
        ("rzero.place", known.place.to_string()),
        ("rzero.shard", known.shard.to_string()),
        ("rzero.seed", known.manifest.seed.to_string()),
        ("rzero.profile_digest", known.manifest.profile_digest.clone()),
    ];
    match expected.iter().find(|(key, value)| footer.get(*key) != Some(value)) {
        None => Ok(rows),
        Some((key, value)) => {
            let found = footer.get(*key).map_or("nothing", String::as_str);
            Err((Kind::OtherRun, format!("was written elsewhere: its footer says {found} for {key}, its manifest {value}")))
        }
    }
}

/// What a manifest says of itself, of the run and of time.
fn check_manifest(audit: &Audit<'_>, known: &KnownShard, findings: &mut Findings) {
    let manifest = &known.manifest;
    let seen = |profile: &Profile| profile.seen_by(known.stage, known.place).digest();
    let mut error = |kind, problem: String, todo: &str| findings.add(Severity::Error, kind, &known.name, problem, todo);
    let todo = "remove it and run the stage again in this run";
    if manifest.seed != audit.record.seed {
        error(Kind::OtherRun, format!("is of seed {}, the run of {}", manifest.seed, audit.record.seed), todo);
    } else if manifest.profile_digest != seen(&audit.record.profile) {
        error(Kind::OtherRun, "is of another profile than the run".to_owned(), todo);
    } else if manifest.profile.as_ref().is_some_and(|profile| seen(profile) != manifest.profile_digest) {
        error(Kind::ManifestEdited, "holds a profile that does not have the digest beside it".to_owned(), todo);
    }
    if let Some(problem) = clock_nonsense(manifest) {
        findings.add(
            Severity::Warning,
            Kind::Clock,
            &known.name,
            problem,
            "look at the clock of the machine that wrote it; no row depends on it",
        );
    }
}

fn clock_nonsense(manifest: &Manifest) -> Option<String> {
    // Written in whole seconds; and clocks of nodes differ.
    const SLACK: Duration = Duration::from_secs(3);
    const SKEW: Duration = Duration::from_secs(3600);
    let time = |text: &str| humantime::parse_rfc3339(text).ok();
    let (Some(start), Some(end)) = (time(&manifest.started_at), time(&manifest.finished_at)) else {
        return Some(format!("times `{}` and `{}` are no times", manifest.started_at, manifest.finished_at));
    };
    let Ok(took) = end.duration_since(start) else {
        return Some(format!("ended at {} before it began at {}", manifest.finished_at, manifest.started_at));
    };
    let said = Duration::try_from_secs_f64(manifest.seconds).ok()?;
    if said > took + SLACK || took > said + SLACK {
        return Some(format!("took {:.1} s by its own count, {} s from beginning to end", manifest.seconds, took.as_secs()));
    }
    (end > SystemTime::now() + SKEW).then(|| format!("ended at {}, which is to come", manifest.finished_at))
}

/// What no manifest lists.
fn check_unlisted(
    audit: &Audit<'_>,
    names: &[String],
    census: &Census,
    unread: &BTreeSet<(Stage, Place)>,
    findings: &mut Findings,
) {
    let outputs = census.outputs();
    for name in names {
        let path = audit.layout.absolute(name);
        let file = name.rsplit('/').next().unwrap_or_default();
        if outputs.contains_key(name.as_str()) || is_known(name, file) {
            continue;
        }
        let origin = audit.layout.stage_origin(&path);
        if shard_of_manifest(file).is_some() && origin.is_some() {
            continue;
        }
        if is_temporary(file) {
            let problem = "is what a killed process left of a file that it was writing";
            findings.add(Severity::Warning, Kind::Temporary, name, problem, "remove it, or run its stage again, which does");
            continue;
        }
        let of_step = audit.layout.checkpoint_origin(path.parent().unwrap_or(Path::new("")));
        let is_own = file.ends_with(".parquet") || file.ends_with(".safetensors") || of_step.is_some();
        match origin {
            // What a torn manifest would list is told of there.
            Some((stage, place)) if is_own && unread.contains(&(stage, place)) => {}
            Some((stage, place)) if is_own => {
                let owner = chain::manifest_of(audit, stage, place, file);
                // Where its shard has a manifest, the file alone is too much.
                let subject = if names.binary_search(&owner).is_ok() { name.clone() } else { owner };
                let problem = format!("no manifest lists {file}: it counts as nothing");
                findings.add(
                    Severity::Error,
                    Kind::NoManifest,
                    &subject,
                    problem,
                    format!("run {stage} there again, or remove it"),
                );
            }
            None if of_step.is_some() => {}
            _ => {
                let problem = "is no file of a run";
                findings.add(Severity::Warning, Kind::Foreign, name, problem, "move it elsewhere");
            }
        }
    }
}

/// Files that belong to a run and stand in no manifest.
fn is_known(name: &str, file: &str) -> bool {
    name == "run.json"
        || name.starts_with("slurm/")
        || file == "truths.csv"
        || file == PRUNED
        || (file.starts_with("requests-") && file.ends_with(".jsonl"))
        || (file.starts_with("lsf-") && file.ends_with(".log"))
}

fn kind_of(error: &IoError) -> Kind {
    match error {
        IoError::MissingFile { .. } => Kind::Missing,
        _ => Kind::Damaged,
    }
}

/// An error without the path that the finding is about.
pub(super) fn short(error: &IoError) -> String {
    match error {
        IoError::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => "is not there".to_owned(),
        IoError::MissingFile { .. } => "is not there".to_owned(),
        other => other.to_string(),
    }
}

/// The beginning of a digest.
pub(super) fn brief(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
