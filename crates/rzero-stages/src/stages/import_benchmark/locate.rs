//! Which files of a folder hold a benchmark: NAME.jsonl and the like, a set of Parquet shards, or a folder of either.

use super::adapters::{ADAPTERS, adapter_for, joined};
use super::read::ENDS;
use crate::exit::StageFailure;
use rzero_io::error::IoError;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One file of a benchmark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    /// Subject of its rows, where it holds one task only.
    pub(super) task: Option<String>,
    /// Where it was fetched from.
    pub(super) source: Option<String>,
}

impl Part {
    pub(super) fn new(path: PathBuf) -> Self {
        // Some benchmarks keep each task in a folder of its own, as task.json.
        let is_task = path.file_name().is_some_and(|name| name == TASK_FILE);
        let folder = path.parent().and_then(Path::file_name).filter(|_| is_task);
        Self { task: folder.map(|name| name.to_string_lossy().into_owned()), source: None, path }
    }
}

const TASK_FILE: &str = "task.json";

/// The files of benchmark `name` in a folder: those of this very name, else of another spelling of it (`MATH-500` for `math500`), else, where
/// it is the name of an adapter, those whose names begin with it (`mmlu_pro_sample500` for `mmlu_pro`). None where there are no such files.
///
/// # Errors
/// When the folder cannot be read, several tables are meant, or shards are missing.
pub(super) fn locate(folder: &Path, name: &str) -> anyhow::Result<Option<Vec<Part>>> {
    let tables = tables(folder, true)?;
    let is_begun = |stem: &str| ADAPTERS.iter().any(|adapter| adapter.name == name && adapter_for(stem).name == name);
    let ways: [&dyn Fn(&str) -> bool; 3] = [&|stem| stem == name, &|stem| joined(stem) == joined(name), &is_begun];
    let found = ways.iter().map(|is_meant| tables.iter().filter(|table| is_meant(&table.stem)).collect::<Vec<&Table>>());
    let found = found.into_iter().find(|found| !found.is_empty()).unwrap_or_default();
    match found[..] {
        [] => return Ok(None),
        [table] if table.stem != name => tracing::info!("{name} is read from {}", table.paths[0].display()),
        [_] => {}
        _ => return Err(several(folder, &found)),
    }
    let table = found[0];
    if table.is_folder { parts_of(&table.paths[0]).map(Some) } else { whole(&table.paths).map(Some) }
}

/// The files that are meant by a path: a file, or a folder of shards or of tasks.
///
/// # Errors
/// When there is no such file, several tables are meant, or shards are missing.
pub(super) fn parts_of(path: &Path) -> anyhow::Result<Vec<Part>> {
    let metadata = std::fs::metadata(path).map_err(IoError::file("read", path))?;
    if !metadata.is_dir() {
        return Ok(vec![Part::new(path.to_owned())]);
    }
    let tables = tables(path, false)?;
    match &tables[..] {
        [] => {}
        [table] => return whole(&table.paths),
        _ => return Err(several(path, &tables.iter().collect::<Vec<_>>())),
    }
    let folders = entries(path)?.into_iter().map(|entry| entry.join(TASK_FILE));
    let tasks: Vec<Part> = folders.filter(|task| task.is_file()).map(Part::new).collect();
    if tasks.is_empty() {
        return Err(StageFailure::usage(format!("{} holds no problems", path.display()))
            .hint(format!("name a file that ends in one of {}, or a folder of one set of Parquet shards", ENDS.join(", ")))
            .into());
    }
    Ok(tasks)
}

/// Refuses a set of shards that lacks some.
///
/// # Errors
/// Names the first that is missing.
pub(super) fn check_whole<'a>(paths: impl Iterator<Item = &'a Path>) -> anyhow::Result<()> {
    let mut sets: BTreeMap<(String, u64), Vec<u64>> = BTreeMap::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some((stem, index, num)) = shard_of(stem_of(&name).unwrap_or(&name)) {
            sets.entry((stem.to_owned(), num)).or_default().push(index);
        }
    }
    for ((stem, num), indices) in sets {
        if let Some(missing) = (0..num).find(|index| !indices.contains(index)) {
            return Err(StageFailure::input(format!("shard {missing} of {num} of `{stem}` is missing"))
                .hint("fetch all shards, and where they are named one by one, name all of them")
                .into());
        }
    }
    Ok(())
}

fn whole(paths: &[PathBuf]) -> anyhow::Result<Vec<Part>> {
    check_whole(paths.iter().map(PathBuf::as_path))?;
    Ok(paths.iter().cloned().map(Part::new).collect())
}

/// Files that are one table by their name.
struct Table {
    stem: String,
    paths: Vec<PathBuf>,
    is_folder: bool,
}

/// The tables of a folder, by name; folders count as tables where they may be such.
fn tables(folder: &Path, with_folders: bool) -> anyhow::Result<Vec<Table>> {
    let mut tables: BTreeMap<(String, String), Table> = BTreeMap::new();
    for path in entries(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_folder = path.is_dir();
        let stem = if is_folder { with_folders.then_some(name.as_str()) } else { stem_of(&name) };
        let Some(stem) = stem else { continue };
        let end = name[stem.len()..].to_owned();
        let stem = set_of(stem).to_owned();
        let table = tables.entry((stem.clone(), end)).or_insert_with(|| Table { stem, paths: Vec::new(), is_folder });
        table.paths.push(path);
    }
    Ok(tables.into_values().collect())
}

/// What lies in a folder, in the order of names, but for what is hidden.
fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(IoError::file("read", folder))? {
        let entry = entry.map_err(IoError::file("read", folder))?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// A file's name without its end, where that is one that is read.
pub(super) fn stem_of(name: &str) -> Option<&str> {
    let lower = name.to_ascii_lowercase();
    ENDS.iter().find(|end| lower.ends_with(**end)).map(|end| &name[..name.len() - end.len()])
}

/// The name that the shards of a set have in common.
pub(super) fn set_of(stem: &str) -> &str {
    shard_of(stem).map_or(stem, |(stem, _, _)| stem)
}

/// NAME-00000-of-00002: the name, which shard, and of how many.
fn shard_of(stem: &str) -> Option<(&str, u64, u64)> {
    let number =
        |digits: &str| (digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok());
    let (rest, num) = stem.rsplit_once("-of-")?;
    let (stem, index) = rest.rsplit_once('-')?;
    Some((stem, number(index)??, number(num)??))
}

fn several(folder: &Path, tables: &[&Table]) -> anyhow::Error {
    let names = tables.iter().flat_map(|table| table.paths.first()?.file_name()).map(|name| name.to_string_lossy());
    let names: Vec<_> = names.collect();
    StageFailure::usage(format!("{} holds several tables that may be meant: {}", folder.display(), names.join(", ")))
        .hint("say which one with --file NAME=PATH")
        .into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;
    use std::fs;

    fn names(parts: anyhow::Result<Option<Vec<Part>>>) -> Result<Vec<String>, String> {
        let name = |part: Part| part.path.file_name().unwrap().to_string_lossy().into_owned();
        parts.map(|parts| parts.unwrap_or_default().into_iter().map(name).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_finds_its_file_its_shards_or_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let make = |name: &str| {
            fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
            fs::write(path.join(name), "").unwrap();
        };
        let of = |name: &str| names(locate(path, name));
        for name in ["MATH-500.CSV", "own.jsonl", "README.md", "rg_configs.json", ".hidden.jsonl"] {
            make(name);
        }
        make("gsm8k/test-00001-of-00002.parquet");
        make("bigbench_arithmetic/b_digit/task.json");
        make("bigbench_arithmetic/a_digit/task.json");
        assert_eq!(of("math500"), Ok(vec!["MATH-500.CSV".to_owned()]));
        assert_eq!(of("own"), Ok(vec!["own.jsonl".to_owned()]));
        for absent in ["README", "hidden", "other", "rg_easy", "math"] {
            assert_eq!(of(absent), Ok(vec![]), "{absent}");
        }
        assert!(of("gsm8k").unwrap_err().contains("shard 0 of 2 of `test` is missing"));
        make("gsm8k/test-00000-of-00002.parquet");
        assert_eq!(of("GSM8K").unwrap(), ["test-00000-of-00002.parquet", "test-00001-of-00002.parquet"]);
        make("gsm8k/train-00000-of-00001.parquet");
        assert!(of("gsm8k").unwrap_err().contains("several tables"));
        let tasks = locate(path, "bigbench-arithmetic").unwrap().unwrap();
        assert_eq!(tasks.iter().map(|part| part.task.as_deref()).collect::<Vec<_>>(), [Some("a_digit"), Some("b_digit")]);
        // A name that goes on is another set of the same adapter, and only the adapter's own name means any of them.
        make("rg_hard.jsonl");
        make("mmlu_pro_mini.jsonl");
        assert_eq!((of("rg_easy"), of("mmlu_pro_mini_2")), (Ok(vec![]), Ok(vec![])));
        assert_eq!(of("mmlu_pro").unwrap(), ["mmlu_pro_mini.jsonl"]);
        make("math_500.jsonl");
        assert!(of("math500").unwrap_err().contains("several tables"));
        assert_eq!(of("MATH-500").unwrap(), ["MATH-500.CSV"]);
        assert_eq!(shard_of("a-b-00003-of-00010"), Some(("a-b", 3, 10)));
        assert_eq!((shard_of("a-3-of-10"), shard_of("-of-"), shard_of("a-00003-of-")), (None, None, None));
        assert!(locate(&path.join("absent"), "own").is_err() && parts_of(&path.join("absent")).is_err());
        assert!(parts_of(&path.join("bigbench_arithmetic/a_digit")).is_ok());
    }
}
