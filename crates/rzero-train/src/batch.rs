//! Samples to micro-batches: which sequences go through the model together, and each token's place in the step's arrays.
//!
//! Sequences keep their order and are not padded; a micro-batch is closed before the token that would pass its budget. How they
//! are cut changes memory and speed, and the result only by the rounding of sums.

use crate::error::TrainError;
use rzero_model::ModelConfig;
use rzero_model::training::PackedSequences;
use std::ops::Range;

/// One sequence to train on.
#[derive(Debug, Clone, Copy)]
pub struct Sequence<'a> {
    /// Tokens that are given.
    pub prompt: &'a [u32],
    /// Tokens that are learned.
    pub completion: &'a [u32],
}

/// Sequences that go through the model together.
#[derive(Debug, Clone, Default)]
pub struct MicroBatch {
    /// Their tokens.
    pub packed: PackedSequences,
    /// Which of the step's sequences they are.
    pub sequences: Range<usize>,
}

/// Checks sequences against the model and cuts them into micro-batches of at most `budget` tokens (or one sequence).
///
/// # Errors
/// When a sequence has no prompt, is longer than the model's positions or holds a token outside the vocabulary.
pub fn micro_batches(sequences: &[Sequence<'_>], budget: usize, config: &ModelConfig) -> Result<Vec<MicroBatch>, TrainError> {
    let mut batches: Vec<MicroBatch> = Vec::new();
    for (index, sequence) in sequences.iter().enumerate() {
        let refuse = |problem: String| Err(TrainError::Rollout { index, problem });
        let length = sequence.prompt.len() + sequence.completion.len();
        if sequence.prompt.is_empty() {
            return refuse("has an empty prompt".to_owned());
        }
        if length > config.max_positions {
            return refuse(format!("has {length} tokens, the model has {} positions", config.max_positions));
        }
        let mut tokens = sequence.prompt.iter().chain(sequence.completion);
        if let Some(token) = tokens.find(|token| **token as usize >= config.vocab_size) {
            return refuse(format!("holds token {token}, the vocabulary has {}", config.vocab_size));
        }
        let is_full = batches.last().is_none_or(|batch| batch.packed.tokens.len() + length > budget);
        if is_full {
            batches.push(MicroBatch { packed: PackedSequences::default(), sequences: index..index });
        }
        let batch = batches.last_mut().expect("a batch was just made where there was none");
        batch.packed.push(sequence.prompt, sequence.completion);
        batch.sequences.end = index + 1;
    }
    Ok(batches)
}
