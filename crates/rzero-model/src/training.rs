//! The differentiable way through the model: log-probabilities of chosen tokens, and the gradient of all weights.
//!
//! Sequences lie end to end without padding, shared beginnings once ([`packing`]): every matrix product runs over all their tokens at once,
//! attention over one segment at a time. The forward pass returns a [`Tape`] with what the backward pass needs; normalised inputs and attention
//! weights are computed again there instead of being kept, logits where they would take much room, and with [`Keep::Inputs`] everything but the
//! layers' inputs. The gradient is handed over part by part, so that whoever wants its sum, or a projection of it, holds no second one. Large
//! products and long loops run on all threads of the pool; no result depends on how many these are. Buffers are used again ([`workspace`]).
//!
//! Shapes: N rows, D hidden, M asked positions. Slow twin: [`crate::reference`].

pub mod attention;
mod head;
mod layer;
pub mod packing;
pub mod workspace;

pub use packing::PackedSequences;

use crate::config::ModelConfig;
use crate::kernels::RotaryTable;
use crate::weights::{Layout, Weights};
use packing::Segment;
use std::ops::Range;
use workspace::Workspace;

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

/// Takes a part of the gradient: its range in the flat buffer, and the numbers to be added there.
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

/// The model as training sees it: sizes, rotations for the positions in use, and buffers.
#[derive(Debug)]
pub struct TrainingModel {
    config: ModelConfig,
    rotary: RotaryTable,
    workspace: &'static Workspace,
}

/// What every part of a pass reads.
#[derive(Debug, Clone, Copy)]
struct Pass<'a> {
    config: &'a ModelConfig,
    weights: &'a Weights,
    rotary: &'a RotaryTable,
    segments: &'a [Segment],
    workspace: &'a Workspace,
}

impl TrainingModel {
    /// Prepares for sequences of up to `longest` tokens.
    #[must_use]
    pub fn new(config: &ModelConfig, longest: usize) -> Self {
        let rotary = RotaryTable::new(&config.rotary_frequencies(), longest);
        Self { config: config.clone(), rotary, workspace: Workspace::of_process() }
    }

    fn pass<'a>(&'a self, weights: &'a Weights, batch: &'a PackedSequences) -> Pass<'a> {
        assert!(batch.longest() <= self.rotary.num_positions(), "rotations reach the longest sequence");
        let Self { config, rotary, workspace } = self;
        Pass { config, weights, rotary, segments: &batch.segments, workspace }
    }

    /// Log-probabilities and entropies at the asked positions.
    #[must_use]
    pub fn logprobs(&self, weights: &Weights, batch: &PackedSequences) -> TokenLogprobs {
        self.forward(weights, batch, Keep::Nothing).0
    }

    /// Log-probabilities and entropies at the asked positions, with the tape for [`Self::backward`].
    #[must_use]
    pub fn forward(&self, weights: &Weights, batch: &PackedSequences, keep: Keep) -> (TokenLogprobs, Tape) {
        let pass = self.pass(weights, batch);
        let width = self.config.hidden_size;
        let mut x = self.embed(weights, batch); // (N, D)
        let mut layers = Vec::with_capacity(self.config.num_layers);
        for index in 0..self.config.num_layers {
            let input = if keep == Keep::Inputs { Some(x.clone()) } else { None };
            let (next, tape) = layer::forward(&pass, index, x);
            x = next;
            match (keep, input) {
                (Keep::Activations, _) => layers.push(LayerRecord::Activations(Box::new(tape))),
                (_, input) => {
                    tape.give(&self.config, self.workspace);
                    layers.extend(input.map(LayerRecord::Input));
                }
            }
        }
        let (result, head) = head::forward(&pass, &x, batch, keep);
        self.workspace.give(x, width);
        (result, Tape { layers, head })
    }

    /// Hands the gradient of `sum_i dlogprobs[i] * logprobs[i]` to `sink`: parts to be added, of which some name the same numbers. The tape is
    /// not one of [`Keep::Nothing`].
    pub fn backward(&self, weights: &Weights, batch: &PackedSequences, tape: Tape, dlogprobs: &[f32], sink: GradientSink<'_>) {
        assert_eq!(tape.layers.len(), self.config.num_layers, "the forward pass kept every layer");
        let pass = self.pass(weights, batch);
        let mut dx = head::backward(&pass, batch, tape.head, dlogprobs, sink); // (N, D)
        let largest = weights.layout.layers.iter().map(|layer| layer.range().len()).max().unwrap_or(0);
        let mut buffer = self.workspace.take(1, largest);
        for (index, record) in tape.layers.into_iter().enumerate().rev() {
            let range = weights.layout.layers[index].range();
            let tape = match record {
                LayerRecord::Activations(tape) => *tape,
                LayerRecord::Input(input) => {
                    let (output, tape) = layer::forward(&pass, index, input);
                    self.workspace.give(output, self.config.hidden_size);
                    tape
                }
            };
            let gradient = layer::LayerGradient { start: range.start, values: &mut buffer[..range.len()] };
            dx = layer::backward(&pass, index, tape, dx, gradient);
            sink(range.clone(), &buffer[..range.len()]);
        }
        self.workspace.give(buffer, largest);
        let width = self.config.hidden_size;
        for (token, dx) in batch.tokens.iter().zip(dx.chunks_exact(width)) {
            let start = weights.layout.embedding.start + *token as usize * width;
            sink(start..start + width, dx);
        }
        self.workspace.give(dx, width);
    }

    fn embed(&self, weights: &Weights, batch: &PackedSequences) -> Vec<f32> {
        let width = self.config.hidden_size;
        let embedding = weights.at(&weights.layout.embedding);
        let mut x = self.workspace.take(batch.tokens.len(), width);
        for (token, x) in batch.tokens.iter().zip(x.chunks_exact_mut(width)) {
            let start = *token as usize * width;
            x.copy_from_slice(&embedding[start..start + width]);
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
    // What a layer's backward pass holds beside its tape: gradients of the inner width, of the residual stream and of attention's inputs,
    // these in parts too; runs of segments that share a past have parts for it each.
    let (q_width, kv_width) = (config.query_width(), config.kv_width());
    let passing = 3 * config.hidden_size + config.intermediate_size.max(3 * q_width + 8 * kv_width);
    let scores = attention::scores(config, longest) * threads;
    let layer_gradient = Layout::new(config).layers.first().map_or(0, |layer| layer.range().len());
    // The right matrix of a product is laid out once more.
    let panels = (2 * config.intermediate_size * config.hidden_size).max(num_rows * config.intermediate_size);
    4 * (num_rows * (layers + passing) + scores + layer_gradient + panels + head::numbers(config, num_asked, keep))
}
