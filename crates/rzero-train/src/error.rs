//! What can be wrong with an update.

use rzero_model::ModelError;
use std::path::PathBuf;

/// Why an update cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The model's own.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A rollout that does not fit the model or itself.
    #[error("rollout {index} {problem}")]
    Rollout {
        /// Its place among the samples of the step.
        index: usize,
        /// What is wrong.
        problem: String,
    },
    /// Nothing to train on.
    #[error("there is no completion token to train on")]
    NoTokens,
    /// The gradient or the loss is no number any more.
    #[error("{what} is not finite at update {update}; the learning rate is probably too high")]
    NotFinite {
        /// Loss or gradient.
        what: &'static str,
        /// Number of the update.
        update: u64,
    },
    /// Saved optimiser state that does not fit.
    #[error("`{path}` is no usable optimiser state: {problem}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Asked to stop.
    #[error("training was interrupted")]
    Interrupted,
}
