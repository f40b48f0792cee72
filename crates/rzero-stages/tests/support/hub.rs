//! A stand-in for the Hugging Face hub on loopback: what it serves, how it fails, and what it was asked.

#![allow(dead_code, clippy::unwrap_used, reason = "a test stops where it cannot go on, and each test file uses its own part")]

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the stand-in serves, and what it was asked.
#[derive(Default)]
pub(crate) struct Hub {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Replaces the listing.
    pub(crate) listing: Option<Value>,
    /// Status and error code of every answer.
    pub(crate) refusal: Option<(u16, &'static str)>,
    /// How often large files break off after a quarter of what was asked for.
    pub(crate) cuts: u32,
    /// A cut connection is left open, and nothing more comes.
    pub(crate) is_silent_after_cuts: bool,
    open: Vec<TcpStream>,
    /// What is sent in place of the large file that was announced.
    pub(crate) forged: Option<Vec<u8>>,
    /// Large files lie at another address.
    pub(crate) is_redirecting: bool,
    /// Ranges are ignored.
    pub(crate) is_rangeless: bool,
    pub(crate) asked: Vec<String>,
}

pub(crate) struct Served {
    pub(crate) hub: Arc<Mutex<Hub>>,
    pub(crate) address: String,
    pub(crate) folder: tempfile::TempDir,
}

impl Served {
    /// Serves these files of the model or data set `owner/name`.
    pub(crate) fn new(files: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> Self {
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

    pub(crate) fn change(&self, change: impl FnOnce(&mut Hub)) {
        change(&mut self.hub.lock().unwrap());
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.hub.lock().unwrap().asked)
    }

    /// A program whose hub this is.
    pub(crate) fn program(&self, binary: &str) -> Command {
        let mut command = Command::new(binary);
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "RUST_LOG", "RZERO_LOG"]
        {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", &self.address).env("HF_TOKEN", "hf_secret").env("HF_HOME", self.folder.path().join("home"));
        command
    }
}

/// What a program ended with and said.
pub(crate) fn told(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code(), told.into_owned())
}

/// Names of the files that are in a folder, hidden ones included.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn listing(hub: &Hub) -> Value {
    let siblings: Vec<Value> = hub
        .files
        .iter()
        .map(|(name, bytes)| match is_large(name) {
            true => json!({"rfilename": name, "size": bytes.len(), "lfs": {"sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 130}}),
            false => json!({"rfilename": name, "size": bytes.len()}),
        })
        .collect();
    json!({"id": "owner/name", "sha": COMMIT, "siblings": siblings})
}

/// Of large files the hub announces a digest.
fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".parquet")
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
    if ["models", "datasets"].iter().any(|kind| path.starts_with(&format!("/api/{kind}/owner/name/revision/"))) {
        let text = hub.listing.clone().unwrap_or_else(|| listing(&hub)).to_string();
        return send("200 OK", "Content-Type: application/json\r\n", text.len(), text.as_bytes());
    }
    // What follows the commit, or stands at the other address.
    let name = path.split_once(&format!("/resolve/{COMMIT}/")).or_else(|| path.split_once("/elsewhere/"));
    let name = name.map_or(path.rsplit('/').next().unwrap(), |(_, name)| name).to_owned();
    let is_large = is_large(&name);
    if is_large && hub.is_redirecting && !path.starts_with("/elsewhere/") {
        return send("302 Found", &format!("Location: /elsewhere/{name}\r\n"), 0, b"");
    }
    let Some(bytes) = hub.forged.clone().filter(|_| is_large).or_else(|| hub.files.get(&name).cloned()) else {
        return send("404 Not Found", "", 0, b"");
    };
    let start = if hub.is_rangeless { 0 } else { start.min(bytes.len()) };
    let rest = &bytes[start..];
    let is_cut = is_large && hub.cuts > 0;
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
