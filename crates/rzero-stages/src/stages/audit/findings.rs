//! What an audit finds, each thing once.

use super::chain::folder_of;
use super::files::KnownShard;
use crate::markdown::new_table;
use comfy_table::CellAlignment;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Something that changes no result, or cannot be told.
    Note,
    /// Something that does not belong, and changes no result as it is.
    Warning,
    /// What the run says cannot be believed, or is not whole.
    Error,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    RunRecord,
    ManifestTorn,
    ManifestEdited,
    NoManifest,
    Missing,
    Damaged,
    Schema,
    Shards,
    OtherRun,
    InputChanged,
    NoSource,
    StepMissing,
    Key,
    Rows,
    Figures,
    NotReproduced,
    Clock,
    Project,
    Temporary,
    Foreign,
    NotReplayed,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::RunRecord => "run_record",
            Self::ManifestTorn => "manifest_torn",
            Self::ManifestEdited => "manifest_edited",
            Self::NoManifest => "no_manifest",
            Self::Missing => "file_missing",
            Self::Damaged => "file_damaged",
            Self::Schema => "schema",
            Self::Shards => "shards",
            Self::OtherRun => "other_run",
            Self::InputChanged => "input_changed",
            Self::NoSource => "no_source",
            Self::StepMissing => "step_missing",
            Self::Key => "key_repeated",
            Self::Rows => "rows",
            Self::Figures => "figures",
            Self::NotReproduced => "not_reproduced",
            Self::Clock => "clock",
            Self::Project => "project_changed",
            Self::Temporary => "temporary_file",
            Self::Foreign => "foreign_file",
            Self::NotReplayed => "not_replayed",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone)]
struct Finding {
    severity: Severity,
    kind: Kind,
    problem: String,
    todo: String,
    /// What else was seen of it.
    also: Vec<String>,
}

/// All that was found, by what it is about: a file of the run, or the manifest of a shard.
#[derive(Debug, Default)]
pub(super) struct Findings {
    by_subject: BTreeMap<String, Finding>,
    unread: BTreeSet<String>,
    /// Shards that were run again and wrote the same.
    pub(super) num_replayed: u64,
}

impl Findings {
    /// Notes what is wrong. The first thing that is told of a subject counts; what comes after stands beside it.
    pub(super) fn add(
        &mut self,
        severity: Severity,
        kind: Kind,
        subject: &str,
        problem: impl Into<String>,
        todo: impl Into<String>,
    ) {
        let problem = problem.into();
        match self.by_subject.get_mut(subject) {
            // Which value differs says more than that some do.
            Some(known) if known.severity >= severity && (known.kind != Kind::InputChanged || kind == Kind::InputChanged) => {
                known.also.push(problem)
            }
            Some(known) => {
                let also = std::mem::take(&mut known.also).into_iter().chain([std::mem::take(&mut known.problem)]).collect();
                *known = Finding { severity, kind, problem, todo: todo.into(), also };
            }
            None => {
                self.by_subject
                    .insert(subject.to_owned(), Finding { severity, kind, problem, todo: todo.into(), also: Vec::new() });
            }
        }
    }

    /// Whether what a manifest says of its shard's origin cannot be believed.
    pub(super) fn is_torn(&self, manifest: &str) -> bool {
        self.by_subject.get(manifest).is_some_and(|finding| finding.severity == Severity::Error && finding.kind != Kind::Figures)
    }

    /// Whether the rows of a file can be read all the same: its bytes are those of its manifest, which are not those that others read.
    pub(super) fn is_readable(&self, subject: &str) -> bool {
        self.by_subject.get(subject).is_none_or(|finding| finding.kind == Kind::InputChanged)
    }

    /// Whether something was found of a file, shard or folder.
    pub(super) fn is_flagged(&self, subject: &str) -> bool {
        self.by_subject.contains_key(subject)
    }

    /// Notes that a file, or the whole of a folder, is not there to be read, which is told elsewhere.
    pub(super) fn mark_unread(&mut self, path: &str) {
        self.unread.insert(path.to_owned());
    }

    /// Whether a set of shards can be derived again: it is one set, its own files can be read, and what it was made from is without findings.
    pub(super) fn is_fit(&self, folder: &str, shards: &[&KnownShard]) -> bool {
        let is_told = |subject: &str| self.is_flagged(subject) || self.unread.contains(subject);
        let is_sound = |path: &str| !is_told(path) && !is_told(folder_of(path));
        let is_fit = |known: &&KnownShard| {
            !self.is_torn(&known.name)
                && known.manifest.outputs.iter().all(|record| self.is_readable(&record.path))
                && known.manifest.inputs.iter().all(|record| is_sound(&record.path))
        };
        !is_told(folder) && shards.iter().all(is_fit)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_subject.is_empty()
    }

    pub(super) fn count(&self, severity: Severity) -> usize {
        self.by_subject.values().filter(|finding| finding.severity == severity).count()
    }

    fn sorted(&self) -> Vec<(&String, &Finding)> {
        let mut findings: Vec<_> = self.by_subject.iter().collect();
        findings.sort_by_key(|(_, finding)| std::cmp::Reverse(finding.severity));
        findings
    }

    pub(super) fn json(&self) -> Value {
        let object = |(subject, finding): (&String, &Finding)| {
            json!({
                "severity": finding.severity.word(),
                "kind": finding.kind.word(),
                "subject": subject,
                "problem": finding.problem,
                "also": finding.also,
                "todo": finding.todo,
            })
        };
        self.sorted().into_iter().map(object).collect()
    }

    pub(super) fn table(&self) -> String {
        let mut table = new_table(&["severity", "kind", "where", "what", "what to do"]);
        table.column_iter_mut().for_each(|column| {
            column.set_cell_alignment(CellAlignment::Left);
        });
        for (subject, finding) in self.sorted() {
            let more = if finding.also.is_empty() { String::new() } else { format!(" (and {} more of it)", finding.also.len()) };
            let problem = format!("{}{more}", finding.problem);
            table.add_row([finding.severity.word(), finding.kind.word(), subject, &problem, &finding.todo]);
        }
        table.to_string()
    }
}
