//! Shards run again on the same inputs, by the same binaries as any other run, and what they write compared with what was written.
//!
//! They run in a stand-in for the run: a folder of links to its files, in which the shard's own output is not yet there. Files are
//! replaced by renaming, so nothing of the run itself is touched.

use super::files::{Census, KnownShard};
use super::findings::{Findings, Kind, Severity};
use super::{Audit, derive, differ};
use crate::console::Progress;
use crate::exit::StageExit;
use crate::tables::for_table;
use anyhow::{Context, bail};
use rzero_io::error::{IoError, Result};
use rzero_io::layout::{RunLayout, Shard};
use rzero_io::manifest::read_manifest;
use rzero_io::pruned::PRUNED;
use rzero_schema::ids::Place;
use rzero_schema::manifest::{FileRecord, Manifest};
use rzero_schema::table::Table;
use rzero_schema::tables::StepTiming;
use rzero_schema::vocab::{Stage, TruthSource};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Stages that need no model.
const PLAIN_STAGES: [Stage; 3] = [Stage::VoteLabel, Stage::Filter, Stage::LabelProbe];

/// Figures of a manifest that depend on the machine.
const FREE_METRICS: [&str; 1] = ["peak_memory_bytes"];

/// Runs shards again; it has a stand-in where there are any to run.
pub(super) struct Replay {
    stand_in: Option<StandIn>,
    pruned: BTreeSet<String>,
}

impl Replay {
    /// Makes ready for the run's shards, and tells which of those that were asked for cannot be run again.
    pub(super) fn new(audit: &Audit<'_>, census: &Census, findings: &mut Findings) -> anyhow::Result<Self> {
        let (mut is_needed, mut num_pruned) = (false, 0_u64);
        for known in census.shards.iter().filter(|known| is_asked_for(audit, known)) {
            match reason_to_skip(audit, known) {
                // Told at once of all: of a run that was pruned they are many.
                _ if is_made_from(&census.pruned, known) => num_pruned += 1,
                Some(reason) => {
                    let todo = "what it says of itself was checked, what it wrote was not made again";
                    findings.add(Severity::Note, Kind::NotReplayed, &known.name, reason, todo);
                }
                None => is_needed = true,
            }
        }
        if num_pruned > 0 {
            let problem = format!("{num_pruned} shards cannot be run again: what they were made from was pruned");
            let todo = "the same profile and seed in another run directory make all of it again";
            findings.add(Severity::Note, Kind::NotReplayed, "", problem, todo);
        }
        let stand_in = is_needed.then(|| StandIn::new(audit, census)).transpose()?;
        Ok(Self { stand_in, pruned: census.pruned.clone() })
    }

    /// Runs those of a set again that can be, unless something was found of it or of what it was made from.
    pub(super) fn check(
        &self,
        audit: &Audit<'_>,
        stage: Stage,
        place: Place,
        shards: &[&KnownShard],
        findings: &mut Findings,
    ) -> anyhow::Result<()> {
        let Some(stand_in) = &self.stand_in else { return Ok(()) };
        let folder = audit.layout.relative(&audit.layout.stage_folder(stage, place)).unwrap_or_default();
        let is_chosen = |known: &&KnownShard| {
            is_asked_for(audit, known) && reason_to_skip(audit, known).is_none() && !is_made_from(&self.pruned, known)
        };
        let chosen: Vec<&KnownShard> = shards.iter().copied().filter(is_chosen).collect();
        if chosen.is_empty() || !findings.is_fit(&folder, shards) {
            return Ok(());
        }
        let progress = Progress::start(&format!("{stage} at {place}, again"), chosen.len() as u64, "shards");
        for known in chosen {
            audit.interrupt.check()?;
            stand_in.replay(audit, known, findings)?;
            progress.advance(1);
        }
        Ok(())
    }
}

fn is_made_from(pruned: &BTreeSet<String>, known: &KnownShard) -> bool {
    known.manifest.inputs.iter().any(|record| pruned.contains(&record.path))
}

fn is_asked_for(audit: &Audit<'_>, known: &KnownShard) -> bool {
    PLAIN_STAGES.contains(&known.stage) || audit.args.replay
}

/// Why a shard cannot be made again here to the byte.
fn reason_to_skip(audit: &Audit<'_>, known: &KnownShard) -> Option<String> {
    let manifest = &known.manifest;
    let profile = manifest.profile.as_ref().unwrap_or(&audit.record.profile);
    if known.place.update > 0 || known.stage == Stage::GrpoGradient {
        return Some("is a part of a step's gradient, which the step itself is made from again".to_owned());
    }
    if known.stage == Stage::Judge || (known.stage == Stage::LabelProbe && profile.probe.truth == TruthSource::Judge) {
        return Some("is what a judge said, who may say otherwise now".to_owned());
    }
    if manifest.digests.contains_key("backend") {
        return Some("was completed by a server, which may complete otherwise now".to_owned());
    }
    (manifest.device != "cpu" && !PLAIN_STAGES.contains(&known.stage))
        .then(|| format!("was made on {}, whose results differ by rounding", manifest.device))
}

/// A folder that looks like the run.
struct StandIn {
    folder: tempfile::TempDir,
    layout: RunLayout,
    binaries: PathBuf,
}

impl StandIn {
    fn new(audit: &Audit<'_>, census: &Census) -> anyhow::Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("rzero-audit-").tempdir().context("cannot make a folder for temporary files")?;
        let layout = RunLayout::new(folder.path().join("run"));
        let program = std::env::current_exe().context("cannot tell where the binaries lie")?;
        let stand_in = Self { folder, layout, binaries: program.parent().unwrap_or(Path::new(".")).to_owned() };
        stand_in.link(audit, "run.json")?;
        for known in &census.shards {
            stand_in.link_shard(audit, known)?;
        }
        // What people filled is no output.
        for record in census.shards.iter().flat_map(|known| &known.manifest.inputs) {
            if record.path.starts_with("iter-")
                && !stand_in.layout.absolute(&record.path).exists()
                && audit.layout.absolute(&record.path).exists()
            {
                stand_in.link(audit, &record.path)?;
            }
        }
        Ok(stand_in)
    }

    fn link(&self, audit: &Audit<'_>, name: &str) -> Result<()> {
        let (target, link) = (audit.layout.absolute(name), self.layout.absolute(name));
        let folder = link.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(IoError::file("create directory", folder))?;
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(IoError::file("remove", &link)(error)),
            _ => {}
        }
        std::os::unix::fs::symlink(&target, &link).map_err(IoError::file("link", &link))
    }

    fn link_shard(&self, audit: &Audit<'_>, known: &KnownShard) -> Result<()> {
        self.link(audit, &known.name)?;
        let pruned = audit.layout.stage_folder(known.stage, known.place).join(PRUNED);
        if let Some(name) = audit.layout.relative(&pruned).filter(|_| pruned.exists()) {
            self.link(audit, &name)?;
        }
        known.manifest.outputs.iter().try_for_each(|record| self.link(audit, &record.path))
    }

    fn unlink_shard(&self, known: &KnownShard) -> Result<()> {
        let outputs = known.manifest.outputs.iter().map(|record| record.path.as_str());
        outputs.chain([known.name.as_str()]).try_for_each(|name| rzero_io::atomic::remove_file(&self.layout.absolute(name)))
    }

    /// Runs a shard again and tells what came out otherwise.
    fn replay(&self, audit: &Audit<'_>, known: &KnownShard, findings: &mut Findings) -> anyhow::Result<()> {
        self.unlink_shard(known)?;
        let told = self.run(audit, known)?;
        let remade = read_manifest(&self.layout.absolute(&known.name));
        match (told, remade) {
            (None, Ok(remade)) => self.compare(audit, known, &remade, findings)?,
            (told, _) => {
                let problem =
                    format!("{} does not run again on what it was made from: {}", known.stage, told.unwrap_or_default());
                findings.add(Severity::Error, Kind::NotReproduced, &known.name, problem, "do what its message says");
            }
        }
        Ok(self.link_shard(audit, known)?)
    }

    /// What the stage said where it failed.
    fn run(&self, audit: &Audit<'_>, known: &KnownShard) -> anyhow::Result<Option<String>> {
        let profile = self.folder.path().join("profile.toml");
        let used = known.manifest.profile.as_ref().unwrap_or(&audit.record.profile);
        std::fs::write(&profile, toml::to_string(used)?).map_err(IoError::file("write", &profile))?;
        let program = self.binaries.join(known.stage.as_str());
        let mut command = Command::new(&program);
        for (variable, _) in
            std::env::vars().filter(|(variable, _)| variable.starts_with("RZERO_") || variable.starts_with("SLURM_"))
        {
            command.env_remove(variable);
        }
        command.env_remove("SHARD_INDEX").env_remove("NUM_SHARDS").env("RUST_LOG", "error");
        command
            .arg("--run")
            .arg(self.layout.root())
            .arg("--profile")
            .arg(&profile)
            .arg("--project-root")
            .arg(&audit.project_root);
        command.args(["--iteration", &known.place.iteration.to_string(), "--phase", known.place.phase.as_str(), "--quiet"]);
        if known.place.step > 0 {
            command.args(["--step", &known.place.step.to_string()]);
        }
        if known.shard != Shard::WHOLE {
            let Shard { index, num } = known.shard;
            command.args(["--num-shards", &num.to_string(), "--shard-index", &index.to_string()]);
        }
        if let Some(threads) = audit.args.threads.filter(|threads| *threads > 0) {
            command.args(["--threads", &threads.to_string()]);
        }
        let output = match command.stdin(Stdio::null()).output() {
            Ok(output) => output,
            Err(error) => bail!("cannot run {}: {error}; build all binaries with `just setup`", program.display()),
        };
        // The stop rule speaks after all is written.
        let is_done = output.status.success() || output.status.code() == Some(StageExit::Stopped as i32);
        let text = String::from_utf8_lossy(&output.stderr);
        Ok((!is_done).then(|| text.lines().take(3).collect::<Vec<_>>().join("; ")))
    }

    fn compare(&self, audit: &Audit<'_>, known: &KnownShard, remade: &Manifest, findings: &mut Findings) -> anyhow::Result<()> {
        if remade.fingerprint != known.manifest.fingerprint {
            let what = changed_input(&known.manifest, remade);
            let problem = format!("would be made from something else now: {what}");
            findings.add(
                Severity::Error,
                Kind::NotReproduced,
                &known.name,
                problem,
                "restore what has changed, or run the stage again",
            );
            return Ok(());
        }
        let mut is_same = true;
        for record in &known.manifest.outputs {
            // Clock readings.
            if record.table.as_deref() == Some(StepTiming::NAME) {
                continue;
            }
            let Some(again) = remade.outputs.iter().find(|again| again.path == record.path) else {
                findings.add(
                    Severity::Error,
                    Kind::NotReproduced,
                    &record.path,
                    "is not written when its stage runs again",
                    rerun(known),
                );
                is_same = false;
                continue;
            };
            if again.digest != record.digest {
                let problem = self.difference(audit, record)?;
                findings.add(Severity::Error, Kind::NotReproduced, &record.path, problem, rerun(known));
                is_same = false;
            }
        }
        for again in remade.outputs.iter().filter(|again| !known.manifest.outputs.iter().any(|record| record.path == again.path))
        {
            findings.add(
                Severity::Error,
                Kind::NotReproduced,
                &known.name,
                format!("does not list {}, which its stage writes", again.path),
                rerun(known),
            );
            is_same = false;
        }
        is_same &= tell_figures(known, remade, findings);
        findings.num_replayed += u64::from(is_same);
        Ok(())
    }

    fn difference(&self, audit: &Audit<'_>, record: &FileRecord) -> Result<String> {
        let (written, again) = (audit.layout.absolute(&record.path), self.layout.absolute(&record.path));
        let table = record.table.as_deref().unwrap_or_default();
        let difference = for_table!(table, difference_of(&again, &written)).transpose()?.flatten();
        Ok(difference.unwrap_or_else(|| "has other bytes when its stage runs again".to_owned()))
    }
}

fn difference_of<T: Table>(expected: &Path, actual: &Path) -> Result<Option<String>> {
    differ::files::<T>(expected, actual)
}

fn rerun(known: &KnownShard) -> String {
    format!("run {} there again with --overwrite; what was made from it is to be made again as well", known.stage)
}

/// Counts and figures of a manifest against those of the same shard made again; whether they are the same.
fn tell_figures(known: &KnownShard, remade: &Manifest, findings: &mut Findings) -> bool {
    let written = &known.manifest;
    let count =
        written.counts.keys().chain(remade.counts.keys()).find(|name| written.counts.get(*name) != remade.counts.get(*name));
    let is_free = |name: &&String| !FREE_METRICS.contains(&name.as_str());
    let names = written.metrics.keys().chain(remade.metrics.keys()).filter(is_free);
    let metric = names.into_iter().find(|name| written.metrics.get(*name) != remade.metrics.get(*name));
    let text = |value: Option<String>| value.unwrap_or_else(|| "nothing".to_owned());
    if let Some(name) = count {
        let of = |manifest: &Manifest| text(manifest.counts.get(name).map(u64::to_string));
        derive::tell_figure(known, name, &of(written), &of(remade), findings);
    }
    if let Some(name) = metric {
        let of = |manifest: &Manifest| text(manifest.metrics.get(name).map(f64::to_string));
        derive::tell_figure(known, name, &of(written), &of(remade), findings);
    }
    count.is_none() && metric.is_none()
}

/// What decides the output of a shard otherwise than when it was made.
fn changed_input(written: &Manifest, remade: &Manifest) -> String {
    let digest =
        written.digests.iter().find(|(what, digest)| remade.digests.get(*what) != Some(digest)).map(|(what, _)| what.clone());
    let input = written
        .inputs
        .iter()
        .find(|record| !remade.inputs.iter().any(|again| (&again.path, &again.digest) == (&record.path, &record.digest)));
    digest.or_else(|| input.map(|record| record.path.clone())).unwrap_or_else(|| "something that it does not name".to_owned())
}
