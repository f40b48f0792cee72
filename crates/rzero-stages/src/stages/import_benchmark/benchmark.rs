//! One benchmark: its files read by one adapter, what of them is no problem, and which of its problems are taken.

use super::adapters::{Adapter, Problem, Unusable};
use super::locate::Part;
use super::origins::{Provenance, provenance};
use super::read::{Position, read_rows};
use crate::exit::StageFailure;
use rzero_algo::normalize::canonical_answer;
use rzero_io::atomic::digest_file;
use rzero_schema::tables::EvalItem;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Problems of one benchmark.
pub(super) struct Benchmark {
    name: String,
    /// Digests of its files, in order.
    pub(super) digests: Vec<String>,
    entries: Vec<Entry>,
}

/// A problem that has its id, and where it comes from.
struct Entry {
    id: String,
    problem: Problem,
    provenance: [String; 3],
    part: usize,
}

/// How many problems are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    /// Every one.
    All,
    /// So many.
    Exactly(usize),
    /// So many, or all where there are fewer.
    AtMost(usize),
}

impl Benchmark {
    /// Reads the files of a benchmark. Rows that are no problem are counted by reason and told.
    ///
    /// # Errors
    /// When a file cannot be read, no row of them is a problem, or two problems have one id.
    pub(super) fn read(name: &str, parts: &[Part], adapter: &Adapter, said: &Provenance) -> anyhow::Result<Self> {
        let mut benchmark = Self { name: name.to_owned(), digests: Vec::new(), entries: Vec::new() };
        let mut unusable: BTreeMap<Unusable, (u64, String)> = BTreeMap::new();
        let (mut ids, mut num_rows) = (BTreeSet::new(), 0u64);
        let mut first_fields = String::new();
        for (at_part, part) in parts.iter().enumerate() {
            let file_name = part.path.file_name().unwrap_or_default().to_string_lossy();
            let said = Provenance { source: part.source.clone(), ..said.clone() };
            benchmark.digests.push(digest_file(&part.path)?.digest);
            read_rows(&part.path, |at, row| {
                if num_rows == 0 {
                    first_fields = shown(row.keys().map(String::as_str));
                }
                num_rows += 1;
                let problem = match adapter.read(&row, part.task.as_deref()) {
                    Ok(problem) => problem,
                    Err(reason) => {
                        let first = || (0, format!("{at} of {}", part.path.display()));
                        unusable.entry(reason).or_insert_with(first).0 += 1;
                        return Ok(());
                    }
                };
                let id = problem.id.clone().unwrap_or_else(|| (num_rows - 1).to_string());
                if !ids.insert(id.clone()) {
                    return Err(taken_id(&part.path, at, &id));
                }
                let provenance = provenance(&problem, adapter.origins, &said, &file_name);
                benchmark.entries.push(Entry { id, problem, provenance, part: at_part });
                Ok(())
            })?;
        }
        let reasons: Vec<String> =
            unusable.iter().map(|(reason, (num, first))| format!("{num} with {reason} (the first is {first})")).collect();
        if benchmark.entries.is_empty() {
            let path = parts.first().map_or(Path::new(name), |part| &part.path);
            let what = if reasons.is_empty() { "it has no rows".to_owned() } else { reasons.join(", ") };
            return Err(StageFailure::input(format!(
                "{} holds no problem that adapter {} reads: {what}",
                path.display(),
                adapter.name
            ))
            .hint(format!("its first row has the fields {}; --adapter names another adapter", first_fields))
            .into());
        }
        for (at, what, flag) in [(1, "licence", "--license"), (2, "revision", "--revision")] {
            let num_unknown = benchmark.entries.iter().filter(|entry| entry.provenance[at].is_empty()).count();
            if num_unknown > 0 {
                tracing::info!("{name}: of {num_unknown} problems no {what} is known; {flag} says which one it is");
            }
        }
        if !reasons.is_empty() {
            tracing::warn!("of {num_rows} rows of {name} are left out: {}", reasons.join(", "));
        }
        Ok(benchmark)
    }

    /// The same without problems that ask one of these questions.
    pub(super) fn without(mut self, questions: &BTreeSet<String>) -> Self {
        let num_problems = self.entries.len();
        self.entries.retain(|entry| !questions.contains(&entry.problem.question));
        let num_left_out = num_problems - self.entries.len();
        if num_left_out > 0 {
            tracing::info!("{}: {num_left_out} problems stand in the other set and are left out", self.name);
        }
        self
    }

    /// So many problems of a subject, as rows of the set from `first_row` on: those with the smallest digest of seed and id, in the
    /// order of the files.
    ///
    /// # Errors
    /// When there are too few.
    pub(super) fn choose(
        &self,
        subject: Option<&str>,
        amount: Amount,
        seed: u64,
        first_row: u64,
    ) -> anyhow::Result<Vec<EvalItem>> {
        let is_asked = |entry: &&Entry| subject.is_none() || entry.problem.subject.as_deref() == subject;
        let mut order: Vec<(String, usize, &Entry)> = self
            .entries
            .iter()
            .filter(is_asked)
            .enumerate()
            .map(|(at, entry)| (blake3::hash(format!("{seed} {}", entry.id).as_bytes()).to_hex().to_string(), at, entry))
            .collect();
        let of_subject = subject.map_or(String::new(), |subject| format!(" of subject {subject}"));
        let count = match amount {
            Amount::Exactly(count) if order.len() < count => {
                let message = format!("{} holds {} problems{of_subject}, {count} were asked for", self.name, order.len());
                return Err(StageFailure::usage(message).hint(self.hint(subject)).into());
            }
            _ if order.is_empty() => {
                let message = format!("{} holds no problems{of_subject}", self.name);
                return Err(StageFailure::usage(message).hint(self.hint(subject)).into());
            }
            Amount::AtMost(count) if order.len() < count => {
                tracing::warn!("{} holds {} problems{of_subject}, fewer than {count}: all are taken", self.name, order.len());
                order.len()
            }
            Amount::Exactly(count) | Amount::AtMost(count) => count,
            Amount::All => order.len(),
        };
        let num_problems = order.len();
        order.sort_by(|left, right| left.0.cmp(&right.0));
        order.truncate(count);
        order.sort_by_key(|(_, at, _)| *at);
        let items: Vec<EvalItem> = (first_row..).zip(order).map(|(row, (_, _, entry))| self.item(row, entry)).collect();
        tracing::info!("{}{of_subject}: {count} of {num_problems} problems are taken", self.name);
        let unread: Vec<&EvalItem> =
            items.iter().filter(|item| item.options.is_empty() && canonical_answer(&item.answer).is_none()).collect();
        if let Some(first) = unread.first() {
            let num = unread.len();
            tracing::warn!(
                "{}{of_subject}: {num} answers are of no form that the grader reads (the first is that of {})",
                self.name,
                first.item_id
            );
        }
        Ok(items)
    }

    fn item(&self, row: u64, entry: &Entry) -> EvalItem {
        let Entry { id, problem, provenance: [source, license, revision], part } = entry;
        EvalItem {
            item_id: format!("{}/{id}", self.name),
            row,
            benchmark: self.name.clone(),
            question: problem.question.clone(),
            options: problem.options.clone(),
            answer: problem.answer.clone(),
            subject: problem.subject.clone().unwrap_or_else(|| self.name.clone()),
            level: problem.level,
            source: source.clone(),
            license: license.clone(),
            revision: revision.clone(),
            digest: self.digests[*part].clone(),
        }
    }

    fn hint(&self, subject: Option<&str>) -> String {
        let subjects: BTreeSet<&str> = self.entries.iter().filter_map(|entry| entry.problem.subject.as_deref()).collect();
        match subject {
            Some(_) if subjects.is_empty() => "its problems have no subjects: ask for it as a whole".to_owned(),
            Some(_) => {
                format!("ask for fewer, or for one of its {} subjects: {}", subjects.len(), shown(subjects.iter().copied()))
            }
            None => "ask for fewer, or for `all`".to_owned(),
        }
    }
}

/// The first of some foreign names, in a length that can be shown.
fn shown<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let short = |name: &str| name.chars().take(60).collect::<String>();
    names.take(24).map(short).collect::<Vec<_>>().join(", ")
}

fn taken_id(path: &Path, at: Position, id: &str) -> anyhow::Error {
    StageFailure::input(format!("{at} of {} has the id {}, as a row before it has", path.display(), shown([id].into_iter())))
        .hint("ids tell problems apart: give every row its own, or none any and they are numbered")
        .into()
}
