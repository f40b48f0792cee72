//! `just ablate`, but for its build, on a matrix of the smoke profile: what is there is kept, what is common is made once, the table is made of the
//! runs, a cell that stops is told.

use crate::just::just;
use crate::whole_run::{assert_same_files, finish, lasting_files};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

const MATRIX: &str = r#"
title = "Which of these is better?"
profile = "smoke"
iterations = 1
seeds = [7, 8]

[[cell]]
name = "default"
source = "ours"

[[cell]]
name = "untrained"
set = ["challenger.steps=0"]
source = "a test"

[[cell]]
name = "stops"
set = ["probe.floor=0.99"]
source = "labels are never all true"
"#;

/// Where the runs of a matrix were, and what it printed, so many of them side by side.
fn ablate(folder: &Path, matrix: &str, jobs: u32) -> Output {
    let file = folder.join("matrix.toml");
    std::fs::write(&file, matrix).unwrap();
    let mut command = just();
    command.arg(format!("run={}", folder.join("runs").display())).arg(format!("jobs={jobs}")).arg("matrix").arg(file);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn results(folder: &Path) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(folder.join("runs/table/results.json")).unwrap()).unwrap()
}

#[test]
fn a_matrix_is_run_once_and_its_table_says_what_the_runs_say() {
    let folder = tempfile::tempdir().unwrap();
    let first = ablate(folder.path(), MATRIX, 1);
    let table = String::from_utf8(first.stdout).unwrap();
    assert!(table.starts_with("Which of these is better?"), "{table}");
    let text = String::from_utf8_lossy(&first.stderr);
    assert!(text.contains("stops-7 goes no further (exit code 5)"), "{text}");
    assert!(table.contains("stopped: seed 7, iteration 1: no eval"), "{table}");

    let cells = results(folder.path());
    assert_eq!(cells.len(), 3);
    assert_eq!(cells.iter().map(|cell| cell["iterations"].as_array().unwrap().len()).collect::<Vec<_>>(), [2, 2, 1]);
    // The mean over two runs of the same problems is the mean of what each says of itself.
    for (measure, key) in ["greedy", "mean4"].iter().enumerate() {
        let of = |seed: u32| {
            let run = folder.path().join(format!("runs/untrained-{seed}"));
            let output = std::process::Command::new(env!("CARGO_BIN_EXE_summary")).arg(run).arg("--json").output().unwrap();
            let lines = String::from_utf8(output.stdout).unwrap();
            let line: Value = serde_json::from_str(lines.lines().nth(1).unwrap()).unwrap();
            line[*key].as_f64().unwrap_or_else(|| panic!("no {key} in {line}"))
        };
        let told = &cells[1]["iterations"][1]["accuracy"][measure];
        assert!((told["value"].as_f64().unwrap() - (of(7) + of(8)) / 2.0).abs() < 1e-9, "{key}: {told}");
        assert!(told["low"].as_f64() <= told["value"].as_f64() && told["value"].as_f64() <= told["high"].as_f64(), "{told}");
    }
    // Iteration 0 is the same base model: no gain, and none of chance.
    let gain = &cells[1]["iterations"][0]["gain"][0];
    assert_eq!((gain["low"].as_f64(), gain["high"].as_f64()), (Some(0.0), Some(0.0)), "{gain}");

    let again = ablate(folder.path(), MATRIX, 1);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), table);
    let text = String::from_utf8_lossy(&again.stderr);
    assert!(text.contains("complete up to iteration 1: nothing to do"), "{text}");
}

#[test]
fn runs_side_by_side_come_to_the_same_and_wait_for_what_they_begin_with() {
    let folders = [1, 3].map(|jobs| {
        let folder = tempfile::tempdir().unwrap();
        // Right behind what it begins with, so that it would come too early if it did not wait.
        let onward = format!(
            "[[cell]]\nname = \"onward\"\nset = [\"model.path={}/runs/default-{{seed}}/iter-001/solver/checkpoint\"]\nsource = \"a test\"\n\n",
            folder.path().display()
        );
        let at = MATRIX.find("[[cell]]\nname = \"untrained\"").unwrap();
        let onward = format!("{}{onward}{}", &MATRIX[..at], &MATRIX[at..]);
        let output = ablate(folder.path(), &onward, jobs);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("stops-8 goes no further (exit code 5)") && !text.contains("onward"), "{text}");
        folder
    });
    let [one, three] = folders.each_ref().map(|folder| results(folder.path()));
    assert_eq!(one.len(), 4);
    for (one, three) in one.iter().zip(&three) {
        assert_eq!(one["iterations"], three["iterations"], "{}", one["name"]);
    }
}

const ALIKE: &str = r#"
title = "What is the same in all of them?"
profile = "smoke"
iterations = 1
seeds = [7]

[[cell]]
name = "default"
source = "ours"

[[cell]]
name = "onward"
set = ["challenger.start_from=previous", "stability.replay_share=0.5", "verifier.steps=9"]
source = "differs from iteration 2 on"

[[cell]]
name = "band"
set = ["curriculum.bands=[{ from_iteration = 1, low = 0.0, high = 1.0 }]"]
source = "differs from the filter on"
"#;

/// Stages of a run, as folders, by whether their output was taken from another run.
fn stages(run: &Path, is_reused: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![run.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().unwrap().to_str().unwrap().starts_with("manifest-") {
                let manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                if is_reused == manifest["reused_from"].as_str().is_some_and(|from| from.ends_with("runs/default-7")) {
                    found.push(folder.strip_prefix(run).unwrap().display().to_string());
                }
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_cells_have_in_common_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    ablate(folder.path(), ALIKE, 1);
    let run = |name: &str| folder.path().join("runs").join(name);
    assert!(stages(&run("default-7"), true).is_empty());
    assert_eq!(stages(&run("onward-7"), false), Vec::<String>::new());

    let (taken, made) = (stages(&run("band-7"), true), stages(&run("band-7"), false));
    assert!(taken.iter().all(|stage| !stage.contains("/solver/")) && made.iter().all(|stage| !stage.contains("/challenger/")));
    assert!(made.contains(&"iter-001/curriculum/filter".to_owned()), "{made:?}");
    assert!(taken.contains(&"iter-000/eval/eval".to_owned()), "{taken:?}");
    assert!(taken.contains(&"iter-001/curriculum/vote-label".to_owned()), "{taken:?}");

    // It is what the run makes by itself, and stands on its own feet.
    let alone = folder.path().join("alone");
    let mut command = just();
    command.args(["profile=smoke", "keep=last"]).arg(format!("run={}", alone.display()));
    command.arg("set=curriculum.bands=[{ from_iteration = 1, low = 0.0, high = 1.0 }];seed=7");
    finish({
        command.args(["loop", "1"]);
        command
    });
    assert_same_files(&lasting_files(&run("band-7")), &lasting_files(&alone), "taken in part");
    std::fs::remove_dir_all(run("default-7")).unwrap();
    for name in ["onward-7", "band-7"] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_audit")).arg(run(name)).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("shards are another run's"), "{told}");
    }
}

#[test]
fn what_is_damaged_in_another_run_is_made_here() {
    let folder = tempfile::tempdir().unwrap();
    ablate(folder.path(), &ALIKE[..ALIKE.find("[[cell]]\nname = \"onward\"").unwrap()], 1);
    let labels = "iter-001/curriculum/vote-label/labels-00000-of-00001.parquet";
    let whole = std::fs::read(folder.path().join("runs/default-7").join(labels)).unwrap();
    let mut damaged = whole.clone();
    damaged[40] ^= 1;
    std::fs::write(folder.path().join("runs/default-7").join(labels), damaged).unwrap();
    ablate(folder.path(), &ALIKE.replace("\"default\"", "\"again\""), 1);
    assert_eq!(std::fs::read(folder.path().join("runs/again-7").join(labels)).unwrap(), whole);
    assert!(stages(&folder.path().join("runs/again-7"), false).contains(&"iter-001/curriculum/vote-label".to_owned()));
}

#[test]
fn what_is_no_matrix_is_told() {
    let output = just().args(["matrix", "no-such-matrix"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && text.contains("no-such-matrix.toml") && text.contains("paper"), "{text}");
}
