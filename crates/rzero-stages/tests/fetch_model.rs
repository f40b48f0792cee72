//! `fetch-model` against a stand-in for the hub on loopback: whole, cut short, damaged, hostile.

#![cfg(feature = "fetch")]
#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the stand-in serves, and what it was asked.
#[derive(Default)]
struct Hub {
    files: BTreeMap<String, Vec<u8>>,
    /// Replaces the listing.
    listing: Option<Value>,
    /// Status and error code of every answer.
    refusal: Option<(u16, &'static str)>,
    /// How often the weights break off after a quarter of what was asked for.
    cuts: u32,
    /// A cut connection is left open, and nothing more comes.
    is_silent_after_cuts: bool,
    open: Vec<TcpStream>,
    /// The weights that are sent in place of those announced.
    forged: Option<Vec<u8>>,
    /// Weights lie at another address.
    is_redirecting: bool,
    /// Ranges are ignored.
    is_rangeless: bool,
    asked: Vec<String>,
}

struct Served {
    hub: Arc<Mutex<Hub>>,
    address: String,
    folder: tempfile::TempDir,
}

impl Served {
    fn new() -> Self {
        let files = [
            ("config.json", b"{\"a\": 1}".to_vec()),
            ("tokenizer.json", b"{}".to_vec()),
            ("chat_template.jinja", b"{{ messages }}".to_vec()),
            ("README.md", b"not wanted".to_vec()),
            ("model.safetensors", (0..400_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect()),
        ];
        let files = files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        let hub = Arc::new(Mutex::new(Hub { files, ..Hub::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::clone(&hub);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(&shared, stream.unwrap());
            }
        });
        Self { hub, address, folder: tempfile::tempdir().unwrap() }
    }

    fn change(&self, change: impl FnOnce(&mut Hub)) {
        change(&mut self.hub.lock().unwrap());
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.hub.lock().unwrap().asked)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fetch-model"));
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "RUST_LOG", "RZERO_LOG"]
        {
            command.env_remove(name);
        }
        command
            .env("HF_ENDPOINT", &self.address)
            .env("HF_TOKEN", "hf_secret")
            .env("HF_HOME", self.folder.path().join("home"))
            .args(["--repository", "owner/name", "--output"])
            .arg(self.output())
            .args(arguments);
        command
    }

    fn fetch(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.command(arguments).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.code(), told.into_owned())
    }

    fn output(&self) -> std::path::PathBuf {
        self.folder.path().join("models/name")
    }

    /// Names of the files that are there, hidden ones included.
    fn names(&self) -> Vec<String> {
        names(&self.output())
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn listing(hub: &Hub) -> Value {
    let siblings: Vec<Value> = hub
        .files
        .iter()
        .map(|(name, bytes)| match name.ends_with(".safetensors") {
            true => json!({"rfilename": name, "size": bytes.len(), "lfs": {"sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 130}}),
            false => json!({"rfilename": name, "size": bytes.len()}),
        })
        .collect();
    json!({"id": "owner/name", "sha": COMMIT, "siblings": siblings})
}

/// Answers one request and closes the connection.
fn answer(hub: &Mutex<Hub>, mut stream: TcpStream) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(path) = lines.next().and_then(|line| Some(line.split(' ').nth(1)?.to_owned())) else { return };
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).map(|line| line.to_ascii_lowercase()).collect();
    let header = |name: &str| headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned));
    let start: usize =
        header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0);
    let mut hub = hub.lock().unwrap();
    let token = if header("authorization").as_deref() == Some("bearer hf_secret") { " with token" } else { "" };
    hub.asked.push(format!("{path} from {start}{token}"));
    let mut send = |status: &str, headers: &str, length: usize, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
        // A client that has seen enough hangs up.
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).ok();
    };
    if let Some((status, code)) = hub.refusal {
        return send(&format!("{status} No"), &format!("X-Error-Code: {code}\r\n"), 0, b"");
    }
    if path.starts_with("/api/models/owner/name/revision/") {
        let text = hub.listing.clone().unwrap_or_else(|| listing(&hub)).to_string();
        return send("200 OK", "Content-Type: application/json\r\n", text.len(), text.as_bytes());
    }
    let name = path.rsplit('/').next().unwrap().to_owned();
    let is_weights = name.ends_with(".safetensors");
    if is_weights && hub.is_redirecting && !path.starts_with("/elsewhere/") {
        return send("302 Found", &format!("Location: /elsewhere/{name}\r\n"), 0, b"");
    }
    let Some(bytes) = hub.forged.clone().filter(|_| is_weights).or_else(|| hub.files.get(&name).cloned()) else {
        return send("404 Not Found", "", 0, b"");
    };
    let start = if hub.is_rangeless { 0 } else { start.min(bytes.len()) };
    let rest = &bytes[start..];
    let is_cut = is_weights && hub.cuts > 0;
    hub.cuts -= u32::from(is_cut);
    let sent = if is_cut { &rest[..rest.len() / 4] } else { rest };
    match start {
        0 => send("200 OK", "", rest.len(), sent),
        _ => {
            let range = format!("Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len());
            send("206 Partial Content", &range, rest.len(), sent);
        }
    }
    if is_cut && hub.is_silent_after_cuts {
        hub.open.push(stream);
    }
}

#[test]
fn a_model_comes_whole_with_its_source_and_is_not_fetched_twice() {
    let served = Served::new();
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
    let served = Served::new();
    served.change(|hub| hub.cuts = 2);
    assert_eq!(served.fetch(&["--revision", COMMIT]).0, Some(0));
    let weights = |asked: &[String]| -> Vec<String> {
        let of_weights = asked.iter().filter(|line| line.contains("model.safetensors"));
        of_weights.map(|line| line.split(" from ").nth(1).unwrap().trim_end_matches(" with token").to_owned()).collect()
    };
    assert_eq!(weights(&served.asked()), ["0", "100000", "175000"]);

    // What a killed process left behind is taken up by the next.
    let served = Served::new();
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
    let served = Served::new();
    served.change(|hub| (hub.cuts, hub.is_rangeless) = (1, true));
    assert_eq!(served.fetch(&["--revision", COMMIT]).0, Some(0));
    assert_eq!(served.names().len(), 5);
}

#[test]
fn what_is_not_as_announced_is_thrown_away() {
    let served = Served::new();
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
    let served = Served::new();
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
