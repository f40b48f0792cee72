//! `import-benchmark`: files of problems with their answers to one held-out set, some problems of each subject.
//!
//! Reads JSON lines of {id, question, answer, subject?, level?, source?} and writes one `eval_items` Parquet file. Which problems are taken follows
//! from the seed and the ids alone. Problems whose answer the answer rule cannot read are left out and counted.

use crate::console::{Verbosity, print_product, start_log};
use crate::exit::StageFailure;
use crate::stages::base_profile::write_base_table;
use rzero_algo::normalize::canonical_answer;
use rzero_schema::tables::EvalItem;
use rzero_schema::vocab::{Phase, Stage};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Largest file of problems that is read.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Make a held-out set of problems from files of JSON lines.
#[derive(Debug, clap::Parser)]
#[command(name = "import-benchmark", version)]
pub struct Args {
    /// Folder that holds the files, each NAME.jsonl
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// What to take: NAME=COUNT from NAME.jsonl, or NAME/SUBJECT=COUNT; may be repeated, and the set stands in this order
    #[arg(long = "take", value_name = "WHAT", required = true)]
    takes: Vec<String>,
    /// Parquet file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Seed of the choice
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Runs the tool.
///
/// # Errors
/// When a file cannot be read, a line is no problem, a subject has too few problems, or the set cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    start_log(Verbosity::Normal);
    let mut files: BTreeMap<String, Benchmark> = BTreeMap::new();
    let mut items: Vec<EvalItem> = Vec::new();
    for take in &args.takes {
        let (what, count) = read_take(take)?;
        let (name, subject) = what.split_once('/').map_or((what, None), |(name, subject)| (name, Some(subject)));
        if !files.contains_key(name) {
            files.insert(name.to_owned(), Benchmark::read(&args.folder, name)?);
        }
        let benchmark = &files[name];
        for problem in benchmark.choose(subject, count, args.seed)? {
            items.push(EvalItem {
                item_id: format!("{name}/{}", problem.id),
                row: items.len() as u64,
                benchmark: name.to_owned(),
                question: problem.question.clone(),
                options: Vec::new(),
                answer: problem.answer.clone(),
                subject: what.to_owned(),
                level: problem.level,
                source: problem.source.clone(),
                license: String::new(),
                revision: String::new(),
                digest: benchmark.digest.clone(),
            });
        }
    }
    let mut ids = BTreeSet::new();
    if let Some(twice) = items.iter().find(|item| !ids.insert(&item.item_id)) {
        return Err(StageFailure::usage(format!("problem {} would be taken twice", twice.item_id))
            .hint("name a file as a whole or by its subjects, not both")
            .into());
    }
    let inputs: String = files.values().map(|benchmark| benchmark.digest.as_str()).collect();
    let digest = blake3::hash(inputs.as_bytes()).to_hex().to_string();
    write_base_table(&args.output, &items, Stage::ImportBenchmark, Phase::Eval, args.seed, digest)?;
    print_product(args.output.display());
    Ok(())
}

fn read_take(take: &str) -> anyhow::Result<(&str, usize)> {
    let read = take.rsplit_once('=').and_then(|(what, count)| Some((what, count.parse::<usize>().ok()?)));
    read.filter(|(what, count)| *count > 0 && !what.is_empty() && !what.contains("..") && !what.starts_with('/')).ok_or_else(
        || {
            StageFailure::usage(format!("`{take}` does not say what to take"))
                .hint("write NAME=COUNT or NAME/SUBJECT=COUNT, for example svamp=60")
                .into()
        },
    )
}

/// One file of problems.
struct Benchmark {
    path: PathBuf,
    digest: String,
    problems: Vec<Problem>,
}

struct Problem {
    id: String,
    question: String,
    answer: String,
    subject: Option<String>,
    level: u32,
    source: String,
}

impl Benchmark {
    fn read(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let path = folder.join(format!("{name}.jsonl"));
        let fail = |error: std::io::Error| {
            StageFailure::usage(format!("cannot read {}: {error}", path.display()))
                .hint("name the folder that holds the files with --folder")
        };
        let num_bytes = std::fs::metadata(&path).map_err(fail)?.len();
        if num_bytes > MAX_FILE_BYTES {
            return Err(StageFailure::input(format!("{} has {num_bytes} bytes, more than is read", path.display())).into());
        }
        let text = std::fs::read_to_string(&path).map_err(fail)?;
        let digest = blake3::hash(text.as_bytes()).to_hex().to_string();
        let (mut problems, mut num_unreadable) = (Vec::new(), 0u64);
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let problem = read_problem(line, &format!("{name}.jsonl, blake3 {}", &digest[..16]))
                .map_err(|problem| StageFailure::input(format!("line {} of {}: {problem}", index + 1, path.display())))?;
            match problem {
                Some(problem) => problems.push(problem),
                None => num_unreadable += 1,
            }
        }
        if num_unreadable > 0 {
            tracing::warn!(
                "{num_unreadable} problems of {} are left out: their answers are of no form that is read",
                path.display()
            );
        }
        Ok(Self { path, digest, problems })
    }

    /// So many problems of a subject: those with the smallest digest of seed and id, in the order of the file.
    fn choose(&self, subject: Option<&str>, count: usize, seed: u64) -> anyhow::Result<Vec<&Problem>> {
        let is_asked = |problem: &&Problem| subject.is_none() || problem.subject.as_deref() == subject;
        let mut order: Vec<(String, usize, &Problem)> = self
            .problems
            .iter()
            .filter(is_asked)
            .enumerate()
            .map(|(at, problem)| (blake3::hash(format!("{seed} {}", problem.id).as_bytes()).to_hex().to_string(), at, problem))
            .collect();
        if order.len() < count {
            let what = subject.map_or(String::new(), |subject| format!(" of subject {subject}"));
            let message = format!("{} holds {} problems{what}, {count} were asked for", self.path.display(), order.len());
            return Err(StageFailure::usage(message).hint("ask for fewer, or check the name of the subject").into());
        }
        order.sort_by(|left, right| left.0.cmp(&right.0));
        order.truncate(count);
        order.sort_by_key(|(_, at, _)| *at);
        Ok(order.into_iter().map(|(_, _, problem)| problem).collect())
    }
}

/// A problem, or nothing where its answer cannot be read.
fn read_problem(line: &str, file: &str) -> Result<Option<Problem>, String> {
    let row: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let text = |key: &str| match &row[key] {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let needed = |key: &str| text(key).ok_or_else(|| format!("it has no `{key}`"));
    let (id, question, answer) = (needed("id")?, needed("question")?, needed("answer")?);
    let level = row["level"].as_u64().and_then(|level| u32::try_from(level).ok()).unwrap_or(1);
    let source = text("source").map_or_else(|| file.to_owned(), |source| format!("{source} ({file})"));
    Ok(canonical_answer(&answer).map(|answer| Problem { id, question, answer, subject: text("subject"), level, source }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn problems_are_chosen_by_seed_and_subject_and_bad_lines_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let line = |at: u32| format!(r#"{{"id": "p{at}", "question": "q{at}", "answer": "{at}.0", "subject": "s{}"}}"#, at % 2);
        let text: Vec<String> = (0..20).map(line).collect();
        std::fs::write(folder.path().join("set.jsonl"), text.join("\n")).unwrap();
        let benchmark = Benchmark::read(folder.path(), "set").unwrap();
        let ids = |seed| -> Vec<&str> {
            benchmark.choose(Some("s1"), 4, seed).unwrap().into_iter().map(|problem| problem.id.as_str()).collect()
        };
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1), ids(2));
        assert_eq!(benchmark.problems[3].answer, "3");
        assert!(benchmark.choose(Some("s1"), 11, 1).is_err() && benchmark.choose(Some("s7"), 1, 1).is_err());
        std::fs::write(folder.path().join("bad.jsonl"), "{\"id\": 1}\n").unwrap();
        let error = Benchmark::read(folder.path(), "bad").err().unwrap().to_string();
        assert!(error.contains("line 1") && error.contains("question"), "{error}");
        for take in ["svamp", "svamp=0", "=3", "../x=3", "svamp=many"] {
            assert!(read_take(take).is_err(), "{take}");
        }
    }
}
