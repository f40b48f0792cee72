//! `import-benchmark --repository` against a stand-in for the hub on loopback: fetched once, whole, of one commit.

#![cfg(feature = "fetch")]
#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

#[path = "support/hub.rs"]
mod hub;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use hub::{COMMIT, Served, names, told};
use parquet::arrow::ArrowWriter;
use rzero_io::reader::read_table;
use rzero_schema::tables::EvalItem;
use std::sync::Arc;

/// A made-up shard of a data set.
fn shard(questions: &[&str]) -> Vec<u8> {
    let texts = |texts: Vec<String>| Arc::new(StringArray::from(texts)) as ArrayRef;
    let question = texts(questions.iter().map(|question| (*question).to_owned()).collect());
    let answer = texts((0..questions.len()).map(|at| format!("so it is {at}.\n#### {at}")).collect());
    let batch = RecordBatch::try_from_iter([("question", question), ("answer", answer)]).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn serve() -> Served {
    Served::new([
        ("main/test-00000-of-00002.parquet", shard(&["a", "b"])),
        ("main/test-00001-of-00002.parquet", shard(&["c"])),
        ("README.md", b"not wanted".to_vec()),
    ])
}

const BOTH: &str = "--file gsm8k=main/test-00000-of-00002.parquet --file gsm8k=main/test-00001-of-00002.parquet";

impl Served {
    fn import(&self, arguments: &str) -> (Option<i32>, String) {
        let mut command = self.program(env!("CARGO_BIN_EXE_import-benchmark"));
        command.args(["--repository", "owner/name"]).args(arguments.split_whitespace());
        command.current_dir(self.folder.path()).args(["--output", "set.parquet", "--cache", "cache"]);
        told(command)
    }

    fn items(&self) -> Vec<EvalItem> {
        read_table(&self.folder.path().join("set.parquet")).unwrap()
    }
}

#[test]
fn a_data_set_is_fetched_once_and_every_problem_names_its_commit() {
    let served = serve();
    served.change(|hub| (hub.is_redirecting, hub.cuts) = (true, 1));
    let (code, told) = served.import(&format!("--revision main {BOTH}"));
    assert_eq!(code, Some(0), "{told}");
    let items = served.items();
    assert_eq!(items.iter().map(|item| item.question.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(items.iter().all(|item| item.revision == COMMIT && item.benchmark == "gsm8k"));
    assert_eq!((items[2].source.as_str(), items[2].answer.as_str()), ("owner/name:main/test-00001-of-00002.parquet", "0"));
    let asked = served.asked();
    assert!(asked[0].starts_with("/api/datasets/owner/name/revision/main?blobs=true"), "{asked:?}");
    assert!(asked.iter().all(|line| !line.contains("README") && !line.contains("/resolve/main/")), "{asked:?}");
    let kept = served.folder.path().join("cache/owner--name").join(COMMIT).join("main");
    assert_eq!(names(&kept), ["test-00000-of-00002.parquet", "test-00001-of-00002.parquet"]);

    // A branch is asked for its commit, a commit is not asked for.
    assert_eq!(served.import(&format!("--revision main {BOTH} --take gsm8k=1")).0, Some(0));
    assert_eq!((served.asked().len(), served.items().len()), (1, 1));
    assert_eq!(served.import(&format!("--revision {COMMIT} {BOTH} --license own")).0, Some(0));
    assert!(served.asked().is_empty() && served.items()[0].license == "own");
}

#[test]
fn what_cannot_be_fetched_is_told_with_what_to_do() {
    let served = serve();
    for (arguments, exit, expected) in [
        ("--revision main --file gsm8k=main/train.parquet", 2, "main/test-00000-of-00002.parquet"),
        ("--revision main --file gsm8k=../../etc/passwd", 2, "has no file"),
        ("--revision ../main --file gsm8k=main/test.parquet", 2, "no revision"),
        ("--revision main --file gsm8k=main/test-00000-of-00002.parquet", 3, "shard 1 of 2"),
        ("--revision main --take gsm8k", 2, "--file"),
        ("--file gsm8k=a.parquet", 2, "--revision"),
        ("--revision main --folder . --file gsm8k=a.parquet", 2, "--folder"),
        ("--revision main --file README.md", 2, "the name of"),
    ] {
        let (code, told) = served.import(arguments);
        assert!(code == Some(exit) && told.contains(expected), "{arguments}: {code:?} {told}");
    }
    served.change(|hub| hub.refusal = Some((401, "RepoNotFound")));
    let (code, told) = served.import(&format!("--revision main {BOTH}"));
    assert!(code == Some(2) && told.contains("HF_TOKEN") && !told.contains("hf_secret"), "{told}");
    served.change(|hub| (hub.refusal, hub.forged) = (None, Some(shard(&["x", "y"]))));
    std::fs::remove_dir_all(served.folder.path().join("cache")).unwrap();
    let (code, told) = served.import(&format!("--revision main {BOTH}"));
    assert!(code == Some(3) && told.contains("sha256") && !served.folder.path().join("set.parquet").exists(), "{told}");
    let kept = served.folder.path().join("cache/owner--name").join(COMMIT).join("main");
    assert!(names(&kept).is_empty());
}
