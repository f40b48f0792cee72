//! A small run, written through the frame like a real one, and what the summary says of it while it grows.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use super::collect::read_run;
use super::{json, show};
use crate::args::CommonArgs;
use crate::context::StageContext;
use crate::exit::{StageExit, exit_of};
use crate::frame::run_stage;
use crate::inputs::StageInputs;
use crate::outputs::StageOutputs;
use rzero_io::layout::RunLayout;
use rzero_schema::tables::{CurriculumRow, DroppedRow, EvalResult, Judgement, LabelCheck, TrainMetrics};
use rzero_schema::vocab::{Phase, Stage};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn finish(run: &Path, stage: Stage, iteration: u32, phase: Phase, step: Option<u32>, write: impl FnOnce(&mut StageOutputs<'_>)) {
    finish_with(run, stage, iteration, phase, step, "eval.groups=[]", write);
}

fn finish_with(
    run: &Path,
    stage: Stage,
    iteration: u32,
    phase: Phase,
    step: Option<u32>,
    setting: &str,
    write: impl FnOnce(&mut StageOutputs<'_>),
) {
    let args = CommonArgs {
        run: run.to_owned(),
        profile: Some(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../pipelines/profiles/smoke.toml"))),
        overrides: vec!["eval.bootstrap_resamples=50".to_owned(), setting.to_owned()],
        iteration,
        phase: Some(phase),
        step,
        shard_index: None,
        num_shards: 1,
        index_base: 0,
        mirrors: Default::default(),
        threads: Some(1),
        device: crate::device::DeviceChoice::Cpu,
        project_root: None,
        reuse: None,
        overwrite: false,
        dry_run: false,
        quiet: true,
        verbose: false,
    };
    let context = StageContext::new(stage, &args, &[phase]).unwrap();
    run_stage(&context, StageInputs::new(&context), |_, outputs| {
        write(outputs);
        Ok(())
    })
    .unwrap();
}

/// Ten problems; `num_right` of them are solved by every completion, the others by none.
fn eval_rows(num_right: u64, style: &str) -> Vec<EvalResult> {
    let mut rows = Vec::new();
    for row in 0..10 {
        for (mode, sample) in [("greedy", 0), ("sampled", 0), ("sampled", 1)] {
            let answer = if row < num_right { "7" } else { "8" };
            rows.push(EvalResult {
                item_id: format!("item-{row}"),
                row,
                benchmark: "ladder".to_owned(),
                subject: "arithmetic".to_owned(),
                level: 1 + u32::try_from(row).unwrap() / 5,
                eval_style: style.to_owned(),
                eval_mode: mode.to_owned(),
                sample,
                completion: format!("\\boxed{{{answer}}}"),
                num_tokens: 4,
                finish_reason: "stop".to_owned(),
                answer_status: "parsed".to_owned(),
                answer: Some(answer.to_owned()),
                gold: "7".to_owned(),
                verdict: if answer == "7" { "equal" } else { "different" }.to_owned(),
                grade_reason: "same_form".to_owned(),
                is_correct: answer == "7",
                is_worked: style == "worked",
            });
        }
    }
    rows
}

fn curriculum(outputs: &mut StageOutputs<'_>) {
    let kept = |row: u64, question: &str, label: &str| CurriculumRow {
        challenge_id: format!("001/curriculum/00/{row:05}"),
        row,
        question: question.to_owned(),
        pseudo_label: label.to_owned(),
        vote_share: 0.5,
        margin: 0.25,
        gate_version: 1,
    };
    let dropped = DroppedRow {
        challenge_id: "001/curriculum/00/00003".to_owned(),
        row: 3,
        question: None,
        drop_reason: "malformed".to_owned(),
        challenge_status: "no_boxed_answer".to_owned(),
        pseudo_label: None,
        vote_share: None,
        margin: None,
        gate_version: 1,
    };
    outputs.write_table(&[kept(0, "1+1", "2"), kept(1, "2*3", "6"), kept(2, "9-4", "4")]).unwrap();
    outputs.write_table(&[dropped]).unwrap();
}

fn metrics(phase: &str, step: u32, reward_mean: f64) -> TrainMetrics {
    TrainMetrics {
        iteration: 1,
        phase: phase.to_owned(),
        step,
        num_rollouts: 8,
        num_completion_tokens: 80,
        reward_mean,
        reward_std: 0.1,
        uncertainty_mean: None,
        repetition_mean: None,
        format_mean: 0.75,
        num_groups: 1,
        zero_variance_share: 0.0,
        loss: 0.0,
        surrogate_loss: 0.0,
        kl_reference: 0.01,
        kl_old: 0.0,
        entropy: 1.0,
        clip_low_share: 0.0,
        clip_high_share: 0.0,
        gradient_norm: 1.0,
        learning_rate: 1e-4,
        completion_length_mean: 10.0,
        completion_length_min: 1,
        completion_length_max: 20,
        truncated_share: 0.0,
        sampler_trainer_logprob_max: 0.0,
        sampler_trainer_logprob_mean: 0.0,
    }
}

/// What the label probe says of that curriculum, the truth of whose second question it does not know.
fn probe(outputs: &mut StageOutputs<'_>) {
    let check = |row: u64, question: &str, label: &str, verdict: &str| LabelCheck {
        challenge_id: format!("001/curriculum/00/{row:05}"),
        row,
        question: question.to_owned(),
        pseudo_label: label.to_owned(),
        vote_share: 0.5,
        truth_source: "human".to_owned(),
        truth: None,
        verdict: verdict.to_owned(),
        judge_reply: None,
    };
    let checks = [check(0, "1+1", "2", "equal"), check(1, "2*3", "6", "unknown"), check(2, "9-4", "4", "different")];
    outputs.write_table(&checks).unwrap();
}

/// A judge that was asked about every sampled answer and contradicts the grader on the first `num_contradicted` problems.
fn judgements(results: &[EvalResult], num_contradicted: u64) -> Vec<Judgement> {
    let word = |is_equal: bool| if is_equal { "equal" } else { "different" }.to_owned();
    results
        .iter()
        .filter(|row| row.eval_mode == "sampled")
        .map(|row| Judgement {
            item_id: row.item_id.clone(),
            row: row.row,
            benchmark: row.benchmark.clone(),
            eval_style: row.eval_style.clone(),
            eval_mode: row.eval_mode.clone(),
            sample: row.sample,
            gold: row.gold.clone(),
            answer: row.answer.clone(),
            verdict: row.verdict.clone(),
            judge_verdict: (row.row < 9).then(|| word(row.is_correct != (row.row < num_contradicted))),
            judge_reply: String::new(),
            judge_model: "judge-1".to_owned(),
        })
        .collect()
}

fn objects(run: &Path) -> Vec<Value> {
    read_run(run, &RunLayout::new(run), &[]).unwrap().iterations.iter().map(|iteration| json::object(iteration, 2)).collect()
}

#[test]
fn a_run_is_shown_as_far_as_it_has_come() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    assert_eq!(exit_of(&read_run(run, &RunLayout::new(run), &[]).unwrap_err()), StageExit::Input);

    let base: Vec<EvalResult> = eval_rows(3, "free").into_iter().chain(eval_rows(6, "worked")).collect();
    finish(run, Stage::Eval, 0, Phase::Eval, None, |outputs| outputs.write_table(&base).unwrap());
    let only_base = objects(run);
    assert_eq!(only_base.len(), 1);
    assert_eq!(only_base[0]["greedy"], 30.0);
    assert_eq!(only_base[0]["gain"], 0.0);
    assert_eq!(only_base[0]["gain_over_worked_greedy"], -30.0);
    assert_eq!(only_base[0]["worked_greedy"], 60.0);
    assert!(only_base[0]["label_accuracy"].is_null());
    // Keys bear the number of samples, two here.
    assert_eq!(
        (&only_base[0]["mean2"], &only_base[0]["maj2"], &only_base[0]["pass2"]),
        (&30.0.into(), &30.0.into(), &30.0.into())
    );
    assert_eq!((&only_base[0]["unparsed_greedy"], &only_base[0]["benchmarks"]), (&0.0.into(), &serde_json::json!([])));

    for step in 1..=2 {
        let row = [metrics("challenger", step, 0.1 * f64::from(step))];
        finish(run, Stage::GrpoStep, 1, Phase::Challenger, Some(step), |outputs| outputs.write_table(&row).unwrap());
    }
    finish(run, Stage::Filter, 1, Phase::Curriculum, None, curriculum);
    assert_eq!(objects(run)[1]["missing"], serde_json::json!(["eval", "label-probe", "solver step 1"]));
    assert!(objects(run)[1]["label_accuracy"].is_null());
    finish(run, Stage::LabelProbe, 1, Phase::Curriculum, None, probe);
    let row = [metrics("solver", 1, 0.5)];
    finish(run, Stage::GrpoStep, 1, Phase::Solver, Some(1), |outputs| outputs.write_table(&row).unwrap());
    let half = &objects(run)[1];
    assert_eq!(half["missing"], serde_json::json!(["eval", "solver step 2"]));
    assert!(half["greedy"].is_null());
    assert_eq!(
        (&half["num_kept"], &half["num_dropped"], &half["kept_share"]),
        (&Value::from(3), &Value::from(1), &Value::from(75.0))
    );
    assert_eq!(
        (&half["label_accuracy"], &half["num_labels_checked"], &half["num_labels_drawn"]),
        (&Value::from(50.0), &Value::from(2), &Value::from(3))
    );
    assert_eq!((&half["examples"][1]["is_true"], &half["examples"][2]["is_true"]), (&Value::Null, &Value::from(false)));
    assert_eq!((&half["drops"]["malformed"], &half["malformed"]["no_boxed_answer"]), (&Value::from(1), &Value::from(1)));
    assert_eq!((&half["challenger"]["reward_first"], &half["challenger"]["reward_last"]), (&Value::from(0.1), &Value::from(0.2)));

    let row = [metrics("solver", 2, 0.6)];
    finish(run, Stage::GrpoStep, 1, Phase::Solver, Some(2), |outputs| outputs.write_table(&row).unwrap());
    finish(run, Stage::Eval, 1, Phase::Eval, None, |outputs| outputs.write_table(&eval_rows(8, "free")).unwrap());
    let done = &objects(run)[1];
    assert_eq!(done["missing"], serde_json::json!([]));
    assert_eq!(
        (&done["greedy"], &done["gain"], &done["gain_over_worked_greedy"]),
        (&Value::from(80.0), &Value::from(50.0), &Value::from(20.0))
    );
    assert!(done["gain_low"].as_f64().unwrap() <= 50.0 && done["gain_high"].as_f64().unwrap() >= 50.0);
    let text = show::tables(&read_run(run, &RunLayout::new(run), &[]).unwrap(), &[]);
    for part in [
        "profile smoke, seed 7, with eval.bootstrap_resamples=50; eval.groups=[]",
        "| 0 (base)",
        "| 0, in steps",
        "50.0 [9.5, 90.5]",
        "0.500 -> 0.600",
        "1: 9-4 -> 4 (50 % of the votes, FALSE)",
        "of the +50.0 points of greedy gain at iteration 1, +30.0 are what the base gains by being made to work in steps, +20.0",
        "at iteration 1 only 50.0 % of 2 labels are true",
        "at iteration 1 2 of 3 kept labels were checked: 3 were drawn, of 1 the truth is not known",
    ] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

#[test]
fn both_figures_stand_where_a_judge_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let results = eval_rows(3, "free");
    finish(run, Stage::Eval, 0, Phase::Eval, None, |outputs| outputs.write_table(&results).unwrap());
    assert!(objects(run)[0]["judge"].is_null());
    assert!(!show::tables(&read_run(run, &RunLayout::new(run), &[]).unwrap(), &[]).contains("judge"));
    // Of the right answers it takes one for wrong; of the seven wrong ones it calls none right and leaves one open.
    let rows = judgements(&results, 1);
    finish(run, Stage::Judge, 0, Phase::Eval, None, |outputs| outputs.write_table(&rows).unwrap());
    let judge = &objects(run)[0]["judge"];
    assert_eq!((&judge["mean2"]["grader"]["value"], &judge["mean2"]["judge"]["value"]), (&Value::from(30.0), &Value::from(20.0)));
    assert_eq!(judge["greedy"]["grader"], judge["greedy"]["judge"]);
    assert_eq!(objects(run)[0]["mean2"], 30.0);
    let of = |verdict: &str| judge["by_grader_verdict"][verdict].clone();
    assert_eq!(of("equal"), serde_json::json!({"num_asked": 6, "num_judged": 6, "num_judged_equal": 4}));
    assert_eq!(of("different"), serde_json::json!({"num_asked": 14, "num_judged": 12, "num_judged_equal": 0}));
    let text = show::tables(&read_run(run, &RunLayout::new(run), &[]).unwrap(), &[]);
    for part in ["Graded again by a judge", "4 of 6", "0 of 12", "judge-1", "30.0 ["] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

#[test]
fn judgements_of_other_answers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let mut results = eval_rows(3, "free");
    finish(run, Stage::Judge, 0, Phase::Eval, None, |outputs| outputs.write_table(&judgements(&results, 0)).unwrap());
    results.iter_mut().for_each(|row| row.answer = Some("9".to_owned()));
    finish(run, Stage::Eval, 0, Phase::Eval, None, |outputs| outputs.write_table(&results).unwrap());
    let error = read_run(run, &RunLayout::new(run), &[]).unwrap_err();
    assert!(exit_of(&error) == StageExit::Input && error.to_string().contains("item-0"), "{error:#}");
}

#[test]
fn a_damaged_table_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    finish(run, Stage::Eval, 0, Phase::Eval, None, |outputs| outputs.write_table(&eval_rows(3, "free")).unwrap());
    let table = run.join("iter-000/eval/eval/eval_results-00000-of-00001.parquet");
    let mut bytes = std::fs::read(&table).unwrap();
    let middle = bytes.len() / 2;
    bytes.truncate(middle);
    std::fs::write(&table, bytes).unwrap();
    let error = read_run(run, &RunLayout::new(run), &[]).unwrap_err();
    assert_eq!(exit_of(&error), StageExit::Input);
    assert!(format!("{error:#}").contains("eval_results-00000-of-00001.parquet"), "{error:#}");
}

/// Problems 0 to 4 are of one benchmark with two subjects, 5 to 9 of another, of which the first answer cannot be read.
fn two_benchmarks(num_right: u64) -> Vec<EvalResult> {
    let mut rows = eval_rows(num_right, "free");
    for row in &mut rows {
        row.benchmark = if row.row < 5 { "sums" } else { "words" }.to_owned();
        row.subject = if row.row < 3 { "short" } else { "long" }.to_owned();
        if row.row == 5 && row.eval_mode == "greedy" {
            (row.answer, row.answer_status) = (None, "no_box".to_owned());
        }
    }
    rows
}

#[test]
fn benchmarks_and_averages_are_shown_and_an_incomplete_average_has_no_figure() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let groups =
        r#"eval.groups=[{ name = "both", members = ["words", "sums"] }, { name = "more", members = ["both", "proofs"] }]"#;
    let finish = |iteration, rows: &[EvalResult]| {
        finish_with(run, Stage::Eval, iteration, Phase::Eval, None, groups, |outputs| outputs.write_table(rows).unwrap());
    };
    finish(0, &two_benchmarks(3));
    finish(1, &two_benchmarks(6));
    let object = &objects(run)[1];
    let [sums, words] = [&object["benchmarks"][0], &object["benchmarks"][1]];
    assert_eq!((&sums["name"], &sums["num_items"], &sums["greedy"]), (&"sums".into(), &5.into(), &100.0.into()));
    assert_eq!((&words["name"], &words["greedy"], &words["gain"]), (&"words".into(), &20.0.into(), &20.0.into()));
    assert_eq!((&words["unparsed_greedy"], &words["unparsed_sampled"]), (&20.0.into(), &0.0.into()));
    assert_eq!(sums["by_subject"][0]["subject"], "short");
    assert_eq!((&words["by_level"][0]["level"], &words["by_level"][0]["num_items"]), (&2.into(), &5.into()));
    let [both, more] = [&object["averages"][0], &object["averages"][1]];
    assert_eq!((&both["greedy"], &both["missing"]), (&60.0.into(), &serde_json::json!([])));
    assert!((both["gain"].as_f64().unwrap() - 30.0).abs() < 1e-9);
    assert!(both["greedy_low"].as_f64().unwrap() < 60.0 && both["greedy_high"].as_f64().unwrap() > 60.0);
    assert!(more["greedy"].is_null() && more["gain"].is_null());
    assert_eq!(more["missing"], serde_json::json!(["proofs"]));
    let text = show::tables(&read_run(run, &RunLayout::new(run), &[]).unwrap(), &[]);
    for part in ["average both", "average more: incomplete without proofs", "| sums/short", "unread greedy", "pass@2"] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    let only_words = read_run(run, &RunLayout::new(run), &["words".to_owned()]).unwrap();
    assert_eq!(json::object(&only_words.iterations[0], 2)["num_items"], 5);
}
