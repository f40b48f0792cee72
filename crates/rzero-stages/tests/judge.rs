//! `judge` against a scripted server on loopback: roles, verdicts, retries, hostile replies, shards, and a server that is not there.

#![cfg(feature = "fetch")]
#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod support;

use rzero_io::layout::Shard;
use rzero_io::writer::{FooterMetadata, TableWriter};
use rzero_schema::ids::Place;
use rzero_schema::tables::{EvalItem, EvalResult, Judgement};
use rzero_schema::vocab::{Phase, Stage};
use rzero_stages::context::StageContext;
use rzero_stages::frame::run_stage;
use rzero_stages::inputs::StageInputs;
use std::collections::BTreeMap;
use support::server::{Answer, Request, Server, nobody};
use support::{Run, told};

const PLACE: Place = Place::new(1, Phase::Eval, 0);

fn item(row: u64) -> EvalItem {
    EvalItem {
        item_id: format!("item-{row}"),
        row,
        benchmark: "made-up".to_owned(),
        question: format!("What is problem {row} of twenty?"),
        options: if row == 1 { vec!["left".to_owned(), "right".to_owned()] } else { Vec::new() },
        answer: format!("10{row}"),
        subject: "sums".to_owned(),
        level: 1,
        source: "this test".to_owned(),
        license: String::new(),
        revision: String::new(),
        digest: String::new(),
    }
}

fn result(row: u64, verdict: &str) -> EvalResult {
    let answer = match verdict {
        "none" => None,
        "equal" => Some(format!("10{row}")),
        _ => Some(format!("{row}/7")),
    };
    let verdict = if verdict == "none" { "different" } else { verdict };
    EvalResult {
        item_id: format!("item-{row}"),
        row,
        benchmark: "made-up".to_owned(),
        subject: "sums".to_owned(),
        level: 1,
        eval_style: "free".to_owned(),
        eval_mode: "greedy".to_owned(),
        sample: 0,
        completion: "the whole completion, which the judge does not see".to_owned(),
        num_tokens: 1,
        finish_reason: "stop".to_owned(),
        answer_status: if answer.is_some() { "parsed" } else { "no_box" }.to_owned(),
        answer,
        gold: format!("10{row}"),
        verdict: verdict.to_owned(),
        grade_reason: "other_value".to_owned(),
        is_correct: verdict == "equal",
        is_worked: false,
    }
}

/// A run whose evaluation is played, one greedy answer to each problem.
fn evaluated(verdicts: &[&str]) -> Run {
    let run = Run::new();
    std::fs::write(run.folder.path().join("judge.jinja"), include_str!("../../../pipelines/prompts/judge.jinja")).unwrap();
    let items: Vec<EvalItem> = (0..verdicts.len() as u64).map(item).collect();
    let path = run.folder.path().join("ladder.parquet");
    let footer = FooterMetadata {
        stage: Stage::ImportBenchmark,
        place: PLACE,
        shard: Shard::WHOLE,
        seed: 1,
        profile_digest: String::new(),
    };
    let mut writer = TableWriter::create(&path, &footer).unwrap();
    writer.write(&items).unwrap();
    writer.finish().unwrap();
    // The order of the rows is that of the evaluation, and not the judge's.
    let mut results: Vec<EvalResult> = (0..).zip(verdicts).map(|(row, verdict)| result(row, verdict)).collect();
    results.reverse();
    let eval = StageContext::new(Stage::Eval, &run.args(PLACE, 0, 1), &[PLACE.phase]).unwrap();
    run_stage(&eval, StageInputs::new(&eval).with_file("items", &path), |_, outputs| outputs.write_table(&results)).unwrap();
    run
}

/// Runs the judge; the exit code stands first in what it told.
fn judge(run: &Run, endpoint: &str, flags: &str) -> String {
    let at = format!("--iteration 1 --project-root . --set judge.model=judge-1 --set judge.endpoint={endpoint} {flags}");
    told(&run.command_with(Stage::Judge, &at, &[("RZERO_JUDGE_KEY", "sk-secret")]))
}

fn judgements(run: &Run) -> Vec<Judgement> {
    run.open(Stage::Judge, PLACE).read::<Judgement>().unwrap()
}

/// The number of the problem that a request is about.
fn problem(request: &Request) -> u64 {
    let rest = request.prompt().split("What is problem ").nth(1).unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn every_reply_and_every_failure_has_its_row() {
    let mut verdicts = vec!["different"; 10];
    (verdicts[2], verdicts[8]) = ("unknown", "none");
    verdicts.extend(["equal"; 2]);
    let run = evaluated(&verdicts);
    let mut attempts: BTreeMap<u64, u32> = BTreeMap::new();
    let says = |text: &str| Answer::Says(text.to_owned());
    let server = Server::new(move |request| {
        let attempt = attempts.entry(problem(request)).or_default();
        *attempt += 1;
        match (problem(request), *attempt) {
            (0, _) => says("0/7 is 100 written otherwise.\n\nEQUAL\n"),
            (1, _) | (3, 2) | (4, 2) | (5, 2) => says("DIFFERENT"),
            (2, _) => says("I would say EQUAL, or perhaps not."),
            (3, _) => Answer::Raw("500 Internal Server Error", "", b"oh".to_vec()),
            (4, _) => Answer::Raw("429 Too Many Requests", "Retry-After: 0\r\n", Vec::new()),
            (5, _) => Answer::Silence,
            (6, _) => Answer::Cut,
            (7, _) => Answer::Raw("200 OK", "", b"{\"choices\": [}".to_vec()),
            (9, _) => Answer::Raw("200 OK", "", vec![b'['; 3 << 20]),
            (10, _) => Answer::Raw("400 Bad Request", "", b"sk-secret asks too much".to_vec()),
            _ => says("EQUAL"),
        }
    });
    let output = judge(&run, &server.endpoint, "--set judge.num_parallel=8 --set judge.equal_share=1");
    assert!(output.starts_with("exit 0\n") && output.contains("5 of 11 answers have no verdict of the judge"), "{output}");

    let rows = judgements(&run);
    assert_eq!(rows.iter().map(|row| row.row).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11]);
    let of: BTreeMap<u64, (Option<&str>, &str)> =
        rows.iter().map(|row| (row.row, (row.judge_verdict.as_deref(), row.judge_reply.as_str()))).collect();
    assert_eq!(of[&0], (Some("equal"), "0/7 is 100 written otherwise.\n\nEQUAL\n"));
    for row in [1, 3, 4, 5] {
        assert_eq!(of[&row], (Some("different"), "DIFFERENT"));
    }
    assert_eq!(of[&2], (None, "I would say EQUAL, or perhaps not."));
    assert!(of[&6].0.is_none() && of[&6].1.ends_with(", 3 times"), "{:?}", of[&6]);
    assert_eq!(of[&7], (None, "the reply is no JSON"));
    assert!(of[&9].0.is_none() && of[&9].1.contains("longer than 1048576 bytes"), "{:?}", of[&9]);
    assert_eq!(of[&10], (None, "status 400: (key) asks too much"));
    assert_eq!(of[&11].0, Some("equal"));
    assert!(rows.iter().all(|row| row.judge_model == "judge-1" && row.gold == format!("10{}", row.row)));
    assert_eq!((rows[2].verdict.as_str(), rows[2].answer.as_deref()), ("unknown", Some("2/7")));

    let manifest = &run.open(Stage::Judge, PLACE).manifests()[0].clone();
    for (name, count) in [
        ("asked_different", 8),
        ("asked_unknown", 1),
        ("asked_equal", 2),
        ("not_asked_no_answer", 1),
        ("judge_equal", 2),
        ("judge_different", 4),
        ("judge_unreadable", 1),
        ("judge_failed", 4),
    ] {
        assert_eq!(manifest.counts.get(name), Some(&count), "{name} of {:?}", manifest.counts);
    }

    let asked = server.asked();
    assert!(asked.iter().all(|request| request.path == "/v1/chat/completions"));
    assert!(asked.iter().all(|request| request.authorization.as_deref() == Some("Bearer sk-secret")));
    let times = |row: u64| asked.iter().filter(|request| problem(request) == row).count();
    assert_eq!([0, 2, 3, 4, 5, 6, 7, 10].map(times), [1, 1, 2, 2, 2, 3, 1, 1]);
    let first = &asked.iter().find(|request| problem(request) == 1).unwrap();
    assert_eq!(
        (&first.body["temperature"], &first.body["max_tokens"], &first.body["model"]),
        (&0.into(), &64.into(), &"judge-1".into())
    );
    for part in [
        "<problem>\nWhat is problem 1 of twenty?\n(A) left\n(B) right\n</problem>",
        "<reference>\n101\n</reference>",
        "<candidate>\n1/7\n</candidate>",
    ] {
        assert!(first.prompt().contains(part), "`{part}` is not in:\n{}", first.prompt());
    }
    assert!(!first.prompt().contains("completion"));
}

#[test]
fn rows_do_not_depend_on_shards_and_what_is_done_is_not_asked_again() {
    let verdicts = ["different", "equal", "equal", "unknown", "equal", "equal", "equal", "equal", "none", "equal", "equal"];
    let server =
        Server::new(|request| Answer::Says(if problem(request).is_multiple_of(2) { "EQUAL" } else { "DIFFERENT" }.to_owned()));
    let whole = evaluated(&verdicts);
    assert!(judge(&whole, &server.endpoint, "").starts_with("exit 0\n"));
    let expected = judgements(&whole);
    let num_equal = expected.iter().filter(|row| row.verdict == "equal").count();
    assert!((1..8).contains(&num_equal), "half of eight were to be drawn, and {num_equal} were");
    assert_eq!(server.asked().len(), expected.len());

    let cut = evaluated(&verdicts);
    for index in 0..3 {
        let output = judge(&cut, &server.endpoint, &format!("--num-shards 3 --shard-index {index} --set judge.num_parallel=1"));
        assert!(output.starts_with("exit 0\n"), "{output}");
    }
    assert_eq!(judgements(&cut), expected);
    server.asked();

    // The same judge at another address is the same judge; another share is another question.
    let again = judge(&whole, &nobody(), "");
    assert!(again.starts_with("exit 0\n") && again.contains("already complete"), "{again}");
    let other = judge(&whole, &server.endpoint, "--set judge.equal_share=0");
    assert!(other.starts_with("exit 4\n"), "{other}");
    assert!(judge(&whole, &server.endpoint, "--set judge.equal_share=0 --overwrite").starts_with("exit 0\n"));
    assert_eq!(judgements(&whole).iter().map(|row| row.row).collect::<Vec<_>>(), [0, 3]);
}

#[test]
fn a_judge_that_cannot_serve_stops_the_stage_with_what_to_do() {
    let run = evaluated(&["different", "different"]);
    let refusing = |status: &'static str| Server::new(move |_| Answer::Raw(status, "", b"sk-secret is not known".to_vec()));
    let (unauthorized, absent) = (refusing("401 Unauthorized"), refusing("404 Not Found"));
    let moved = Server::new(|_| Answer::Raw("302 Found", "Location: http://127.0.0.1:9/\r\n", Vec::new()));
    for (endpoint, exit, expected) in [
        (nobody(), "exit 1\n", "no judge can be reached at"),
        (unauthorized.endpoint.clone(), "exit 2\n", "RZERO_JUDGE_KEY"),
        (absent.endpoint.clone(), "exit 2\n", "judge.endpoint"),
        (moved.endpoint.clone(), "exit 2\n", "status 302"),
        (String::new(), "exit 2\n", "judge.endpoint is empty"),
        ("localhost:8000".to_owned(), "exit 2\n", "no address"),
    ] {
        let output = judge(&run, &endpoint, "");
        assert!(output.starts_with(exit) && output.contains(expected) && output.contains("hint:"), "{endpoint}: {output}");
        assert!(!output.contains("sk-secret"), "{output}");
    }
    let nameless = judge(&run, &absent.endpoint, "--set judge.model=");
    assert!(nameless.starts_with("exit 2\n") && nameless.contains("judge.model is empty"), "{nameless}");
    assert!(!run.layout.manifest(Stage::Judge, PLACE, Shard::WHOLE).exists());

    // Other problems than those that were evaluated.
    std::fs::write(run.folder.path().join("ladder.parquet"), "other").unwrap();
    let server = Server::new(|_| Answer::Says("EQUAL".to_owned()));
    let output = judge(&run, &server.endpoint, "");
    assert!(output.starts_with("exit 3\n") && output.contains("not the set of problems"), "{output}");
    assert!(server.asked().is_empty());
}
