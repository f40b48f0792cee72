//! Completions by an OpenAI-compatible server, one request each: `POST {url}/completions`.
//!
//! A prompt is sent as text, which all servers take, with everything switched off that would change it or the distribution that is drawn from; servers
//! overlook what they do not know. Every request carries the seed of its own place in the run. What was answered stands in a journal beside the
//! stage's output, so that a stage that was killed asks only for the rest; it goes when the stage is done.
//!
//! A completion becomes tokens of the checkpoint's own tokenizer: those that the server names, else those of the text. Log-probabilities are
//! taken where they are of exactly these tokens; where they are not, or do not reach the end (no server tells that of the stop token), `grpo-step`
//! computes the missing ones. Deliberately absent: chat endpoints, streams, several choices a request.

use crate::backend::ServerSettings;
use crate::exit::StageFailure;
use crate::interrupt::Interrupt;
use crate::transport::{Outcome, Reading, Service, Transport};
use rzero_io::error::IoError;
use rzero_model::engine::Completion;
use rzero_model::tokenizer::Tokenizer;
use rzero_model::{ModelConfig, ModelError};
use rzero_schema::profile::SamplingSettings;
use rzero_schema::vocab::FinishReason;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const SERVER: Service = Service {
    name: "server",
    setting: "--url",
    key_variable: "RZERO_SERVER_KEY",
    address_hint: "check --url, which mostly ends in /v1, and --served-model",
    start_hint: "start it, or name another with --url; the same command goes on from here",
    max_attempts: 6,
    max_body_bytes: 64 << 20,
    may_come_back: true,
};

/// A server that completes prompts.
#[derive(Debug)]
pub(crate) struct Remote {
    transport: Transport,
    address: String,
    model: String,
    journal: Journal,
    /// Completions whose log-probabilities came from the server, but for the stop token's.
    num_with_logprobs: AtomicU64,
    /// Completions without.
    num_without_logprobs: AtomicU64,
}

/// What a server said of one request, as far as it is used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Answer {
    text: String,
    finish: FinishReason,
    /// Token ids, where the server tells them.
    ids: Option<Vec<u32>>,
    /// Each token as text with its log-probability, where the server tells them.
    logprobs: Option<(Vec<String>, Vec<f32>)>,
    /// The stop token, where the server tells which it was.
    stop: Option<u32>,
}

impl Remote {
    /// # Errors
    /// When the address or the key is none, or the journal cannot be used.
    pub(crate) fn new(server: &ServerSettings, journal: PathBuf) -> anyhow::Result<Self> {
        Ok(Self {
            address: format!("{}/completions", SERVER.address(&server.url)?),
            transport: Transport::new(SERVER, Duration::from_secs(server.timeout_s))?,
            model: server.model.clone(),
            journal: Journal::open(journal)?,
            num_with_logprobs: AtomicU64::new(0),
            num_without_logprobs: AtomicU64::new(0),
        })
    }

    /// Completes one prompt.
    ///
    /// # Errors
    /// When the server does not, after all attempts: exit code 75 where that may pass. When it serves something else: exit code 2.
    pub(crate) fn complete(
        &self,
        prompt: &str,
        num_prompt_tokens: usize,
        seed: u64,
        sampling: &SamplingSettings,
        tokenizer: &Tokenizer,
        config: &ModelConfig,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Completion> {
        let most = sampling.max_tokens.min(config.max_positions - num_prompt_tokens);
        let body = self.request(prompt, most, seed, sampling, config).to_string();
        let answer = match self.journal.get(&body) {
            Some(answer) => answer,
            None => {
                let read = |bytes: &[u8]| read_answer(bytes, num_prompt_tokens);
                let answer = match self.transport.post(&self.address, &body, interrupt, read)? {
                    Outcome::Good(answer) => answer,
                    Outcome::Bad(problem) => {
                        let message = format!("the server at {} does not complete: {problem}", self.address);
                        return Err(StageFailure::usage(message).hint(SERVER.address_hint).into());
                    }
                    Outcome::Exhausted(problem) => {
                        let message = format!("the server at {} does not complete: {problem}", self.address);
                        let hint = "what was answered is kept: the same command asks only for the rest";
                        return Err(StageFailure::temporary(message).hint(hint).into());
                    }
                };
                self.journal.put(&body, &answer)?;
                answer
            }
        };
        let completion = completion(answer, most, sampling, tokenizer, config)?;
        let num = if completion.policy_logprobs.is_empty() { &self.num_without_logprobs } else { &self.num_with_logprobs };
        num.fetch_add(1, Ordering::Relaxed);
        Ok(completion)
    }

    /// Says of how many completions the server told the log-probabilities.
    pub(crate) fn tell_logprobs(&self) {
        let (with, without) =
            (self.num_with_logprobs.swap(0, Ordering::Relaxed), self.num_without_logprobs.swap(0, Ordering::Relaxed));
        tracing::info!(with, without, "log-probabilities by the server; grpo-step computes the others, and those of stop tokens");
    }

    fn request(&self, prompt: &str, most: usize, seed: u64, sampling: &SamplingSettings, config: &ModelConfig) -> Value {
        json!({
            "model": self.model,
            "prompt": prompt,
            "max_tokens": most,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            // All tokens, in the one way that every server takes: 0, -1 and nothing mean 40 of them, or an error, to some.
            "top_k": if sampling.top_k == 0 { config.vocab_size } else { sampling.top_k },
            "min_p": 0.0,
            "repeat_penalty": 1.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            // All servers take 31 bits.
            "seed": seed >> 33,
            "n": 1,
            "logprobs": 1,
            "stream": false,
            // The prompt is whole: it has the beginning that it needs.
            "add_special_tokens": false,
            "stop_token_ids": config.eos_tokens,
            "return_token_ids": true,
        })
    }
}

/// Reads what a server sent; what may be better next time is told apart from what will not.
fn read_answer(bytes: &[u8], num_prompt_tokens: usize) -> Reading<Answer> {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return Reading::Again("the reply is no JSON".to_owned());
    };
    let Some([choice]) = value["choices"].as_array().map(Vec::as_slice) else {
        return Reading::Again("the reply does not hold one choice".to_owned());
    };
    let Some(text) = choice["text"].as_str() else {
        return Reading::Again("the reply holds no text".to_owned());
    };
    if let Some(found) = value.pointer("/usage/prompt_tokens").and_then(Value::as_u64)
        && found != num_prompt_tokens as u64
    {
        return Reading::Bad(format!(
            "it reads a prompt of {num_prompt_tokens} tokens as {found}: it serves another model, or adds a beginning of its own"
        ));
    }
    let finish = match choice["finish_reason"].as_str() {
        Some("stop") => FinishReason::Stop,
        Some("length") => FinishReason::Length,
        other => return Reading::Again(format!("a completion ended for the reason {other:?}")),
    };
    let ids = choice["token_ids"].as_array().and_then(|ids| ids.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect());
    Reading::Good(Answer {
        text: text.to_owned(),
        finish,
        ids,
        logprobs: read_logprobs(&choice["logprobs"]),
        stop: choice["stop_reason"].as_u64().and_then(|id| u32::try_from(id).ok()),
    })
}

/// Tokens and their log-probabilities, if all of them are there and can be such.
fn read_logprobs(value: &Value) -> Option<(Vec<String>, Vec<f32>)> {
    let tokens: Vec<String> =
        value["tokens"].as_array()?.iter().map(|token| token.as_str().map(str::to_owned)).collect::<Option<_>>()?;
    let is_possible = |value: &f64| value.is_finite() && *value <= 1e-3;
    let logprobs: Vec<f32> = value["token_logprobs"]
        .as_array()?
        .iter()
        .map(|value| value.as_f64().filter(is_possible).map(|value| value.min(0.0) as f32))
        .collect::<Option<_>>()?;
    (tokens.len() == logprobs.len()).then_some((tokens, logprobs))
}

/// An answer in the tokens of the checkpoint.
fn completion(
    answer: Answer,
    most: usize,
    sampling: &SamplingSettings,
    tokenizer: &Tokenizer,
    config: &ModelConfig,
) -> Result<Completion, ModelError> {
    let is_known = |ids: &Vec<u32>| ids.iter().all(|id| (*id as usize) < config.vocab_size);
    let named = answer.ids.filter(is_known);
    let is_named = named.is_some();
    let mut tokens = match named {
        Some(ids) => ids,
        None => tokenizer.encode(&answer.text)?,
    };
    let (mut finish, mut stop) = (answer.finish, answer.stop.filter(|id| config.eos_tokens.contains(id)));
    if let Some(at) = tokens.iter().position(|token| config.eos_tokens.contains(token)) {
        // The stop token itself, or a text that spells one out: nothing comes after it.
        (finish, stop) = (FinishReason::Stop, Some(tokens[at]));
        tokens.truncate(at);
    }
    // The text of a completion can have more tokens than were drawn.
    if tokens.len() > most {
        tokens.truncate(most);
        finish = FinishReason::Length;
    }
    let fits = |(texts, logprobs): &(Vec<String>, Vec<f32>)| {
        let is_same = |(text, token): (&String, &u32)| *text == tokenizer.decode(&[*token]).text;
        logprobs.len() >= tokens.len() && (is_named || texts.iter().zip(&tokens).all(is_same))
    };
    let mut policy_logprobs = answer.logprobs.filter(fits).map_or_else(Vec::new, |(_, logprobs)| logprobs);
    if finish == FinishReason::Stop {
        tokens.extend(stop.or(config.eos_tokens.first().copied()));
    }
    policy_logprobs.truncate(tokens.len());
    let is_untouched = sampling.temperature == 1.0 && sampling.top_p >= 1.0 && sampling.top_k == 0;
    let sampler_logprobs = if is_untouched { policy_logprobs.clone() } else { Vec::new() };
    // No server tells its whole distribution.
    Ok(Completion { tokens, policy_logprobs, sampler_logprobs, entropy: None, self_certainty: None, finish })
}

/// Answers by the digest of their request, one a line. A line that was cut short is as if it had not been written.
#[derive(Debug)]
struct Journal {
    path: PathBuf,
    known: HashMap<String, Answer>,
    file: Mutex<File>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    request: String,
    answer: Answer,
}

impl Journal {
    fn open(path: PathBuf) -> anyhow::Result<Self> {
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(IoError::file("read", &path)(error).into()),
        };
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let known: HashMap<String, Answer> = lines.map(|line| (line.request, line.answer)).collect();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(IoError::file("create", folder))?;
        }
        let mut file = File::options().append(true).create(true).open(&path).map_err(IoError::file("open", &path))?;
        if !text.is_empty() {
            tracing::info!(answers = known.len(), "going on with what was answered before");
            if !text.ends_with('\n') {
                file.write_all(b"\n").map_err(IoError::file("write", &path))?;
            }
        }
        Ok(Self { path, known, file: Mutex::new(file) })
    }

    fn get(&self, body: &str) -> Option<Answer> {
        self.known.get(&digest(body)).cloned()
    }

    fn put(&self, body: &str, answer: &Answer) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(&Line { request: digest(body), answer: answer.clone() })?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line).map_err(|error| write_failed(&self.path, error))
    }
}

fn write_failed(path: &Path, error: std::io::Error) -> anyhow::Error {
    IoError::file("write", path)(error).into()
}

fn digest(body: &str) -> String {
    blake3::hash(body.as_bytes()).to_hex().to_string()
}
