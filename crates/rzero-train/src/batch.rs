//! Samples to micro-batches: which sequences go through the model together, and each token's place in the step's arrays.
//!
//! Sequences keep their order and are not padded, and beginnings that they share are laid out once; a micro-batch is closed before the token
//! that would pass its budget. How they are cut changes memory and speed, and the result only by the rounding of sums.

use crate::error::TrainError;
use rzero_model::ModelConfig;
use rzero_model::training::PackedSequences;
use rzero_model::training::packing::SharedSize;
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

/// Checks sequences against the model and cuts them into micro-batches of at most `budget` rows (or one sequence).
///
/// # Errors
/// When a sequence has no prompt, is longer than the model's positions or holds a token outside the vocabulary.
pub fn micro_batches(sequences: &[Sequence<'_>], budget: usize, config: &ModelConfig) -> Result<Vec<MicroBatch>, TrainError> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut size = SharedSize::default();
    for (index, sequence) in sequences.iter().enumerate() {
        check(index, sequence, config)?;
        let start = ranges.last().map_or(index, |range| range.start);
        let before = (start < index).then(|| (sequences[start].prompt, sequences[index - 1].prompt));
        let grown = size.with(before, sequence.prompt, sequence.completion.len());
        match ranges.last_mut() {
            Some(range) if grown.num_rows() <= budget => {
                range.end = index + 1;
                size = grown;
            }
            _ => {
                ranges.push(index..index + 1);
                size = SharedSize::default().with(None, sequence.prompt, sequence.completion.len());
            }
        }
    }
    let pack = |range: Range<usize>| {
        let parts: Vec<(&[u32], &[u32])> =
            sequences[range.clone()].iter().map(|sequence| (sequence.prompt, sequence.completion)).collect();
        MicroBatch { packed: PackedSequences::shared(&parts), sequences: range }
    };
    Ok(ranges.into_iter().map(pack).collect())
}

fn check(index: usize, sequence: &Sequence<'_>, config: &ModelConfig) -> Result<(), TrainError> {
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
    Ok(())
}
