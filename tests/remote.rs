//! Completions by a server, here a scripted one on loopback: the rows that the engine's would be like, whatever the server does on the way.

#[path = "../crates/rzero-stages/tests/support/server.rs"]
#[allow(dead_code, reason = "each test file uses its own part")]
mod server;

use crate::just::just;
use rzero_io::layout::{RunLayout, Shard};
use rzero_io::manifest::read_manifest;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::tables::{Rollout, TrainMetrics};
use rzero_schema::vocab::{Phase, Stage};
use serde_json::{Value, json};
use server::{Answer, Request, Server, nobody};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const STEP: Place = Place::new(1, Phase::Challenger, 1);

/// What the stand-in writes: it follows from the prompt and the seed alone.
fn text(request: &Request) -> String {
    let seed = request.body["seed"].as_u64().unwrap();
    let (a, b) = (1 + seed % 9, 1 + seed / 9 % 9);
    if request.body["prompt"].as_str().unwrap().contains("<challenger>") {
        format!("<question>{a}*{b}+{}</question>\\boxed{{{}}}", a + 1, a * b + a + 1)
    } else {
        format!("\\boxed{{{}}}", 10 + seed % 3)
    }
}

/// A whole reply; with log-probabilities where the test wants them.
fn completes(request: &Request, has_logprobs: bool) -> Value {
    let text = text(request);
    let mut choice = json!({ "index": 0, "text": text, "finish_reason": "stop" });
    if has_logprobs {
        let tokens = tokens_of(&text);
        choice["logprobs"] = json!({ "tokens": tokens, "token_logprobs": vec![-1.25; tokens.len()] });
    }
    json!({ "choices": [choice] })
}

/// The embedded model's tokens: its tags and boxes are one each, all else is a character.
fn tokens_of(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let tag = ["<question>", "</question>", "\\boxed{"].into_iter().find(|tag| rest.starts_with(tag));
        let length = tag.map_or(first.len_utf8(), str::len);
        tokens.push(rest[..length].to_owned());
        rest = &rest[length..];
    }
    tokens
}

fn says(value: Value) -> Answer {
    Answer::Raw("200 OK", "Content-Type: application/json\r\n", value.to_string().into_bytes())
}

/// A recipe of the first Challenger step against a server; its exit code and what it printed.
fn recipe(run: &Path, url: &str, concurrency: u32, recipe: &[&str]) -> (Option<i32>, String) {
    let mut command = just();
    command.env("RZERO_CONCURRENCY", concurrency.to_string()).env("RZERO_REQUEST_TIMEOUT", "1").env("RUST_LOG", "info");
    command.args(["profile=smoke", "backend=openai", "model=tiny", &format!("url={url}"), &format!("run={}", run.display())]);
    let output = command.args(recipe).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

const WRITE: [&str; 4] = ["challenge-gen", "1", "challenger", "1"];

fn rollouts(run: &Path) -> Vec<Rollout> {
    StageOutput::open(&RunLayout::new(run), Stage::ChallengeGen, STEP).unwrap().read::<Rollout>().unwrap()
}

#[test]
fn a_step_by_a_server_ends_in_the_same_tables_with_and_without_its_logprobs() {
    for has_logprobs in [true, false] {
        let server = Server::new(move |request| says(completes(request, has_logprobs)));
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        for stage in ["challenge-gen", "solve-sample", "vote-label", "grpo-step"] {
            let (code, told) = recipe(&run, &server.endpoint, 8, &[stage, "1", "challenger", "1"]);
            assert_eq!(code, Some(0), "{stage}: {told}");
        }
        let asked = server.asked();
        assert!(asked.iter().all(|request| request.path == "/v1/completions" && request.body["model"] == "tiny"), "{asked:?}");
        let seeds: std::collections::BTreeSet<u64> = asked.iter().map(|request| request.body["seed"].as_u64().unwrap()).collect();
        assert_eq!(seeds.len(), asked.len(), "every completion has a seed of its own");
        for rollout in rollouts(&run) {
            assert_eq!(rollout.completion_tokens.last(), Some(&2), "the stop token is a part of the completion");
            let known = if has_logprobs { rollout.completion_tokens.len() - 1 } else { 0 };
            assert_eq!(rollout.policy_logprobs, vec![-1.25; known]);
        }
        let layout = RunLayout::new(&run);
        let output = StageOutput::open(&layout, Stage::GrpoStep, STEP).unwrap();
        let metrics = &output.read::<TrainMetrics>().unwrap()[0];
        // What the trainer computes itself cannot differ from it; what the server made up does.
        assert_eq!(metrics.sampler_trainer_logprob_mean > 0.01, has_logprobs, "{metrics:?}");
        let manifest = read_manifest(&layout.manifest(Stage::GrpoStep, STEP, Shard::WHOLE)).unwrap();
        assert_eq!(manifest.counts["rollouts_without_all_logprobs"], u64::from(metrics.num_rollouts));
        let manifest = read_manifest(&layout.manifest(Stage::ChallengeGen, STEP, Shard::WHOLE)).unwrap();
        assert_eq!((manifest.digests["backend"].as_str(), manifest.digests["backend.model"].as_str()), ("openai", "tiny"));
        let left: Vec<_> = std::fs::read_dir(layout.stage_folder(Stage::ChallengeGen, STEP))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("requests-"))
            .collect();
        assert!(left.is_empty(), "the journal goes with the manifest: {left:?}");
    }
}

#[test]
fn rows_do_not_depend_on_requests_at_a_time_or_on_what_goes_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let calm = Server::new(|request| says(completes(request, true)));
    let (code, told) = recipe(&folder.path().join("calm"), &calm.endpoint, 1, &WRITE);
    assert_eq!(code, Some(0), "{told}");
    // Every request fails once or twice, each time in another way, before it is answered.
    let seen = Mutex::new(std::collections::BTreeMap::<u64, usize>::new());
    let wild = Server::new(move |request| {
        let seed = request.body["seed"].as_u64().unwrap();
        let mut seen = seen.lock().unwrap();
        let times = seen.entry(seed).or_default();
        *times += 1;
        if *times > 1 + (seed % 2) as usize {
            return says(completes(request, true));
        }
        match (seed as usize + *times) % 8 {
            0 => Answer::Raw("500 Internal Server Error", "", b"out of memory".to_vec()),
            1 => Answer::Raw("429 Too Many Requests", "Retry-After: 0\r\n", Vec::new()),
            2 => Answer::Cut,
            3 => Answer::Raw("200 OK", "", b"<html>a proxy's page</html>".to_vec()),
            4 => says(json!({ "choices": [] })),
            5 => says(json!({ "choices": [{ "text": "half", "finish_reason": null }] })),
            6 => says(json!({ "choices": [{ "text": 7, "finish_reason": "stop" }] })),
            _ => Answer::Raw("503 Service Unavailable", "Retry-After: 0\r\n", b"loading".to_vec()),
        }
    });
    let (code, told) = recipe(&folder.path().join("wild"), &wild.endpoint, 8, &WRITE);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(rollouts(&folder.path().join("wild")), rollouts(&folder.path().join("calm")));
}

#[test]
fn a_stage_that_ends_early_asks_only_for_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let answered = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answered);
    // Five answers, then a server that is too busy for ever.
    let server = Server::new(move |request| {
        if count.fetch_add(1, Ordering::Relaxed) < 5 {
            return says(completes(request, false));
        }
        Answer::Raw("503 Service Unavailable", "Retry-After: 0\r\n", Vec::new())
    });
    let (code, told) = recipe(&run, &server.endpoint, 1, &WRITE);
    assert!(code == Some(75) && told.contains("asks only for the rest"), "{told}");
    let journal = RunLayout::new(&run).journal(Stage::ChallengeGen, STEP, Shard::WHOLE);
    let mut bytes = std::fs::read(&journal).unwrap();
    assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 5);
    // The last line is cut short, as a full disk or a kill leaves it.
    bytes.truncate(bytes.len() - 20);
    std::fs::write(&journal, bytes).unwrap();
    let server = Server::new(|request| says(completes(request, false)));
    let (code, told) = recipe(&run, &server.endpoint, 4, &WRITE);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(server.asked().len(), rollouts(&run).len() - 4);
    assert!(!journal.exists());
}

#[test]
fn a_server_that_is_not_there_or_serves_something_else_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let told = |url: &str, code: i32, word: &str| {
        let (found, text) = recipe(&run, url, 2, &WRITE);
        assert!(found == Some(code) && text.contains(word), "exit {found:?}: {text}");
        assert!(!text.contains("panicked"), "{text}");
    };
    told("", 2, "--url");
    told("ftp://x", 2, "http://");
    told(&nobody(), 75, "no server can be reached");
    let other = Server::new(|request| {
        let mut value = completes(request, false);
        value["usage"] = json!({ "prompt_tokens": 99 });
        says(value)
    });
    told(&other.endpoint, 2, "serves another model");
    let forbidding = Server::new(|_| Answer::Raw("401 Unauthorized", "", Vec::new()));
    told(&forbidding.endpoint, 2, "RZERO_SERVER_KEY");
    let unknown = Server::new(|_| Answer::Raw("404 Not Found", "", b"no such model".to_vec()));
    told(&unknown.endpoint, 2, "--served-model");
}

#[test]
fn hostile_texts_become_rows_that_say_what_they_are() {
    let texts = [
        String::new(),
        "<eos><bos><challenger>".to_owned(),
        "z".repeat(100_000),
        "\u{fffd}\u{0}<question>".to_owned(),
        "<question>1+1</question><eos>and on".to_owned(),
    ];
    let server = Server::new(move |request| {
        let seed = request.body["seed"].as_u64().unwrap() as usize;
        says(
            json!({ "choices": [{ "text": texts[seed % texts.len()], "finish_reason": "stop", "logprobs": { "tokens": ["a"], "token_logprobs": [null] } }] }),
        )
    });
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let (code, told) = recipe(&run, &server.endpoint, 4, &WRITE);
    assert_eq!(code, Some(0), "{told}");
    for rollout in rollouts(&run) {
        assert!(rollout.completion_tokens.len() <= 256 && rollout.policy_logprobs.is_empty());
        // Nothing stands behind a stop token.
        let stops = rollout.completion_tokens.iter().filter(|token| **token == 2).count();
        assert!(stops <= 1 && (stops == 0 || rollout.completion_tokens.last() == Some(&2)), "{rollout:?}");
    }
}
