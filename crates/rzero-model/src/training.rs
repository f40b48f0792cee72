//! The differentiable way through the model: log-probabilities of chosen tokens, and the gradient of all weights.
//!
//! Sequences lie end to end without padding: every matrix product runs over all their tokens at once, attention over one
//! sequence at a time. The forward pass returns a [`Tape`] with what the backward pass needs; normalised inputs, attention
//! weights and logits are computed again there instead of being kept. Logits exist for the asked positions only, some rows at
//! a time, so that (tokens x vocabulary) is never held. One call runs on one thread; callers run micro-batches side by side.
//!
//! Shapes: N tokens, D hidden, M asked positions. Slow twin: [`crate::reference`].

mod attention;
mod head;
mod layer;

use crate::config::ModelConfig;
use crate::kernels::{self, RotaryTable};
use crate::weights::Weights;
use std::ops::Range;

/// Sequences laid end to end, and which next tokens are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackedSequences {
    /// All tokens. // (N)
    pub tokens: Vec<u32>,
    /// The sequences' ranges within `tokens`, in order and without gaps.
    pub segments: Vec<Range<usize>>,
    /// Rows whose next token is asked for, ascending. // (M)
    pub rows: Vec<u32>,
    /// The token that follows each of them. // (M)
    pub targets: Vec<u32>,
}

impl PackedSequences {
    /// Appends a prompt and its completion, asking for every completion token.
    pub fn push(&mut self, prompt: &[u32], completion: &[u32]) {
        let start = self.tokens.len();
        self.tokens.extend_from_slice(prompt);
        self.tokens.extend_from_slice(completion);
        self.segments.push(start..self.tokens.len());
        // Without a prompt the first token follows nothing and cannot be asked for.
        let first = prompt.len().max(1);
        for position in first..prompt.len() + completion.len() {
            self.rows.push((start + position - 1) as u32);
            self.targets.push(self.tokens[start + position]);
        }
    }

    /// Length of the longest sequence.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.segments.iter().map(ExactSizeIterator::len).max().unwrap_or(0)
    }
}

/// What the asked positions give.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenLogprobs {
    /// log p(target | what precedes it), in nats. // (M)
    pub logprobs: Vec<f32>,
    /// Entropy of the next-token distribution, in nats. // (M)
    pub entropies: Vec<f32>,
}

/// What the backward pass needs of a forward pass.
#[derive(Debug)]
pub struct Tape {
    layers: Vec<layer::LayerTape>,
    head: head::HeadTape,
}

/// The model as training sees it: sizes, and rotations for the positions in use.
#[derive(Debug)]
pub struct TrainingModel {
    config: ModelConfig,
    rotary: RotaryTable,
}

impl TrainingModel {
    /// Prepares for sequences of up to `longest` tokens.
    #[must_use]
    pub fn new(config: &ModelConfig, longest: usize) -> Self {
        Self { config: config.clone(), rotary: RotaryTable::new(config.head_dim, config.rope_theta, longest) }
    }

    /// Log-probabilities and entropies at the asked positions, with the tape for [`Self::backward`].
    #[must_use]
    pub fn forward(&self, weights: &Weights, batch: &PackedSequences) -> (TokenLogprobs, Tape) {
        assert!(batch.longest() <= self.rotary.num_positions(), "rotations reach the longest sequence");
        let mut x = self.embed(weights, batch); // (N, D)
        let mut layers = Vec::with_capacity(self.config.num_layers);
        for index in 0..self.config.num_layers {
            let (next, tape) = layer::forward(&self.config, weights, index, &self.rotary, &batch.segments, x);
            x = next;
            layers.push(tape);
        }
        let (result, head) = head::forward(&self.config, weights, &x, batch);
        (result, Tape { layers, head })
    }

    /// Adds to `gradient` the gradient of `sum_i dlogprobs[i] * logprobs[i]`. // gradient: as the flat weights
    pub fn backward(&self, weights: &Weights, batch: &PackedSequences, tape: Tape, dlogprobs: &[f32], gradient: &mut [f32]) {
        let mut dx = head::backward(&self.config, weights, batch, &tape.head, dlogprobs, gradient); // (N, D)
        for (index, layer_tape) in tape.layers.into_iter().enumerate().rev() {
            dx = layer::backward(&self.config, weights, index, &self.rotary, &batch.segments, layer_tape, dx, gradient);
        }
        let width = self.config.hidden_size;
        let dembedding = &mut gradient[weights.layout.embedding.clone()];
        for (token, dx) in batch.tokens.iter().zip(dx.chunks_exact(width)) {
            let start = *token as usize * width;
            kernels::add_scaled(&mut dembedding[start..start + width], 1.0, dx);
        }
    }

    fn embed(&self, weights: &Weights, batch: &PackedSequences) -> Vec<f32> {
        let width = self.config.hidden_size;
        let embedding = weights.at(&weights.layout.embedding);
        let mut x = Vec::with_capacity(batch.tokens.len() * width);
        for token in &batch.tokens {
            let start = *token as usize * width;
            x.extend_from_slice(&embedding[start..start + width]);
        }
        x
    }
}
