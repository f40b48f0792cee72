//! The differentiable way through the model: log-probabilities of chosen tokens, and the gradient of all weights.
//!
//! Sequences lie end to end without padding, shared beginnings once ([`packing`]): every matrix product runs over all their tokens at once,
//! attention over one segment at a time. The forward pass returns a [`Tape`] with what the backward pass needs; normalised inputs, attention
//! weights and logits are computed again there instead of being kept, and with [`Keep::Inputs`] everything but the layers' inputs is. Logits
//! exist for the asked positions only, some at a time, so that (tokens x vocabulary) is never held. The gradient is handed over part by part, so
//! that whoever wants its sum, or a projection of it, holds no second one. Large products run on all threads of the pool; no result depends on
//! how many these are.
//!
//! Shapes: N rows, D hidden, M asked positions. Slow twin: [`crate::reference`].

mod attention;
mod head;
mod layer;
pub mod packing;

pub use packing::PackedSequences;

use crate::config::ModelConfig;
use crate::kernels::{self, RotaryTable};
use crate::weights::{Layout, Weights};
use std::ops::Range;

/// What the asked positions give.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenLogprobs {
    /// log p(target | what precedes it), in nats. // (M)
    pub logprobs: Vec<f32>,
    /// Entropy of the next-token distribution, in nats. // (M)
    pub entropies: Vec<f32>,
}

/// What a forward pass keeps of its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: log-probabilities only.
    Nothing,
    /// The input of every layer; the rest is computed again in the backward pass, which costs a second forward pass.
    Inputs,
    /// What each layer's backward pass reads.
    Activations,
}

/// Takes a finished part of the gradient: its range in the flat buffer, and the numbers to be added there.
pub type GradientSink<'a> = &'a mut dyn FnMut(Range<usize>, &[f32]);

/// What the backward pass needs of a forward pass.
#[derive(Debug)]
pub struct Tape {
    layers: Vec<LayerRecord>,
    head: head::HeadTape,
}

#[derive(Debug)]
enum LayerRecord {
    Input(Vec<f32>),
    Activations(Box<layer::LayerTape>),
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
        Self { config: config.clone(), rotary: RotaryTable::new(&config.rotary_frequencies(), longest) }
    }

    /// Log-probabilities and entropies at the asked positions.
    #[must_use]
    pub fn logprobs(&self, weights: &Weights, batch: &PackedSequences) -> TokenLogprobs {
        self.forward(weights, batch, Keep::Nothing).0
    }

    /// Log-probabilities and entropies at the asked positions, with the tape for [`Self::backward`].
    #[must_use]
    pub fn forward(&self, weights: &Weights, batch: &PackedSequences, keep: Keep) -> (TokenLogprobs, Tape) {
        assert!(batch.longest() <= self.rotary.num_positions(), "rotations reach the longest sequence");
        let mut x = self.embed(weights, batch); // (N, D)
        let mut layers = Vec::with_capacity(self.config.num_layers);
        for index in 0..self.config.num_layers {
            let input = if keep == Keep::Inputs { Some(x.clone()) } else { None };
            let (next, tape) = layer::forward(&self.config, weights, index, &self.rotary, &batch.segments, x);
            x = next;
            match (keep, input) {
                (Keep::Activations, _) => layers.push(LayerRecord::Activations(Box::new(tape))),
                (_, Some(input)) => layers.push(LayerRecord::Input(input)),
                (_, None) => {}
            }
        }
        let (result, head) = head::forward(&self.config, weights, &x, batch);
        (result, Tape { layers, head })
    }

    /// Hands the gradient of `sum_i dlogprobs[i] * logprobs[i]` to `sink`, every parameter once. The tape is not one of [`Keep::Nothing`].
    pub fn backward(&self, weights: &Weights, batch: &PackedSequences, tape: Tape, dlogprobs: &[f32], sink: GradientSink<'_>) {
        assert_eq!(tape.layers.len(), self.config.num_layers, "the forward pass kept every layer");
        let (mut dx, mut dembedding) = head::backward(&self.config, weights, batch, &tape.head, dlogprobs, sink); // (N, D)
        let mut buffer = Vec::new();
        for (index, record) in tape.layers.into_iter().enumerate().rev() {
            let range = weights.layout.layers[index].range();
            buffer.clear();
            buffer.resize(range.len(), 0.0);
            let (rotary, segments) = (&self.rotary, &batch.segments);
            let tape = match record {
                LayerRecord::Activations(tape) => *tape,
                LayerRecord::Input(input) => layer::forward(&self.config, weights, index, rotary, segments, input).1,
            };
            let gradient = layer::LayerGradient { start: range.start, values: &mut buffer };
            dx = layer::backward(&self.config, weights, index, rotary, segments, tape, dx, gradient);
            sink(range, &buffer);
        }
        let width = self.config.hidden_size;
        for (token, dx) in batch.tokens.iter().zip(dx.chunks_exact(width)) {
            let start = *token as usize * width;
            kernels::add_scaled(&mut dembedding[start..start + width], 1.0, dx);
        }
        sink(weights.layout.embedding.clone(), &dembedding);
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

/// Most bytes that a forward and backward pass holds at once beside the weights and the sums of its gradient: rows are tokens laid out, of which
/// `num_asked` are asked for, in segments that see `longest` positions at most.
#[must_use]
pub fn pass_bytes(config: &ModelConfig, num_rows: usize, num_asked: usize, longest: usize, keep: Keep, threads: usize) -> usize {
    let layer = layer::LayerTape::numbers_a_row(config);
    let layers = match keep {
        Keep::Nothing => layer,
        Keep::Inputs => config.num_layers * config.hidden_size + layer,
        Keep::Activations => config.num_layers * layer,
    };
    // What a layer's backward pass holds beside its tape: gradients of the inner width, of the residual stream and of attention's inputs.
    let passing = 3 * config.hidden_size + config.intermediate_size + 2 * (config.query_width() + config.kv_width());
    let scores = 2 * longest.min(num_rows) * longest * threads.min(config.num_kv_heads);
    let layer_gradient = Layout::new(config).layers.first().map_or(0, |layer| layer.range().len());
    let in_layers = num_rows * (layers + passing) + scores + layer_gradient;
    let embedding = config.vocab_size * config.hidden_size;
    4 * (in_layers + embedding + num_asked * head::numbers_a_row(config)) + head::working_bytes(config, num_asked, threads)
}
