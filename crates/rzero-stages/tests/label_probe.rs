//! `label-probe` on small curricula: exact, filled by people, solved by a judge; the stop rule; what is typed and filled wrong.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod support;

use rzero_io::layout::Shard;
use rzero_schema::tables::{CurriculumRow, LabelCheck};
use rzero_schema::vocab::Stage;
use rzero_stages::context::StageContext;
use rzero_stages::frame::run_stage;
use rzero_stages::inputs::StageInputs;
use std::fs;
use support::{CURRICULUM, Run, told};

/// Two labels that are true, one that is false, and a story that the evaluator does not understand.
const KEPT: [(&str, &str); 4] =
    [("2+3", "5"), ("2*3", "5"), ("Tom has 3 apples and eats one. How many are left?", "2"), ("9-4", "5")];

/// A run whose filter is played.
fn filtered(kept: &[(&str, &str)]) -> Run {
    let run = Run::new();
    fs::write(run.folder.path().join("judge-label.jinja"), include_str!("../../../pipelines/prompts/judge-label.jinja")).unwrap();
    let rows: Vec<CurriculumRow> = (0..)
        .zip(kept)
        .map(|(row, (question, label))| CurriculumRow {
            challenge_id: CURRICULUM.challenge_id(row).to_string(),
            row,
            question: (*question).to_owned(),
            pseudo_label: (*label).to_owned(),
            vote_share: 0.5,
            margin: 0.25,
            gate_version: 3,
        })
        .collect();
    let filter = StageContext::new(Stage::Filter, &run.args(CURRICULUM, 0, 1), &[CURRICULUM.phase]).unwrap();
    run_stage(&filter, StageInputs::new(&filter), |_, outputs| outputs.write_table(&rows)).unwrap();
    run
}

fn probe(run: &Run, flags: &str) -> String {
    told(&run.command(Stage::LabelProbe, &format!("--iteration 1 --project-root . {flags}")))
}

fn checks(run: &Run) -> Vec<LabelCheck> {
    run.open(Stage::LabelProbe, CURRICULUM).read::<LabelCheck>().unwrap()
}

fn verdicts(run: &Run) -> Vec<String> {
    checks(run).into_iter().map(|check| check.verdict).collect()
}

#[test]
fn the_evaluator_checks_what_it_can_and_counts_the_rest() {
    let run = filtered(&KEPT);
    let output = probe(&run, "");
    assert!(output.starts_with("exit 0\n"), "{output}");
    assert!(output.contains("\nlabels: 67 % true [21, 94] of 3 checked (1 of 4 cannot be checked)\n"), "{output}");
    let rows = checks(&run);
    assert_eq!(verdicts(&run), ["equal", "different", "unknown", "equal"]);
    assert_eq!(rows.iter().map(|row| row.truth.as_deref()).collect::<Vec<_>>(), [Some("5"), Some("6"), None, Some("5")]);
    assert!(rows.iter().all(|row| row.truth_source == "exact" && row.judge_reply.is_none()));
    let manifest = run.open(Stage::LabelProbe, CURRICULUM).manifests()[0].clone();
    assert_eq!((manifest.counts["unknown"], manifest.counts["unknown_no_exact_answer"]), (1, 1));
    let metric = |name: &str| manifest.metrics[name];
    assert_eq!([metric("sample_size"), metric("num_checked"), metric("num_unchecked")], [4.0, 3.0, 1.0]);
    assert!((metric("label_share") - 2.0 / 3.0).abs() < 1e-12 && metric("label_low") < 0.21 && metric("label_high") > 0.93);

    let again = probe(&run, "");
    assert!(again.starts_with("exit 0\n") && again.contains("already complete") && !again.contains("labels:"), "{again}");
}

#[test]
fn nothing_to_check_stops_nothing() {
    for kept in [&KEPT[2..3], &[]] {
        let run = filtered(kept);
        let output = probe(&run, "--set probe.floor=0.9");
        assert!(output.starts_with("exit 0\n") && output.contains(&format!("none of {} can be checked", kept.len())), "{output}");
        assert!(!run.open(Stage::LabelProbe, CURRICULUM).manifests()[0].metrics.contains_key("label_share"));
    }
}

#[test]
fn a_sample_is_drawn_by_the_seed_and_stands_in_the_order_of_the_curriculum() {
    let questions: Vec<String> = (0..40).map(|row| format!("{row}+1")).collect();
    let kept: Vec<(&str, &str)> = questions.iter().map(|question| (question.as_str(), "7")).collect();
    let drawn = |flags: &str| {
        let run = filtered(&kept);
        assert!(probe(&run, flags).starts_with("exit 0\n"));
        let part = run.open(Stage::LabelProbe, CURRICULUM).parts::<LabelCheck>().unwrap().remove(0);
        (checks(&run).iter().map(|check| check.row).collect::<Vec<_>>(), fs::read(part).unwrap())
    };
    let (ten, bytes) = drawn("--set probe.sample_size=10");
    assert_eq!(drawn("--set probe.sample_size=10"), (ten.clone(), bytes));
    assert!(ten.len() == 10 && ten.is_sorted() && ten != (0..10).collect::<Vec<_>>(), "{ten:?}");
    // More of them are these and others.
    let (twenty, _) = drawn("--set probe.sample_size=20");
    assert!(twenty.len() == 20 && ten.iter().all(|row| twenty.contains(row)), "{twenty:?}");

    let run = filtered(&kept);
    assert!(probe(&run, "--set probe.sample_size=10").starts_with("exit 0\n"));
    assert!(probe(&run, "--set probe.sample_size=20").starts_with("exit 4\n"));
}

#[test]
fn labels_that_are_too_often_false_stop_the_loop_until_the_floor_is_lower() {
    let run = filtered(&KEPT);
    let stopped = probe(&run, "--set probe.floor=0.5");
    assert!(stopped.starts_with("exit 5\n"), "{stopped}");
    for part in ["too often false", "20.8 %", "50.0 %", "hint: a lower probe.floor"] {
        assert!(stopped.contains(part), "{stopped}");
    }
    let part = run.open(Stage::LabelProbe, CURRICULUM).parts::<LabelCheck>().unwrap().remove(0);
    let written = fs::metadata(&part).unwrap().modified().unwrap();
    let again = probe(&run, "--set probe.floor=0.5");
    assert!(again.starts_with("exit 5\n") && again.contains("already complete"), "{again}");
    // The floor decides no row: the evidence is the same, and so is the run.
    let lower = probe(&run, "--set probe.floor=0.2");
    assert!(lower.starts_with("exit 0\n") && lower.contains("already complete"), "{lower}");
    assert_eq!(fs::metadata(&part).unwrap().modified().unwrap(), written);
}

#[test]
fn people_fill_a_form_that_is_read_back() {
    let run = filtered(&KEPT);
    let form = run.layout.truths_form(1);
    let human = "--set probe.truth=human";
    let waits = probe(&run, human);
    assert!(waits.starts_with("exit 3\n") && waits.contains("4 questions stand in") && waits.contains("truths.csv"), "{waits}");
    let empty = fs::read_to_string(&form).unwrap();
    assert!(empty.starts_with("challenge_id,question,pseudo_label,truth\n001/curriculum/00/00000,2+3,5,\n"), "{empty}");
    let waits = probe(&run, human);
    assert!(waits.starts_with("exit 3\n") && waits.contains("no truth is filled yet"), "{waits}");
    assert_eq!(fs::read_to_string(&form).unwrap(), empty);

    // As spreadsheets save it: quoted, with other line ends; one row is taken out, one left open.
    let filled = "\u{feff}challenge_id,question,pseudo_label,truth\r\n\"001/curriculum/00/00003\",9-4,5,5.0\r\n\
                  001/curriculum/00/00001,2*3,5,6\r\n001/curriculum/00/00000,2+3,5,\r\n";
    fs::write(&form, filled).unwrap();
    let output = probe(&run, human);
    assert!(output.starts_with("exit 0\n") && output.contains("of 2 checked (2 of 4 cannot be checked)"), "{output}");
    assert_eq!(verdicts(&run), ["unknown", "different", "unknown", "equal"]);
    assert_eq!(run.open(Stage::LabelProbe, CURRICULUM).manifests()[0].counts["unknown_not_filled"], 2);
    // A form that was filled further is another input.
    fs::write(&form, filled.replace("2+3,5,", "2+3,5,5")).unwrap();
    assert!(probe(&run, human).starts_with("exit 4\n"));
    assert!(probe(&run, &format!("{human} --overwrite")).starts_with("exit 0\n"));
    assert_eq!(verdicts(&run), ["equal", "different", "unknown", "equal"]);
}

#[test]
fn a_form_of_ones_own_is_exported_once_and_bad_rows_are_named() {
    let run = filtered(&KEPT);
    let human = "--set probe.truth=human";
    let exported = probe(&run, &format!("{human} --export mine.csv"));
    assert!(exported.starts_with("exit 0\n") && exported.contains("mine.csv"), "{exported}");
    let again = probe(&run, &format!("{human} --export mine.csv"));
    assert!(again.starts_with("exit 4\n"), "{again}");
    let form = run.folder.path().join("mine.csv");
    let header = "challenge_id,question,pseudo_label,truth\n001/curriculum/00/00000,2+3,5,5\n";
    let long = "7".repeat(1001);
    for (text, expected) in [
        (format!("{header}001/curriculum/00/00009,9-4,5,5\n"), "line 3: question `001/curriculum/00/00009` is none of the 4"),
        (
            format!("{header}001/curriculum/00/00000,2+3,5,5\n"),
            "line 3: question `001/curriculum/00/00000` stands in line 2 already",
        ),
        (format!("{header}001/curriculum/00/00001,2*4,5,8\n"), "line 3: `2*4` is not the question with this id"),
        (format!("{header}001/curriculum/00/00001,2*3\n"), "line: 3"),
        (format!("{header}001/curriculum/00/00001,2*3,5,{long}\n"), "line 3: the truth is longer"),
        (header.replace(",truth", ",true"), "line 1 has no column `truth`"),
        (header.replace(',', ";"), "line 1 has no column `challenge_id`"),
        (String::new(), "line 1 has no column"),
    ] {
        fs::write(&form, &text).unwrap();
        let output = probe(&run, &format!("{human} --truths mine.csv"));
        assert!(output.starts_with("exit 3\n") && output.contains("mine.csv") && output.contains(expected), "{text}: {output}");
    }
    fs::write(&form, [header.as_bytes(), b"\xff,\xfe,5,5\n"].concat()).unwrap();
    let output = probe(&run, &format!("{human} --truths mine.csv"));
    assert!(output.starts_with("exit 3\n") && output.contains("UTF-8"), "{output}");
    assert!(!run.layout.manifest(Stage::LabelProbe, CURRICULUM, Shard::WHOLE).exists());
}

#[test]
fn what_is_typed_wrong_is_told() {
    let run = filtered(&KEPT);
    for (flags, expected) in [
        ("--set probe.sample_size=0", "probe.sample_size is 0"),
        ("--truths mine.csv", "a form has no use where probe.truth is exact"),
        ("--set probe.truth=oracle", "oracle"),
        ("--set probe.floor=1", "probe.floor"),
        ("--num-shards 2", "works on all rows at once"),
        ("--set probe.truth=human --export a.csv --truths b.csv", "cannot be used with"),
        ("--set probe.truth=judge", if cfg!(feature = "fetch") { "judge.endpoint is empty" } else { "cannot ask a judge" }),
    ] {
        let output = probe(&run, flags);
        assert!(output.starts_with("exit 2\n") && output.contains(expected), "{flags}: {output}");
    }
    let plan = probe(&run, "--set probe.truth=human --dry-run");
    assert!(plan.starts_with("exit 0\n") && plan.contains("would refuse (exit 3)"), "{plan}");
    assert!(!run.layout.truths_form(1).exists());
}

#[cfg(feature = "fetch")]
#[test]
fn a_judge_solves_the_questions_without_seeing_the_labels() {
    use support::server::{Answer, Server, nobody};
    let run = filtered(&[("2+3", "5"), ("Tom's riddle", "41"), ("The third", "8"), ("The fourth", "9")]);
    let server = Server::new(|request| {
        let answers = [("2+3", r"It is \boxed{5}."), ("Tom's", r"First \boxed{1}, no: \boxed{42}"), ("third", "I cannot say.")];
        match answers.iter().find(|(part, _)| request.prompt().contains(part)) {
            Some((_, text)) => Answer::Says((*text).to_owned()),
            None => Answer::Raw("422 Unprocessable", "", b"too odd".to_vec()),
        }
    });
    let flags = |endpoint: &str| format!("--set probe.truth=judge --set judge.model=judge-1 --set judge.endpoint={endpoint}");
    let refused = probe(&run, &flags(&nobody()));
    assert!(refused.starts_with("exit 1\n") && refused.contains("no judge can be reached"), "{refused}");
    let output = probe(&run, &flags(&server.endpoint));
    assert!(output.starts_with("exit 0\n") && output.contains("50 % true [9, 91] of 2 checked (2 of 4"), "{output}");
    let rows = checks(&run);
    assert_eq!(verdicts(&run), ["equal", "different", "unknown", "unknown"]);
    assert_eq!((rows[1].truth.as_deref(), rows[2].judge_reply.as_deref()), (Some("42"), Some("I cannot say.")));
    assert_eq!(rows[3].judge_reply.as_deref(), Some("status 422: too odd"));
    let manifest = run.open(Stage::LabelProbe, CURRICULUM).manifests()[0].clone();
    assert_eq!((manifest.counts["unknown_judge_unreadable"], manifest.counts["unknown_judge_failed"]), (1, 1));
    assert!(server.asked().iter().all(|request| !request.prompt().contains("41") && request.path == "/v1/chat/completions"));
}
