//! A model behind an OpenAI-compatible endpoint that gives opinions: prompts in, replies out, in their order, whatever the server does.
//!
//! Requests go out at temperature 0, several at a time, to `{endpoint}/chat/completions` ([`crate::transport`] carries them), with the key in
//! `RZERO_JUDGE_KEY` if there is one. A failure that stays is kept as the reason why that prompt has no reply. Replies are hostile: nothing of
//! them is taken but a text.

use crate::console::Progress;
use crate::exit::StageFailure;
use crate::interrupt::Interrupt;
use crate::transport::{Outcome, Reading, Service, Transport, in_parallel};
use rzero_schema::profile::JudgeSettings;
use serde_json::{Value, json};
use std::time::Duration;

const JUDGE: Service = Service {
    name: "judge",
    setting: "judge.endpoint",
    key_variable: "RZERO_JUDGE_KEY",
    address_hint: "check judge.endpoint, which mostly ends in /v1, and judge.model",
    start_hint: "start it, or name another with judge.endpoint; then run the same command again",
    max_attempts: 3,
    max_body_bytes: 1 << 20,
    may_come_back: false,
};

/// Most that is kept of a reply, bytes: its end, where the verdict stands.
const MAX_REPLY_BYTES: usize = 1 << 14;

/// An endpoint and how to speak to it.
#[derive(Debug)]
pub struct Endpoint {
    transport: Transport,
    address: String,
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

impl Endpoint {
    /// The endpoint that a profile names.
    ///
    /// # Errors
    /// When it names none, or one that is no address, or the key is none: exit code 2.
    pub fn new(settings: &JudgeSettings) -> anyhow::Result<Self> {
        if settings.endpoint.trim().is_empty() {
            return Err(StageFailure::usage("the profile names no judge: judge.endpoint is empty").hint(SETTING_HINT).into());
        }
        let endpoint = JUDGE.address(&settings.endpoint)?;
        if settings.model.trim().is_empty() {
            let message = "judge.model is empty: what was judged could not say by whom";
            return Err(StageFailure::usage(message).hint(SETTING_HINT).into());
        }
        Ok(Self {
            transport: Transport::new(JUDGE, Duration::from_secs(settings.timeout_s))?,
            address: format!("{endpoint}/chat/completions"),
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
        in_parallel(self.num_parallel, prompts.len(), |at| {
            let reply = self.ask(&prompts[at], interrupt)?;
            progress.advance(1);
            Ok(reply)
        })
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
        let read = |bytes: &[u8]| match reply_in(bytes) {
            Reply::Text(text) => Reading::Good(text),
            Reply::Failed(problem) => Reading::Bad(problem),
        };
        Ok(match self.transport.post(&self.address, &body.to_string(), interrupt, read)? {
            Outcome::Good(text) => Reply::Text(text),
            Outcome::Bad(problem) | Outcome::Exhausted(problem) => Reply::Failed(problem),
        })
    }
}

/// What to do without a judge.
const SETTING_HINT: &str = "name an OpenAI-compatible endpoint and its model, for example \
                            set=\"judge.endpoint=http://localhost:8000/v1;judge.model=NAME\" before the recipe, or --set for each with the binary";

/// The text in what a server sent.
fn reply_in(bytes: &[u8]) -> Reply {
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
        let long = format!(r#"{{"choices": [{{"message": {{"content": "{}EQUAL"}}}}]}}"#, "é".repeat(MAX_REPLY_BYTES));
        let Reply::Text(text) = reply_in(long.as_bytes()) else { panic!("it holds a message") };
        assert!(text.len() <= MAX_REPLY_BYTES && text.ends_with("éEQUAL"));
    }
}
