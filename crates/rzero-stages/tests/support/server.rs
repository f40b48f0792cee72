//! A stand-in for an OpenAI-compatible server on loopback: it answers by a script and remembers what it was asked.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the server does with a request.
pub(crate) enum Answer {
    /// The model says this.
    Says(String),
    /// A status line, further headers and a body.
    Raw(&'static str, &'static str, Vec<u8>),
    /// Half of a reply, then the connection is closed.
    Cut,
    /// Nothing at all, with the connection open.
    Silence,
}

/// One request that came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Value,
}

impl Request {
    /// What the model is asked.
    pub(crate) fn prompt(&self) -> &str {
        self.body["messages"][0]["content"].as_str().unwrap()
    }
}

type Script = dyn FnMut(&Request) -> Answer + Send;

pub(crate) struct Server {
    /// As a profile names it.
    pub(crate) endpoint: String,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Begins to serve; requests are answered side by side, the script is asked one at a time.
    pub(crate) fn new(script: impl FnMut(&Request) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v1", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (script, seen): (Arc<Mutex<Box<Script>>>, _) = (Arc::new(Mutex::new(Box::new(script))), Arc::clone(&asked));
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                open.push(stream.try_clone().unwrap());
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                std::thread::spawn(move || answer(stream, &script, &seen));
            }
        });
        Self { endpoint, asked }
    }

    /// What was asked since the last call.
    pub(crate) fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// An address where nobody listens.
pub(crate) fn nobody() -> String {
    format!("http://{}/v1", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

fn answer(mut stream: TcpStream, script: &Mutex<Box<Script>>, seen: &Mutex<Vec<Request>>) {
    let Some(request) = read_request(&stream) else { return };
    seen.lock().unwrap().push(request.clone());
    let answer = (script.lock().unwrap())(&request);
    let mut send = |status: &str, headers: &str, length: usize, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
        // A client that has seen enough hangs up.
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).ok();
        stream.shutdown(std::net::Shutdown::Both).ok();
    };
    match answer {
        Answer::Says(text) => {
            let body = json!({ "choices": [{ "message": { "role": "assistant", "content": text } }] }).to_string();
            send("200 OK", "Content-Type: application/json\r\n", body.len(), body.as_bytes());
        }
        Answer::Raw(status, headers, body) => send(status, headers, body.len(), &body),
        Answer::Cut => send("200 OK", "", 1000, b"{\"choices\": [{\"message\""),
        Answer::Silence => {}
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => authorization = Some(value.to_owned()),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, authorization, body: serde_json::from_slice(&body).ok()? })
}
