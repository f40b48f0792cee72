//! Who completes prompts: the engine of this project, or a server.
//!
//! A server is expected to serve the very checkpoint that the stage names as its input; which one that is, `--dry-run` says. It is known by the name of
//! its model: another address, another number of requests at a time change no row that is asked for, and so do not enter the fingerprint.

use crate::exit::StageFailure;
use crate::inputs::StageInputs;
use clap::{Args, ValueEnum};

/// Flags that say who completes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Who completes")]
pub struct BackendArgs {
    /// The engine of this project, or an OpenAI-compatible server (vLLM, SGLang, llama.cpp) that serves the same checkpoint
    #[arg(long, env = "RZERO_BACKEND", value_name = "KIND", default_value = "engine")]
    backend: BackendKind,

    /// Address of the server, as far as /v1; a key that it wants stands in RZERO_SERVER_KEY
    #[arg(long, env = "RZERO_URL", value_name = "URL")]
    url: Option<String>,

    /// Name of the model as the server knows it
    #[arg(long, env = "RZERO_SERVED_MODEL", value_name = "NAME")]
    served_model: Option<String>,

    /// Requests at a time. Does not change a row
    #[arg(long, env = "RZERO_CONCURRENCY", value_name = "N", default_value_t = 32)]
    concurrency: u32,

    /// Seconds that a request may take
    #[arg(long, env = "RZERO_REQUEST_TIMEOUT", value_name = "SECONDS", default_value_t = 600)]
    request_timeout: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BackendKind {
    Engine,
    Openai,
}

/// Who completes prompts.
#[derive(Debug, Clone)]
pub enum Backend {
    /// The engine of this project.
    Engine,
    /// A server.
    Openai(ServerSettings),
}

/// A server and how to speak to it.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Its address, as far as /v1.
    pub url: String,
    /// Name of the model there.
    pub model: String,
    /// Requests at a time.
    pub concurrency: u32,
    /// Seconds that a request may take.
    pub timeout_s: u64,
}

impl BackendArgs {
    /// What was typed, checked.
    ///
    /// # Errors
    /// When a server is asked for without its address or its model's name: exit code 2.
    pub fn resolve(&self) -> anyhow::Result<Backend> {
        // A variable that is set to nothing counts as not set: recipes export all of them.
        let given = |text: &Option<String>| text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        if self.backend == BackendKind::Engine {
            return Ok(Backend::Engine);
        }
        let missing = |what: &str, hint: &str| StageFailure::usage(format!("--backend openai needs {what}")).hint(hint);
        let url = given(&self.url).ok_or_else(|| missing("--url", "for example --url http://localhost:8000/v1"))?;
        let model = given(&self.served_model).ok_or_else(|| {
            missing("--served-model", "the server lists its models under URL/models; the manifest records the name")
        })?;
        if !(1..=4096).contains(&self.concurrency) {
            return Err(StageFailure::usage("--concurrency is from 1 to 4096").into());
        }
        Ok(Backend::Openai(ServerSettings { url, model, concurrency: self.concurrency, timeout_s: self.request_timeout.max(1) }))
    }
}

impl Backend {
    /// Declares who completes; of the engine nothing is to be said.
    #[must_use]
    pub fn declare<'a>(&self, inputs: StageInputs<'a>) -> StageInputs<'a> {
        match self {
            Self::Engine => inputs,
            Self::Openai(server) => inputs.with_value("backend", "openai").with_value("backend.model", &server.model),
        }
    }
}
