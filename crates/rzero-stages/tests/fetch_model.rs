//! `fetch-model` against a stand-in for the hub on loopback: whole, cut short, damaged, hostile.

#![cfg(feature = "fetch")]
#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

#[path = "support/hub.rs"]
mod hub;

use hub::{COMMIT, Served, listing, names, sha256, told};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

fn serve() -> Served {
    Served::new([
        ("config.json", b"{\"a\": 1}".to_vec()),
        ("tokenizer.json", b"{}".to_vec()),
        ("chat_template.jinja", b"{{ messages }}".to_vec()),
        ("README.md", b"not wanted".to_vec()),
        ("model.safetensors", (0..400_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect()),
    ])
}

impl Served {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_fetch-model"));
        command.args(["--repository", "owner/name", "--output"]).arg(self.output()).args(arguments);
        command
    }

    fn fetch(&self, arguments: &[&str]) -> (Option<i32>, String) {
        told(self.command(arguments))
    }

    fn output(&self) -> std::path::PathBuf {
        self.folder.path().join("models/name")
    }

    fn names(&self) -> Vec<String> {
        names(&self.output())
    }
}

#[test]
fn a_model_comes_whole_with_its_source_and_is_not_fetched_twice() {
    let served = serve();
    served.change(|hub| hub.is_redirecting = true);
    let (code, told) = served.fetch(&["--revision", "main"]);
    assert_eq!(code, Some(0), "{told}");
    let wanted = ["chat_template.jinja", "config.json", "model.safetensors", "source.json", "tokenizer.json"];
    assert_eq!(served.names(), wanted);
    let weights = served.hub.lock().unwrap().files["model.safetensors"].clone();
    assert!(std::fs::read(served.output().join("model.safetensors")).unwrap() == weights);
    let source: Value = serde_json::from_slice(&std::fs::read(served.output().join("source.json")).unwrap()).unwrap();
    assert_eq!((&source["commit"], &source["revision"]), (&json!(COMMIT), &json!("main")));
    let file = source["files"].as_array().unwrap().iter().find(|file| file["name"] == "model.safetensors").unwrap();
    assert_eq!((&file["sha256"], &file["is_digest_announced"]), (&json!(sha256(&weights)), &json!(true)));
    let asked = served.asked();
    assert!(
        asked[0].starts_with("/api/models/owner/name/revision/main?blobs=true") && asked[0].ends_with("with token"),
        "{asked:?}"
    );
    assert!(asked.iter().any(|line| line.starts_with("/elsewhere/model.safetensors from 0")), "{asked:?}");
    assert!(asked.iter().all(|line| !line.contains("README") && !line.contains("/resolve/main/")), "{asked:?}");

    // A branch is asked for its commit, a commit is not asked for.
    assert_eq!(served.fetch(&["--revision", "main"]).0, Some(0));
    assert_eq!(served.asked().len(), 1);
    assert_eq!(served.fetch(&["--revision", COMMIT]).0, Some(0));
    assert!(served.asked().is_empty());

    // A file that was lost is mended; another commit is refused and, as asked, replaces the whole.
    std::fs::remove_file(served.output().join("tokenizer.json")).unwrap();
    assert_eq!(served.fetch(&["--revision", COMMIT]).0, Some(0));
    assert_eq!(served.names(), wanted);
    let next = COMMIT.replace('0', "9");
    served.change(|hub| {
        let weights = hub.files.remove("model.safetensors").unwrap();
        hub.files.insert("weights.safetensors".to_owned(), weights);
        let mut changed = listing(hub);
        changed["sha"] = json!(next);
        hub.listing = Some(changed);
    });
    let (code, told) = served.fetch(&["--revision", "main"]);
    assert!(code == Some(4) && told.contains("--overwrite"), "{told}");
    assert_eq!(served.names(), wanted);
    assert_eq!(served.fetch(&["--revision", "main", "--overwrite"]).0, Some(0));
    assert_eq!(served.names(), ["chat_template.jinja", "config.json", "source.json", "tokenizer.json", "weights.safetensors"]);
}

#[test]
fn a_transfer_that_breaks_off_goes_on_where_it_stopped() {
    let served = serve();
    served.change(|hub| hub.cuts = 2);
    assert_eq!(served.fetch(&["--revision", COMMIT]).0, Some(0));
    let weights = |asked: &[String]| -> Vec<String> {
        let of_weights = asked.iter().filter(|line| line.contains("model.safetensors"));
        of_weights.map(|line| line.split(" from ").nth(1).unwrap().trim_end_matches(" with token").to_owned()).collect()
    };
    assert_eq!(weights(&served.asked()), ["0", "100000", "175000"]);

    // What a killed process left behind is taken up by the next.
    let served = serve();
    served.change(|hub| (hub.cuts, hub.is_silent_after_cuts) = (1, true));
    let mut first = served.command(&["--revision", COMMIT]).stderr(Stdio::null()).spawn().unwrap();
    let part = served.output().join(format!(".model.safetensors.{}.part", &COMMIT[..12]));
    while !part.metadata().is_ok_and(|found| found.len() == 100_000) {
        assert!(first.try_wait().unwrap().is_none(), "it was to wait for the rest");
        std::thread::sleep(Duration::from_millis(10));
    }
    // No second process writes the same file meanwhile.
    let (code, told) = served.fetch(&["--revision", COMMIT]);
    assert!(code == Some(4) && told.contains("another process"), "{told}");
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(!served.output().join("config.json").exists());
    served.asked();
    assert_eq!(served.fetch(&["--revision", COMMIT]).0, Some(0));
    assert_eq!(weights(&served.asked()), ["100000"]);
    assert!(!part.exists());

    // A server without ranges sends all of it again.
    let served = serve();
    served.change(|hub| (hub.cuts, hub.is_rangeless) = (1, true));
    assert_eq!(served.fetch(&["--revision", COMMIT]).0, Some(0));
    assert_eq!(served.names().len(), 5);
}

#[test]
fn what_is_not_as_announced_is_thrown_away() {
    let served = serve();
    let forge = |bytes: Vec<u8>| served.change(|hub| hub.forged = Some(bytes));
    forge(vec![7; 400_000]);
    let (code, told) = served.fetch(&["--revision", "main"]);
    assert!(code == Some(3) && told.contains("sha256") && told.contains("model.safetensors"), "{told}");
    forge(vec![7; 400_001]);
    let (code, told) = served.fetch(&["--revision", "main"]);
    assert!(code == Some(3) && told.contains("400001"), "{told}");
    // Nothing of the weights is left, and no config: the folder is no model.
    let names = served.names();
    assert!(!names.iter().any(|name| name == "config.json" || name.contains("model.safetensors")), "{names:?}");
    served.change(|hub| hub.forged = None);
    assert_eq!(served.fetch(&["--revision", "main"]).0, Some(0));
    assert_eq!(served.names().len(), 5);
}

#[test]
fn refusals_are_told_apart_with_what_to_do() {
    let served = serve();
    let cases = [
        (404, "RepoNotFound", 2, "--repository"),
        (404, "RevisionNotFound", 2, "revision"),
        (401, "RepoNotFound", 2, "HF_TOKEN"),
        (403, "GatedRepo", 2, "terms"),
        (503, "", 1, "later"),
    ];
    for (status, error_code, exit, expected) in cases {
        served.change(|hub| hub.refusal = Some((status, error_code)));
        let (code, told) = served.fetch(&["--revision", "main"]);
        assert!(
            code == Some(exit) && told.contains(expected) && told.contains("hint:"),
            "{status} {error_code}: {code:?} {told}"
        );
        assert!(!told.contains("hf_secret"));
    }
    let hostile = json!({"sha": COMMIT, "siblings": [{"rfilename": "config.json"}, {"rfilename": "../../evil.safetensors"}]});
    served.change(|hub| (hub.refusal, hub.listing) = (None, Some(hostile)));
    let (code, told) = served.fetch(&["--revision", "main"]);
    assert!(code == Some(3) && told.contains("evil"), "{told}");
    assert!(served.names().is_empty() && names(served.folder.path()).iter().all(|name| !name.contains("evil")));

    // No one listens there.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let alone = Served { address: format!("http://{gone}"), ..served };
    let (code, told) = alone.fetch(&["--revision", "main"]);
    assert!(code == Some(1) && told.contains("network"), "{told}");
    let (code, told) = alone.fetch(&["--revision", "../main"]);
    assert!(code == Some(2) && told.contains("revision"), "{told}");
}
