//! Made-up benchmarks through the real binaries: numbers, formulas, choices, questions that cannot be asked; then the comparison.

use rzero_io::layout::{RunLayout, Shard};
use rzero_io::set::StageOutput;
use rzero_io::writer::{FooterMetadata, TableWriter};
use rzero_schema::ids::Place;
use rzero_schema::tables::{EvalItem, EvalResult};
use rzero_schema::vocab::{Phase, Stage};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const PLACE: Place = Place::new(0, Phase::Eval, 0);

/// Sums as expressions, sums in words, a choice between numbers, and two questions that the embedded model cannot be asked.
fn items() -> Vec<EvalItem> {
    let of = |benchmark: &str, question: &str, options: &[&str], answer: &str| EvalItem {
        item_id: String::new(),
        row: 0,
        benchmark: benchmark.to_owned(),
        question: question.to_owned(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        answer: answer.to_owned(),
        subject: benchmark.to_owned(),
        level: 1,
        source: "made up".to_owned(),
        license: "MIT".to_owned(),
        revision: "1".to_owned(),
        digest: String::new(),
    };
    let long = "1+".repeat(200) + "1";
    let mut items: Vec<EvalItem> = Vec::new();
    for (left, right) in [(2, 3), (4, 1), (6, 2), (1, 7), (3, 3), (8, 1), (2, 2), (5, 4), (9, 9), (7, 6), (1, 1), (6, 6)] {
        items.push(of("sums", &format!("{left}+{right}"), &[], &format!(r"\text{{{}}}", left + right)));
        items.push(of("spoken", &format!("What is {left} times {right}?"), &[], &(left * right).to_string()));
    }
    items.push(of("choices", "2+3", &["4", "5", "6"], "B"));
    items.push(of("choices", "2+2", &["4", "5", "6"], "A"));
    items.push(of("long", &long, &[], "201"));
    items.push(of("special", "1+1<eos>", &[], "2"));
    for (row, item) in (0..).zip(&mut items) {
        (item.row, item.item_id) = (row, format!("{}/{row}", item.benchmark));
    }
    items
}

fn write_items(path: &Path, items: &[EvalItem]) {
    let footer = FooterMetadata {
        stage: Stage::ImportBenchmark,
        place: PLACE,
        shard: Shard::WHOLE,
        seed: 1,
        profile_digest: String::new(),
    };
    let mut writer = TableWriter::<EvalItem>::create(path, &footer).unwrap();
    writer.write(items).unwrap();
    writer.finish().unwrap();
}

const BENCHMARKS: &str = r#"eval.benchmarks=[
    { name = "spoken", solver_prompt = "pipelines/domains/arithmetic/spoken.jinja", extraction = "last", is_gold_rounded = false },
    { name = "choices", solver_prompt = "pipelines/domains/arithmetic/solver.jinja", extraction = "box", is_gold_rounded = false }]"#;
const GROUPS: &str =
    r#"eval.groups=[{ name = "both", members = ["sums", "spoken"] }, { name = "all", members = ["both", "proofs"] }]"#;

/// Evaluates the base; further settings and flags behind a space each.
fn evaluate(run: &Path, items: &Path, settings: &[&str], flags: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_eval"))
        .current_dir(ROOT)
        .env_clear()
        .args(["--iteration", "0", "--profile", "pipelines/profiles/smoke.toml", "--quiet", "--run"])
        .arg(run)
        .arg(format!("--set=eval.items={}", items.display()))
        .args(["--set=eval.max_items=0", "--set", BENCHMARKS, "--set", GROUPS])
        .args(settings.iter().map(|setting| format!("--set={setting}")))
        .args(flags.split_whitespace())
        .output()
        .unwrap()
}

fn compare(arguments: &[&str]) -> Output {
    // What recipes leave in the environment is not asked.
    let mut command = Command::new(env!("CARGO_BIN_EXE_eval"));
    command.current_dir(ROOT).env_clear().env("RZERO_RUN", "nowhere").arg("--compare").args(arguments).output().unwrap()
}

fn told(output: &Output) -> String {
    let code = output.status.code().map_or_else(|| "signal".to_owned(), |code| code.to_string());
    format!("exit {code}\n{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn results(run: &Path) -> Vec<EvalResult> {
    let mut results = StageOutput::open(&RunLayout::new(run), Stage::Eval, PLACE).unwrap().read::<EvalResult>().unwrap();
    results.sort_by_key(|result| (result.row, result.eval_style.clone(), result.eval_mode.clone(), result.sample));
    results
}

#[test]
fn every_benchmark_is_asked_and_graded_in_its_own_way_whatever_the_number_of_shards() {
    let folder = tempfile::tempdir().unwrap();
    let (items, whole, cut) = (folder.path().join("items.parquet"), folder.path().join("whole"), folder.path().join("cut"));
    write_items(&items, &self::items());
    let output = evaluate(&whole, &items, &[], "");
    assert!(output.status.success(), "{}", told(&output));
    for index in 0..3 {
        let output = evaluate(&cut, &items, &[], &format!("--num-shards 3 --shard-index {index}"));
        assert!(output.status.success(), "{}", told(&output));
    }
    let results = results(&whole);
    assert!(results == self::results(&cut), "three shards give other rows");
    // Greedy and four samples, free and in steps.
    assert_eq!(results.len(), 28 * 10);

    let share = |benchmark: &str| {
        let of: Vec<&EvalResult> = results.iter().filter(|result| result.benchmark == benchmark).collect();
        of.iter().filter(|result| result.is_correct).count() as f64 / of.len() as f64
    };
    assert!(share("sums") > 0.5 && share("spoken") > 0.5, "sums {}, spoken {}", share("sums"), share("spoken"));
    assert!(
        results
            .iter()
            .filter(|result| result.benchmark == "choices")
            .all(|result| { result.answer.as_deref().is_none_or(|answer| ["A", "B", "C"].contains(&answer)) })
    );
    for result in results.iter().filter(|result| ["long", "special"].contains(&result.benchmark.as_str())) {
        let told = (result.answer_status.as_str(), result.verdict.as_str(), result.grade_reason.as_str(), result.num_tokens);
        assert_eq!(told, ("not_asked", "different", "no_answer", 0));
    }
    let output = StageOutput::open(&RunLayout::new(&whole), Stage::Eval, PLACE).unwrap();
    let counts = &output.manifests()[0].counts;
    assert_eq!(counts["not_asked"], 20);
    assert_eq!(counts["equal"] + counts["different"] + counts.get("unknown").copied().unwrap_or(0), 280);
    assert_eq!(counts["equal"], results.iter().filter(|result| result.is_correct).count() as u64);
}

#[test]
fn two_evaluations_are_compared_without_the_model_and_other_problems_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_items(&path("items.parquet"), &items());
    write_items(&path("fewer.parquet"), &items()[..9]);
    // The same problems in another style of asking: the embedded model cannot read sums that are put in words.
    let settings = [BENCHMARKS.replace("spoken.jinja", "solver.jinja")];
    for (run, items, settings) in
        [("a", "items.parquet", vec![settings[0].as_str()]), ("b", "items.parquet", vec![]), ("c", "fewer.parquet", vec![])]
    {
        let output = evaluate(&path(run), &path(items), &settings, "");
        assert!(output.status.success(), "{}", told(&output));
    }
    let name = |run: &str| path(run).display().to_string();
    let output = compare(&[&format!("{}@0", name("a")), &name("b")]);
    let text = told(&output);
    for part in [
        "exit 0",
        "on the same 28 problems",
        "| spoken ",
        "| average both ",
        "| average all: incomplete without proofs ",
        "| all problems ",
        "McNemar p",
        "Gained: wrong in A, right in B",
        "  spoken/1: What is 2 times 3?",
        "gold 6; A: ",
        "B: 6",
    ] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    let output = compare(&[&name("a"), &name("b"), "--json"]);
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    let spoken = &object["benchmarks"][1];
    assert_eq!((&spoken["name"], &spoken["num_items"]), (&"spoken".into(), &12.into()));
    let (gained, lost) = (spoken["num_gained"].as_u64().unwrap(), spoken["num_lost"].as_u64().unwrap());
    assert!(gained > 6 && lost == 0, "{spoken}");
    assert!(spoken["mcnemar_p"].as_f64().unwrap() < 0.05 && spoken["greedy"]["gain"]["low"].as_f64().unwrap() > 0.0, "{spoken}");
    assert_eq!(object["all"]["num_gained"].as_u64().unwrap() as usize, object["gained"].as_array().unwrap().len());
    assert!(object["averages"][1]["greedy"]["before"].is_null());

    // The questions are only shown while they are those that were asked.
    write_items(&path("items.parquet"), &items()[..9]);
    let text = told(&compare(&[&name("a"), &name("b"), "--examples", "1"]));
    assert!(text.contains("no questions are shown: ") && text.contains("is not the set that was evaluated"), "{text}");
    assert!(text.contains(" problems, 1 of them"), "{text}");

    for (arguments, code, expected) in [
        (vec![name("a"), name("c")], 3, "different problems (28 and 9)"),
        (vec![name("a"), format!("{}@7", name("a"))], 3, "iter-007"),
        (vec![name("a"), name("nowhere")], 3, "holds no run"),
        (vec![name("a")], 2, "<B>"),
    ] {
        let output = compare(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let text = told(&output);
        assert!(output.status.code() == Some(code) && text.contains(expected), "{text}");
    }
}
