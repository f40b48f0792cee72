//! What `just bench` makes of its raw runs: the summary and the table, from runs that were made up here.

#![allow(clippy::print_stderr, reason = "who runs the tests should see what was not tested")]

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

fn write_run(folder: &Path, experiment: &str, round: u32, side: &str, name: &str, lines: &Value) {
    let folder = folder.join("raw").join(experiment);
    std::fs::create_dir_all(&folder).unwrap();
    let run = json!({ "round": round, "side": side, "name": name, "exit_code": 0, "lines": lines });
    std::fs::write(folder.join(format!("{round}-{side}-{name}.json")), run.to_string()).unwrap();
}

fn line(case: &str, setting: &str, value: f64, unit: &str) -> Value {
    json!({ "case": case, "setting": setting, "value": value, "unit": unit, "flops_per_token": 1_000_000_000 })
}

/// `python3`, where there is one that is new enough.
fn python() -> Option<Command> {
    let probe = Command::new("python3").args(["-c", "import tomllib"]).output().ok()?;
    probe.status.success().then(|| Command::new("python3"))
}

#[test]
fn raw_runs_become_ratios_of_the_best_settings_and_a_table_with_its_shortfalls() {
    let Some(mut command) = python() else {
        eprintln!("skipped: there is no python3 of version 3.11 or newer");
        return;
    };
    let results = tempfile::tempdir().unwrap();
    let folder = results.path();
    for (round, ours, peer) in [(1, 60.0, 40.0), (2, 66.0, 30.0), (3, 63.0, 50.0)] {
        let f32_and_bf16 =
            json!([line("decode-shared/64", "f32", ours, "tokens/s"), line("decode-shared/64", "bf16", 50.0, "tokens/s")]);
        write_run(folder, "decode", round, "ours", "ours", &f32_and_bf16);
        write_run(folder, "decode", round, "ours", "peak", &json!([line("peak", "gemm", 100.0, "GF/s")]));
        let two = json!([line("decode/64", "bf16", peer, "tokens/s"), line("decode/64", "f32", 10.0, "tokens/s")]);
        write_run(folder, "decode", round, "peer", "llama", &two);
    }
    write_run(folder, "workload", 1, "ours", "ours", &json!([line("workload", "bf16", 20.0, "s")]));
    write_run(folder, "workload", 1, "peer", "llama", &json!([line("workload", "bf16", 25.0, "s")]));
    write_run(folder, "grading", 1, "ours", "ours", &json!([line("grading", "", 500.0, "pairs/s")]));
    let missing =
        json!({ "round": 1, "side": "peer", "name": "math-verify", "exit_code": 1, "lines": [], "missing": "math_verify" });
    std::fs::write(folder.join("raw/grading/1-peer-math-verify.json"), missing.to_string()).unwrap();
    std::fs::write(folder.join("notes.toml"), "[workload]\nreason = \"it waits.\"\nnext = \"wait less.\"\n").unwrap();

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    command.current_dir(&root).args(["pipelines/bench/run.py", "--render", "--threads", "2", "--out"]).arg(folder);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let summaries: Vec<Value> = serde_json::from_slice(&std::fs::read(folder.join("summary.json")).unwrap()).unwrap();
    let case = |name: &str| summaries.iter().find(|summary| summary["case"] == name).unwrap_or_else(|| panic!("no case {name}"));
    // The best setting of each side by its median: 63 against 40. Single rounds: 1.5, 2.2 and 1.26.
    let best = case("decode-64");
    assert_eq!([&best["ours"], &best["peer"], &best["ratio"]], [&json!(63.0), &json!(40.0), &json!(1.575)]);
    assert_eq!(
        [&best["ratio_low"], &best["ratio_high"], &best["runs"], &best["threads"]],
        [&json!(1.26), &json!(2.2), &json!(3), &json!(2)]
    );
    assert_eq!([&best["ours_setting"], &best["peer_setting"], &best["met"]], [&json!("f32"), &json!("bf16"), &json!(true)]);
    assert_eq!(case("decode-f32-64")["ratio"], json!(6.3));
    // 63 tokens of a GFLOP each where 100 were measured.
    assert_eq!(case("roofline")["ours"], json!(63.0));
    // Less time is a higher ratio, and here not enough.
    assert_eq!([&case("workload")["ratio"], &case("workload")["met"]], [&json!(1.25), &json!(false)]);
    assert_eq!(case("grading")["status"], json!("peer missing: math_verify"));

    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(table, std::fs::read_to_string(folder.join("table.md")).unwrap() + "\n");
    assert!(
        table.contains(
            "| decode, batch 64, best weights | **1.57x** (1.26 to 2.20) | llama.cpp (f32 / bf16) | 1.20x | yes | 2 | 3 |"
        ),
        "{table}"
    );
    assert!(table.contains("misses 1.50x: it waits. Next: wait less."), "{table}");
}

#[test]
fn an_unknown_experiment_is_told_with_those_that_there_are() {
    let Some(mut command) = python() else {
        eprintln!("skipped: there is no python3 of version 3.11 or newer");
        return;
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = command.current_dir(root).args(["pipelines/bench/run.py", "nothing"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("there is no experiment `nothing`") && text.contains("decode"), "{text}");
}
