//! `import-benchmark` as a process, on small made-up benchmarks: forms, choices, counts and refusals.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use arrow::array::{ArrayRef, ListBuilder, RecordBatch, StringArray, StringBuilder};
use parquet::arrow::ArrowWriter;
use rzero_io::reader::{read_footer, read_table};
use rzero_schema::tables::EvalItem;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    fn write_lines(&self, name: &str, rows: &[Value]) {
        self.write(name, rows.iter().map(|row| format!("{row}\n")).collect::<String>());
    }

    /// What the program says, with its exit code in front.
    fn import(&self, arguments: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_import-benchmark"));
        for variable in ["RUST_LOG", "RZERO_LOG", "SLURM_JOB_ID"] {
            command.env_remove(variable);
        }
        let output =
            command.current_dir(self.0.path()).args(["--output", "set.parquet"]).args(arguments.split_whitespace()).output();
        let output = output.unwrap();
        let code = output.status.code().unwrap();
        format!("exit {code}\n{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    /// The set that an import makes.
    fn items(&self, arguments: &str) -> Vec<EvalItem> {
        let told = self.import(arguments);
        assert!(told.starts_with("exit 0\nset.parquet\n"), "{arguments}: {told}");
        read_table(&self.path("set.parquet")).unwrap()
    }
}

fn write_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn column(texts: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(texts.to_vec()))
}

/// What does not say from which file an item comes.
fn contents(items: &[EvalItem]) -> Vec<(String, String, Vec<String>, String, String, u32)> {
    let of = |item: &EvalItem| {
        let item = item.clone();
        (item.item_id, item.question, item.options, item.answer, item.subject, item.level)
    };
    items.iter().map(of).collect()
}

#[test]
fn one_benchmark_in_four_forms_is_one_set() {
    let folder = Folder::new();
    let rows: Vec<Value> = (0..5)
        .map(|at| {
            json!({"question_id": at, "question": format!("Which, \"{at}\"?\n"), "options": ["a, b", "ç", "3"], "answer": "B", "category": "law"})
        })
        .collect();
    folder.write_lines("lines/mmlu_pro.jsonl", &rows);
    folder.write("document/MMLU-Pro.json", Value::Array(rows.clone()).to_string());
    let cell = |value: &Value| format!("\"{}\"", value.as_str().map_or(value.to_string(), str::to_owned).replace('"', "\"\""));
    let names = ["question_id", "question", "options", "answer", "category"];
    let line = |row: &Value| names.map(|name| cell(&row[name])).join(",");
    folder
        .write("cells/mmlu-pro.csv", format!("{}\n{}\n", names.join(","), rows.iter().map(line).collect::<Vec<_>>().join("\n")));
    for (shard, rows) in [(0, &rows[..2]), (1, &rows[2..])] {
        let texts = |name: &str| Arc::new(rows.iter().map(|row| row[name].as_str()).collect::<StringArray>()) as ArrayRef;
        let mut options = ListBuilder::new(StringBuilder::new());
        rows.iter().for_each(|_| options.append_value(["a, b", "ç", "3"].map(Some)));
        let ids: arrow::array::Int64Array = rows.iter().map(|row| row["question_id"].as_i64()).collect();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("question_id", Arc::new(ids)),
            ("question", texts("question")),
            ("options", Arc::new(options.finish())),
            ("answer", texts("answer")),
            ("category", texts("category")),
        ];
        write_parquet(&folder.path(&format!("columns/mmlu_pro/test-{shard:05}-of-00002.parquet")), columns);
    }
    let expected = folder.items("--folder lines --take mmlu_pro");
    assert_eq!(expected.len(), 5);
    let first = &expected[0];
    assert_eq!((first.item_id.as_str(), first.benchmark.as_str(), first.subject.as_str()), ("mmlu_pro/0", "mmlu_pro", "law"));
    assert_eq!((first.question.as_str(), first.answer.as_str()), ("Which, \"0\"?", "B"));
    assert_eq!(
        (first.source.as_str(), first.license.as_str(), first.revision.as_str()),
        ("TIGER-Lab/MMLU-Pro (mmlu_pro.jsonl)", "MIT", "")
    );
    assert_eq!(first.digest, blake3::hash(&fs::read(folder.path("lines/mmlu_pro.jsonl")).unwrap()).to_hex().to_string());
    for form in ["document", "cells", "columns"] {
        let items = folder.items(&format!("--folder {form} --take mmlu_pro --revision v1 --license own"));
        assert_eq!(contents(&items), contents(&expected), "{form}");
        assert!(items.iter().all(|item| item.revision == "v1" && item.license == "own" && !item.digest.is_empty()));
    }
    let shards = folder.items("--folder columns --take mmlu_pro");
    assert!(shards[1].digest == shards[0].digest && shards[2].digest != shards[1].digest);
    let named = "--file mmlu_pro=columns/mmlu_pro/test-00000-of-00002.parquet";
    let told = folder.import(named);
    assert!(told.starts_with("exit 3\n") && told.contains("shard 1 of 2 of `test` is missing"), "{told}");
    let both = folder.items(&format!("{named} --file mmlu_pro=columns/mmlu_pro/test-00001-of-00002.parquet"));
    assert_eq!(contents(&both), contents(&expected));
}

#[test]
fn problems_are_chosen_by_seed_subject_and_amount() {
    let folder = Folder::new();
    let row = |at: u32| json!({"id": format!("p{at}"), "question": format!("q{at}"), "answer": format!("{at}.0"), "subject": format!("s{}", at % 2)});
    folder.write_lines("own.jsonl", &(0..20).map(row).collect::<Vec<_>>());
    let ids = |arguments: &str| -> Vec<String> {
        folder.items(&format!("--folder . {arguments}")).into_iter().map(|item| item.item_id).collect()
    };
    let four = ids("--take own/s1=4");
    assert_eq!((four.len(), &four), (4, &ids("--take own/s1=4 --seed 1")));
    assert_ne!(four, ids("--take own/s1=4 --seed 2"));
    // A larger choice holds the smaller one.
    assert!(four.iter().all(|id| ids("--take own/s1=7").contains(id)));
    assert_eq!(ids("--take own/s1=all").len(), 10);
    // What another set asks is not asked again.
    folder.items("--folder . --take own/s1=4");
    fs::rename(folder.path("set.parquet"), folder.path("held-out.parquet")).unwrap();
    let others = ids("--take own/s1=all --except held-out.parquet");
    assert_eq!(others.len(), 6);
    assert!(four.iter().all(|id| !others.contains(id)));
    assert!(folder.import("--folder . --take own/s1=7 --except held-out.parquet").starts_with("exit 2\n"));
}

#[test]
fn a_set_stands_in_the_order_asked_for_and_says_where_each_problem_is_from() {
    let folder = Folder::new();
    let row = |at: u32, subject: &str| json!({"id": at, "question": "q", "answer": format!("{at}.0"), "subject": subject});
    folder.write_lines("own.jsonl", &[row(1, "a"), row(2, "b"), row(3, "a")]);
    folder.write_lines(
        "svamp.jsonl",
        &[json!({"question": "q", "answer": "3", "source": "arkilpatel/SVAMP:SVAMP.json", "level": 2})],
    );
    let items = folder.items("--folder . --take own/b=1 --take svamp --take own/a --seed 5");
    let told: Vec<_> =
        items.iter().map(|item| (item.row, item.item_id.as_str(), item.benchmark.as_str(), item.subject.as_str())).collect();
    assert_eq!(
        told,
        [(0, "own/2", "own", "b"), (1, "svamp/0", "svamp", "svamp"), (2, "own/1", "own", "a"), (3, "own/3", "own", "a")]
    );
    // Answers stay as they are written.
    assert_eq!((items[0].answer.as_str(), items[1].level), ("2.0", 2));
    assert_eq!((items[0].source.as_str(), items[0].license.as_str()), ("own.jsonl", ""));
    assert_eq!((items[1].license.as_str(), items[1].revision.len()), ("MIT", 40));
    let footer = read_footer(&folder.path("set.parquet")).unwrap();
    assert_eq!((footer["rzero.stage"].as_str(), footer["rzero.seed"].as_str()), ("import-benchmark", "5"));
}

#[test]
fn what_is_left_out_and_what_cannot_be_graded_is_counted() {
    let folder = Folder::new();
    let long = "9".repeat(5000);
    folder.write_lines(
        "supergpqa.jsonl",
        &[
            json!({"question": "q", "options": ["a", "b"], "answer": "B"}),
            json!({"question": "", "options": ["a", "b"], "answer": "B"}),
            json!({"question": "q", "options": ["a", "b"], "answer": "C"}),
            json!({"question": "q", "options": ["a", "b"], "answer": ""}),
            json!({"question": "q", "options": "a, b", "answer": "A"}),
            json!({"question": "q", "answer": "A"}),
            json!({"question": "q", "options": ["a", "b"], "answer": "D"}),
        ],
    );
    folder.write_lines("own.jsonl", &[json!({"question": "q", "answer": long}), json!({"question": "q", "answer": "1"})]);
    let told = folder.import("--folder . --take supergpqa --take own");
    for expected in [
        "1 with no question (the first is line 2 of ./supergpqa.jsonl)",
        "1 with no answer (the first is line 4",
        "1 with no options (the first is line 6",
        "1 with options that are no list of 2 to 26 texts (the first is line 5",
        "2 with an answer that is the letter of none of the options (the first is line 3",
        "supergpqa: 1 of 1 problems are taken",
        "own: 2 of 2 problems are taken",
        "own: 1 answers are of no form that the grader reads (the first is that of own/0)",
    ] {
        assert!(told.contains(expected), "{expected} in {told}");
    }
    let items: Vec<EvalItem> = read_table(&folder.path("set.parquet")).unwrap();
    assert_eq!(items.iter().map(|item| item.item_id.as_str()).collect::<Vec<_>>(), ["supergpqa/0", "own/0", "own/1"]);
}

#[test]
fn tasks_in_folders_of_their_own_are_one_benchmark() {
    let folder = Folder::new();
    for (task, target) in [("1_digit_addition", "3"), ("1_digit_division", "1")] {
        let document = json!({"name": "arithmetic", "canary": "", "examples": [{"input": "What?", "target": target}]});
        folder.write(&format!("bigbench_arithmetic/{task}/task.json"), document.to_string());
    }
    let items = folder.items("--folder . --take bigbench_arithmetic");
    let told: Vec<_> = items.iter().map(|item| (item.item_id.as_str(), item.subject.as_str(), item.answer.as_str())).collect();
    assert_eq!(told, [("bigbench_arithmetic/0", "1_digit_addition", "3"), ("bigbench_arithmetic/1", "1_digit_division", "1")]);
    let named = "--file bigbench_arithmetic/1_digit_division/task.json";
    assert_eq!(folder.items(&format!("{named} --adapter bigbench-arithmetic"))[0].benchmark, "bigbench_arithmetic");
}

#[test]
fn what_is_there_is_taken_where_that_is_asked_for() {
    let folder = Folder::new();
    let row = |at: u32| json!({"problem": format!("q{at}"), "answer": at});
    folder.write_lines("AIME_2024.jsonl", &(0..3).map(row).collect::<Vec<_>>());
    folder.write("aime25.csv", "Problem,Answer\nq,70\n");
    let told = folder.import("--folder . --lenient --take aime24=2 --take aime25=2 --take gsm8k=2");
    for expected in [
        "exit 0",
        "aime24: 2 of 3 problems are taken",
        "aime25 holds 1 problems, fewer than 2: all are taken",
        "gsm8k is not in .: nothing is taken of it",
    ] {
        assert!(told.contains(expected), "{expected} in {told}");
    }
    let told = folder.import("--folder . --lenient --take gsm8k");
    assert!(told.starts_with("exit 2\n") && told.contains("none of the benchmarks is there"), "{told}");
}

#[test]
fn what_cannot_be_imported_is_told_with_what_to_do() {
    let folder = Folder::new();
    folder.write("bad.jsonl", "{\"id\": 1}\n");
    folder.write("empty.jsonl", "\n");
    folder.write("broken.jsonl", "{\"question\": \"q\", \"answer\": \"1\"}\n{\"question\n");
    folder.write("twice.jsonl", "{\"id\": 7, \"question\": \"q\", \"answer\": \"1\"}\n".repeat(2));
    folder.write("good.jsonl", "{\"question\": \"q\", \"answer\": \"1\", \"subject\": \"s\"}\n");
    folder.write("both.jsonl", "{}");
    folder.write("both.csv", "");
    folder.write("torn.parquet", "PAR1");
    folder.write("file.txt", "");
    for (arguments, exit, expected) in [
        ("--folder . --take bad", 3, "adapter plain reads: 1 with no question (the first is line 1 of ./bad.jsonl)"),
        ("--folder . --take bad", 3, "hint: its first row has the fields id"),
        ("--folder . --take empty", 3, "it has no rows"),
        ("--folder . --take broken", 3, "line 2 of ./broken.jsonl is no readable JSON"),
        ("--folder . --take twice", 3, "line 2 of ./twice.jsonl has the id 7"),
        ("--folder . --take good=2", 2, "good holds 1 problems, 2 were asked for"),
        ("--folder . --take good/t=1", 2, "one of its 1 subjects: s"),
        ("--folder . --take good --take good/s", 2, "problem good/0 would be taken twice"),
        ("--folder . --take both", 2, "several tables that may be meant: both.csv, both.jsonl"),
        ("--folder . --take torn", 3, "torn.parquet is no readable parquet file"),
        ("--folder . --take gone", 2, "holds no file of gone"),
        ("--folder absent --take good", 3, "cannot read absent"),
        ("--folder . --take good=none", 2, "does not say what to take"),
        ("--folder . --take good --adapter own", 2, "adapters are plain, gsm8k"),
        ("--folder . --take good --adapter mmlu_pro", 3, "1 with no options"),
        ("--folder . --take good --file bad=bad.jsonl", 2, "nothing is taken of bad"),
        ("--take good", 2, "--file good=PATH"),
        ("--file gone.jsonl", 3, "cannot read gone.jsonl"),
        ("--file file.txt", 2, "the name of file.txt does not say what it is"),
        ("--file =good.jsonl", 2, "names no file"),
        ("", 2, "--take <WHAT>"),
    ] {
        let told = folder.import(arguments);
        assert!(told.starts_with(&format!("exit {exit}\n")) && told.contains(expected), "{arguments}: {told}");
        assert!(!folder.path("set.parquet").exists(), "{arguments}");
    }
    assert_eq!(folder.items("--file good.jsonl")[0].item_id, "good/0");
    assert_eq!(folder.items("--folder . --take good")[0].subject, "s");
}

#[test]
fn equal_files_give_equal_bytes() {
    let folder = Folder::new();
    write_parquet(
        &folder.path("gsm8k.parquet"),
        vec![("question", column(&["q", "r"])), ("answer", column(&["x #### 1", "#### 2"]))],
    );
    folder.items("--folder . --take gsm8k=1");
    let first = fs::read(folder.path("set.parquet")).unwrap();
    folder.items("--folder . --take gsm8k=1");
    assert_eq!(fs::read(folder.path("set.parquet")).unwrap(), first);
}
