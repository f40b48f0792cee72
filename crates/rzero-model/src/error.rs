//! What can be wrong with a model folder or its use.

use std::path::PathBuf;

/// Why a model cannot be read, written or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file could not be read or written.
    #[error("cannot access `{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// config.json is not one that is understood.
    #[error("`{path}` is no usable model configuration: {problem}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// model.safetensors does not hold what the configuration asks for.
    #[error("`{path}` does not hold the weights of its configuration: {problem}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// tokenizer.json is broken, or a text cannot be encoded.
    #[error("tokenizer `{path}`: {problem}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A chat template is broken, or refuses the messages.
    #[error("chat template `{path}`: {problem}")]
    ChatTemplate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A request that the model cannot serve.
    #[error("cannot generate: {0}")]
    Request(String),
    /// Generation was asked to stop.
    #[error("generation was interrupted")]
    Interrupted,
}
