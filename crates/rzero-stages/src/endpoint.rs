//! A model behind an OpenAI-compatible endpoint: prompts in, replies out, in their order, whatever the server does.
//!
//! Requests go out at temperature 0, several at a time, to `{endpoint}/chat/completions`, with the key in `RZERO_JUDGE_KEY` if
//! there is one. A failure that may pass is tried again, a bounded number of times; one that stays is kept as the reason why that
//! prompt has no reply. A server that is not there, or that refuses the key or the address, ends the stage instead: no prompt would
//! have a reply. Replies are hostile: their size is bounded, and nothing of them is taken but a text.

use crate::console::Progress;
use crate::exit::StageFailure;
use crate::interrupt::Interrupt;
use rzero_schema::profile::JudgeSettings;
use serde_json::{Value, json};
use std::io::{ErrorKind, Read};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;
use std::time::Duration;
use ureq::http::Response;
use ureq::{Agent, Body};

/// The variable that holds the key; without it none is sent.
const KEY_VARIABLE: &str = "RZERO_JUDGE_KEY";

/// How often a request is sent before its failure is taken for lasting.
const MAX_ATTEMPTS: u32 = 3;

/// Wait after the first failure; it doubles with each. A server that says how long to wait is heard, up to [`MAX_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Longest wait before a request is sent again.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Most that is read of what a server sends, bytes.
const MAX_BODY_BYTES: u64 = 1 << 20;

/// Most that is kept of a reply, bytes: its end, where the verdict stands.
const MAX_REPLY_BYTES: usize = 1 << 14;

/// Most that is kept of a server's own words about a failure, characters.
const MAX_REASON_CHARS: usize = 200;

/// An endpoint and how to speak to it.
#[derive(Debug)]
pub struct Endpoint {
    agent: Agent,
    address: String,
    key: Option<String>,
    model: String,
    max_tokens: u32,
    num_parallel: u32,
}

/// What came of one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// What the model wrote.
    Text(String),
    /// Why there is nothing.
    Failed(String),
}

/// What came of one request.
enum Answer {
    Reply(Reply),
    /// It may pass: the problem, and how long the server asks to wait.
    Passing(String, Option<Duration>),
    /// Nobody is there.
    Unreachable(String),
    /// No request will do better.
    Refused(StageFailure),
}

impl Endpoint {
    /// The endpoint that a profile names.
    ///
    /// # Errors
    /// When it names none, or one that is no address, or the key is none: exit code 2.
    pub fn new(settings: &JudgeSettings) -> anyhow::Result<Self> {
        let endpoint = settings.endpoint.trim().trim_end_matches('/');
        if endpoint.is_empty() {
            return Err(StageFailure::usage("the profile names no judge: judge.endpoint is empty").hint(SETTING_HINT).into());
        }
        let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        if host.is_none_or(|host| host.is_empty() || host.contains(|letter: char| !letter.is_ascii_graphic() || letter == '@')) {
            let message = format!("judge.endpoint is no address: `{endpoint}`");
            return Err(StageFailure::usage(message)
                .hint("it begins with https:// or http:// and a host, such as http://localhost:8000/v1")
                .into());
        }
        if settings.model.trim().is_empty() {
            let message = "judge.model is empty: what was judged could not say by whom";
            return Err(StageFailure::usage(message).hint(SETTING_HINT).into());
        }
        let key = std::env::var(KEY_VARIABLE).ok().map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
        if key.as_deref().is_some_and(|key| !key.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(StageFailure::usage(format!("{KEY_VARIABLE} is no key"))
                .hint("copy it again from where it was given out")
                .into());
        }
        let agent = Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .accept_encoding("identity")
            .timeout_global(Some(Duration::from_secs(settings.timeout_s)))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            address: format!("{endpoint}/chat/completions"),
            key,
            model: settings.model.clone(),
            max_tokens: settings.max_tokens,
            num_parallel: settings.num_parallel,
        })
    }

    /// The reply to each prompt, in the order of the prompts.
    ///
    /// # Errors
    /// When the endpoint cannot be reached or refuses to serve, or a signal came.
    pub fn ask_all(&self, prompts: &[String], progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Vec<Reply>> {
        let replies: Vec<OnceLock<Reply>> = prompts.iter().map(|_| OnceLock::new()).collect();
        let (next, stop) = (AtomicUsize::new(0), OnceLock::new());
        let work = || {
            while stop.get().is_none() {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(prompt) = prompts.get(at) else { return };
                match self.ask(prompt, interrupt) {
                    Ok(reply) => drop(replies[at].set(reply)),
                    Err(error) => drop(stop.set(error)),
                }
                progress.advance(1);
            }
        };
        std::thread::scope(|scope| {
            // A thread that the system does not give is one request less at a time.
            for _ in 1..self.num_parallel.min(u32::try_from(prompts.len()).unwrap_or(u32::MAX)) {
                Builder::new().spawn_scoped(scope, work).ok();
            }
            work();
        });
        if let Some(error) = stop.into_inner() {
            return Err(error);
        }
        let replies: Option<Vec<Reply>> = replies.into_iter().map(OnceLock::into_inner).collect();
        replies.ok_or_else(|| StageFailure::internal("a prompt was never asked").into())
    }

    /// Asks one prompt, again where a failure may pass.
    fn ask(&self, prompt: &str, interrupt: &Interrupt) -> anyhow::Result<Reply> {
        let body = json!({
            "model": self.model,
            "messages": [{ "role": "user", "content": prompt }],
            "temperature": 0,
            "max_tokens": self.max_tokens,
            "stream": false,
        });
        let body = body.to_string();
        let mut attempt = 1;
        loop {
            interrupt.check()?;
            let is_last = attempt == MAX_ATTEMPTS;
            let wait = match self.request(&body) {
                Answer::Reply(reply) => return Ok(reply),
                Answer::Refused(failure) => return Err(failure.into()),
                Answer::Unreachable(problem) if is_last => return Err(self.unreachable(&problem).into()),
                Answer::Passing(problem, _) if is_last => {
                    return Ok(Reply::Failed(format!("{problem}, {MAX_ATTEMPTS} times")));
                }
                Answer::Unreachable(_) => None,
                Answer::Passing(_, wait) => wait,
            };
            interrupt.wait(wait.unwrap_or(FIRST_WAIT * 2u32.pow(attempt - 1)).min(MAX_WAIT))?;
            attempt += 1;
        }
    }

    fn request(&self, body: &str) -> Answer {
        let mut request = self.agent.post(&self.address).header("Content-Type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        match request.send(body) {
            Ok(answer) => self.read(answer),
            Err(error) => match &error {
                ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => Answer::Unreachable(error.to_string()),
                ureq::Error::Io(cause) if is_nobody_there(cause.kind()) => Answer::Unreachable(error.to_string()),
                _ => Answer::Passing(self.without_key(&error.to_string()), None),
            },
        }
    }

    fn read(&self, mut answer: Response<Body>) -> Answer {
        let status = answer.status().as_u16();
        let wait = answer.headers().get("retry-after").and_then(|seconds| seconds.to_str().ok()?.trim().parse().ok());
        let mut bytes = Vec::new();
        let is_whole = answer.body_mut().as_reader().take(MAX_BODY_BYTES).read_to_end(&mut bytes);
        match status {
            200 => {}
            401 | 403 => return Answer::Refused(self.refusal(status, &format!("check the key in {KEY_VARIABLE}"))),
            300..=399 | 404 | 405 => {
                return Answer::Refused(self.refusal(status, "check judge.endpoint, which mostly ends in /v1, and judge.model"));
            }
            408 | 425 | 429 | 500..=599 => {
                return Answer::Passing(format!("status {status}"), wait.map(Duration::from_secs));
            }
            _ => {
                let words: String = String::from_utf8_lossy(&bytes).chars().take(MAX_REASON_CHARS).collect();
                return Answer::Reply(Reply::Failed(format!("status {status}: {}", self.without_key(&words))));
            }
        }
        if let Err(error) = is_whole {
            return Answer::Passing(format!("the reply broke off: {error}"), None);
        }
        Answer::Reply(reply_in(&bytes))
    }

    fn refusal(&self, status: u16, hint: &str) -> StageFailure {
        StageFailure::usage(format!("the judge at {} refuses to serve: status {status}", self.address)).hint(hint)
    }

    fn unreachable(&self, problem: &str) -> StageFailure {
        StageFailure::internal(format!("no judge can be reached at {}: {problem}", self.address))
            .hint("start it, or name another with judge.endpoint; then run the same command again")
    }

    /// A server may repeat what it was sent.
    fn without_key(&self, text: &str) -> String {
        self.key.as_ref().map_or_else(|| text.to_owned(), |key| text.replace(key.as_str(), "(key)"))
    }
}

/// What to do without a judge.
const SETTING_HINT: &str = "name an OpenAI-compatible endpoint and its model, for example \
                            set=\"judge.endpoint=http://localhost:8000/v1;judge.model=NAME\" before the recipe, or --set for each with the binary";

fn is_nobody_there(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable
    )
}

/// The text in what a server sent.
fn reply_in(bytes: &[u8]) -> Reply {
    if bytes.len() as u64 == MAX_BODY_BYTES {
        return Reply::Failed(format!("the reply is longer than {MAX_BODY_BYTES} bytes"));
    }
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return Reply::Failed("the reply is no JSON".to_owned());
    };
    match value.pointer("/choices/0/message/content").and_then(Value::as_str) {
        Some(text) => Reply::Text(end_of(text).to_owned()),
        None => Reply::Failed("the reply holds no message".to_owned()),
    }
}

/// The last bytes of a text, whole characters, as many as are kept.
fn end_of(text: &str) -> &str {
    let mut start = text.len().saturating_sub(MAX_REPLY_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_a_text_or_a_reason() {
        let failed = |bytes: &[u8]| match reply_in(bytes) {
            Reply::Failed(reason) => reason,
            Reply::Text(text) => panic!("{text}"),
        };
        assert_eq!(failed(b"<html>"), "the reply is no JSON");
        assert_eq!(failed(&b"[".repeat(1 << 19)), "the reply is no JSON");
        assert_eq!(failed(br#"{"choices": [{"message": {"content": null}}]}"#), "the reply holds no message");
        assert!(failed(&vec![b' '; MAX_BODY_BYTES as usize]).contains("longer"));
        let long = format!(r#"{{"choices": [{{"message": {{"content": "{}EQUAL"}}}}]}}"#, "é".repeat(MAX_REPLY_BYTES));
        let Reply::Text(text) = reply_in(long.as_bytes()) else { panic!("it holds a message") };
        assert!(text.len() <= MAX_REPLY_BYTES && text.ends_with("éEQUAL"));
    }
}
