//! `import-benchmark`: published benchmarks to one held-out set, all of their problems or some.
//!
//! Reads JSON lines, JSON documents, CSV and Parquet, each by the adapter of its benchmark, and writes one `eval_items` Parquet file. Which
//! problems are taken follows from the seed and the ids alone. Rows that are no problem are left out and counted by reason; answers that
//! the grader cannot read are kept and counted. Files may be fetched from the Hugging Face hub first.

mod adapters;
mod benchmark;
#[cfg(feature = "fetch")]
mod fetch;
mod fields;
mod locate;
mod origins;
mod read;

use crate::console::{Verbosity, print_product, start_log};
use crate::exit::StageFailure;
use crate::stages::base_profile::write_base_table;
use adapters::{ADAPTERS, Adapter, adapter_for, adapter_named};
use benchmark::{Amount, Benchmark};
use locate::Part;
use origins::Provenance;
use rzero_io::atomic::digest_file;
use rzero_io::reader::read_foreign_table;
use rzero_schema::tables::EvalItem;
use rzero_schema::vocab::{Phase, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Make a held-out set of problems from published benchmarks.
#[derive(Debug, clap::Parser)]
#[command(name = "import-benchmark", version)]
pub struct Args {
    /// Folder that holds the files: NAME.jsonl, .json, .csv, .parquet, shards NAME-00000-of-00002.parquet, or a folder NAME of such
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// What to take: NAME or NAME=all, NAME=COUNT, NAME/SUBJECT=COUNT; may be repeated, and the set stands in this order
    #[arg(long = "take", value_name = "WHAT", required_unless_present = "files")]
    takes: Vec<String>,
    /// File of a benchmark, below the folder if there is one; may be repeated, for its shards too. Without --take all of it is taken
    #[arg(long = "file", value_name = "[NAME=]PATH")]
    files: Vec<String>,
    /// How the rows are written, for files whose names do not say so
    #[arg(long, value_name = "BENCHMARK")]
    adapter: Option<String>,
    /// Pass over what is not there, and take all where there are fewer than COUNT; both are said
    #[arg(long)]
    lenient: bool,
    /// Parquet file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Problem set whose questions are left out, so that what is trained on is not what is measured with
    #[arg(long, value_name = "FILE")]
    except: Option<PathBuf>,
    /// Seed of the choice
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Licence of the files, in place of what is known of their source
    #[arg(long, value_name = "TEXT")]
    license: Option<String>,
    /// Commit or version of the files, in place of what is known; with --repository the one to fetch
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Data set of the Hugging Face hub that holds the files, such as openai/gsm8k
    #[cfg(feature = "fetch")]
    #[arg(long, value_name = "OWNER/NAME", requires_all = ["files", "revision"], conflicts_with = "folder")]
    repository: Option<String>,
    /// Folder that keeps what was fetched
    #[cfg(feature = "fetch")]
    #[arg(long, value_name = "DIR", default_value = "data/eval/fetched")]
    cache: PathBuf,
}

/// Runs the tool.
///
/// # Errors
/// When a file cannot be read or holds no problems, a subject has too few of them, or the set cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    start_log(Verbosity::Normal);
    let mut takes = args.takes.iter().map(|take| read_take(take, args.lenient)).collect::<anyhow::Result<Vec<_>>>()?;
    let sources = Sources::new(args)?;
    if takes.is_empty() {
        takes.extend(sources.names.iter().map(|name| Take { name, subject: None, amount: Amount::All }));
    }
    if let Some(idle) = sources.names.iter().find(|name| takes.iter().all(|take| take.name != name.as_str())) {
        return Err(StageFailure::usage(format!("nothing is taken of {idle}, for which a file is named"))
            .hint(format!("add --take {idle}"))
            .into());
    }
    let taken: BTreeSet<String> = match &args.except {
        Some(file) => read_foreign_table::<EvalItem>(file)?.into_iter().map(|item| item.question).collect(),
        None => BTreeSet::new(),
    };
    let mut benchmarks: BTreeMap<&str, Option<Benchmark>> = BTreeMap::new();
    let mut items: Vec<EvalItem> = Vec::new();
    for take in &takes {
        if !benchmarks.contains_key(take.name) {
            benchmarks.insert(take.name, sources.read(take.name)?.map(|benchmark| benchmark.without(&taken)));
        }
        if let Some(benchmark) = &benchmarks[take.name] {
            items.extend(benchmark.choose(take.subject, take.amount, args.seed, items.len() as u64)?);
        }
    }
    if items.is_empty() {
        return Err(StageFailure::usage("none of the benchmarks is there")
            .hint("name the folder that holds them with --folder")
            .into());
    }
    let mut ids = BTreeSet::new();
    if let Some(twice) = items.iter().find(|item| !ids.insert(&item.item_id)) {
        return Err(StageFailure::usage(format!("problem {} would be taken twice", twice.item_id))
            .hint("name a benchmark as a whole or by its subjects, not both")
            .into());
    }
    let mut digests: String =
        benchmarks.values().flatten().flat_map(|benchmark| &benchmark.digests).map(String::as_str).collect();
    if let Some(file) = &args.except {
        digests.push_str(&digest_file(file)?.digest);
    }
    let digest = blake3::hash(digests.as_bytes()).to_hex().to_string();
    write_base_table(&args.output, &items, Stage::ImportBenchmark, Phase::Eval, args.seed, digest)?;
    print_product(args.output.display());
    Ok(())
}

/// Some problems of one benchmark.
#[derive(Debug, PartialEq, Eq)]
struct Take<'a> {
    name: &'a str,
    subject: Option<&'a str>,
    amount: Amount,
}

fn read_take(take: &str, is_lenient: bool) -> anyhow::Result<Take<'_>> {
    let (what, amount) = match take.rsplit_once('=') {
        None => (take, Some(Amount::All)),
        Some((what, "all")) => (what, Some(Amount::All)),
        Some((what, count)) => {
            let count = count.parse().ok().filter(|count| *count > 0);
            (what, count.map(if is_lenient { Amount::AtMost } else { Amount::Exactly }))
        }
    };
    let (name, subject) = what.split_once('/').map_or((what, None), |(name, subject)| (name, Some(subject)));
    let read = amount.filter(|_| is_plain(name) && subject != Some("")).map(|amount| Take { name, subject, amount });
    read.ok_or_else(|| {
        StageFailure::usage(format!("`{take}` does not say what to take"))
            .hint("write NAME, NAME=COUNT or NAME/SUBJECT=COUNT, for example svamp=60")
            .into()
    })
}

/// Whether a text can be the name of a benchmark.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\'])
}

/// Where the files of each benchmark are.
struct Sources<'a> {
    args: &'a Args,
    adapter: Option<&'static Adapter>,
    said: Provenance,
    /// Benchmarks of which files are named, in the order they are.
    names: Vec<String>,
    named: BTreeMap<String, Vec<Part>>,
}

impl<'a> Sources<'a> {
    fn new(args: &'a Args) -> anyhow::Result<Self> {
        let adapter = args.adapter.as_deref().map(|name| adapter_named(name).ok_or_else(|| unknown_adapter(name))).transpose()?;
        let said = Provenance { source: None, license: args.license.clone(), revision: args.revision.clone() };
        let mut sources = Self { args, adapter, said, names: Vec::new(), named: BTreeMap::new() };
        let files = args.files.iter().map(|file| sources.read_file(file)).collect::<anyhow::Result<Vec<_>>>()?;
        let parts = sources.parts(&files)?;
        for ((name, _), parts) in files.into_iter().zip(parts) {
            if !sources.names.contains(&name) {
                sources.names.push(name.clone());
            }
            sources.named.entry(name).or_default().extend(parts);
        }
        for parts in sources.named.values() {
            locate::check_whole(parts.iter().map(|part| part.path.as_path()))?;
        }
        Ok(sources)
    }

    /// The benchmark and the path of a `--file`. Where no benchmark is named the adapter, the repository or the file names it.
    fn read_file<'b>(&self, file: &'b str) -> anyhow::Result<(String, &'b str)> {
        let (name, path) = match file.split_once('=') {
            Some((name, path)) if !name.contains('/') => (name.to_owned(), path),
            _ => (self.default_name(file), file),
        };
        match is_plain(&name) && !path.is_empty() {
            true => Ok((name, path)),
            false => Err(StageFailure::usage(format!("`{file}` names no file")).hint("write --file NAME=PATH").into()),
        }
    }

    fn default_name(&self, path: &str) -> String {
        if let Some(adapter) = self.adapter {
            return adapter.name.to_owned();
        }
        let name = self.repository().map_or_else(
            || {
                let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
                locate::stem_of(&name).map_or(name.clone(), |stem| locate::set_of(stem).to_owned())
            },
            |repository| repository.rsplit('/').next().unwrap_or(repository).to_owned(),
        );
        // A name that chooses an adapter is the benchmark that all call so.
        adapter_named(&name).map_or(name, |adapter| adapter.name.to_owned())
    }

    #[cfg(feature = "fetch")]
    fn repository(&self) -> Option<&str> {
        self.args.repository.as_deref()
    }

    #[cfg(not(feature = "fetch"))]
    fn repository(&self) -> Option<&str> {
        None
    }

    /// The files that are meant by each `--file`, fetched where they lie in a repository.
    fn parts(&mut self, files: &[(String, &str)]) -> anyhow::Result<Vec<Vec<Part>>> {
        #[cfg(feature = "fetch")]
        if let (Some(repository), Some(revision)) = (&self.args.repository, &self.args.revision) {
            let files = files.iter().map(|(_, path)| *path).collect();
            let (parts, commit) = fetch::fetch(&fetch::Wanted { repository, revision, files, cache: &self.args.cache })?;
            self.said.revision = Some(commit);
            return Ok(parts.into_iter().map(|part| vec![part]).collect());
        }
        let below = |path: &str| self.args.folder.as_ref().map_or_else(|| PathBuf::from(path), |folder| folder.join(path));
        files.iter().map(|(_, path)| locate::parts_of(&below(path))).collect()
    }

    /// Reads a benchmark; nothing where it is not there and need not be.
    fn read(&self, name: &str) -> anyhow::Result<Option<Benchmark>> {
        let adapter = self.adapter.unwrap_or_else(|| adapter_for(name));
        if let Some(parts) = self.named.get(name) {
            return Benchmark::read(name, parts, adapter, &self.said).map(Some);
        }
        let Some(folder) = &self.args.folder else {
            return Err(StageFailure::usage(format!("no file of {name} is named"))
                .hint(format!("name the folder that holds the files with --folder, or its file with --file {name}=PATH"))
                .into());
        };
        match locate::locate(folder, name)? {
            Some(parts) => Benchmark::read(name, &parts, adapter, &self.said).map(Some),
            None if self.args.lenient => {
                tracing::warn!("{name} is not in {}: nothing is taken of it", folder.display());
                Ok(None)
            }
            None => Err(StageFailure::usage(format!("{} holds no file of {name}", folder.display()))
                .hint(format!("it would be {name}.jsonl, .json, .csv or .parquet; --file {name}=PATH names another"))
                .into()),
        }
    }
}

fn unknown_adapter(name: &str) -> StageFailure {
    let names: Vec<&str> = ADAPTERS.iter().map(|adapter| adapter.name).collect();
    StageFailure::usage(format!("there is no adapter `{name}`")).hint(format!("adapters are {}", names.join(", ")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn what_to_take_is_a_name_a_subject_and_an_amount() {
        let take = |name, subject, amount| Take { name, subject, amount };
        assert_eq!(read_take("svamp", false).unwrap(), take("svamp", None, Amount::All));
        assert_eq!(read_take("svamp=all", true).unwrap(), take("svamp", None, Amount::All));
        assert_eq!(read_take("svamp=3", false).unwrap(), take("svamp", None, Amount::Exactly(3)));
        assert_eq!(read_take("a/b/c = d=3", true).unwrap(), take("a", Some("b/c = d"), Amount::AtMost(3)));
        for wrong in ["", "svamp=0", "=3", "../x=3", "svamp=many", "svamp=-1", "svamp/=3", "/x"] {
            assert!(read_take(wrong, false).is_err(), "{wrong}");
        }
    }
}
