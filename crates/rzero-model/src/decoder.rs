//! The generating way through the model: rows of tokens in, logits out, keys and values kept in cache blocks.
//!
//! A row is one token at one position of one sequence. Prefill feeds the rows of one prompt, decoding one row of each of many
//! sequences; both are the same code, and a row's result depends on its own past only. Slow twin: [`crate::reference`].

use crate::config::ModelConfig;
use crate::kernels::{RotaryTable, Rotation, add_scaled, exp_shifted, rms_norm, swiglu, vectorized};
use crate::kv_cache::CacheBlock;
use crate::matmul::PackedWeight;
use crate::weights::Weights;
use std::sync::Arc;

/// Rows of a prefill that go through the layers together.
const PREFILL_ROWS: usize = 128;

#[derive(Debug)]
struct DecoderLayer {
    attention_norm: Vec<f32>,
    query_key_value: PackedWeight,
    qk_norm: Option<[Vec<f32>; 2]>,
    output: PackedWeight,
    feed_forward_norm: Vec<f32>,
    gate_up: PackedWeight,
    down: PackedWeight,
}

/// A model with its weights laid out for decoding.
#[derive(Debug)]
pub struct Decoder {
    config: ModelConfig,
    rotary: RotaryTable,
    embedding: Vec<f32>,
    layers: Vec<DecoderLayer>,
    final_norm: Vec<f32>,
    head: PackedWeight,
}

/// A prompt that has gone through the model: its cache and the logits of the token after it.
#[derive(Debug)]
pub struct Prefix {
    /// What the prompt has in common with others, where there is such a beginning.
    pub shared: Option<Arc<Prefix>>,
    /// Keys and values of the rest of the prompt.
    pub cache: CacheBlock,
    /// Logits after its last token. // (V)
    pub logits: Vec<f32>,
}

impl Prefix {
    /// Positions of the whole prompt.
    #[must_use]
    pub fn num_positions(&self) -> usize {
        self.cache.len() + self.shared.as_ref().map_or(0, |shared| shared.num_positions())
    }

    /// The blocks of the prompt and one more, each with its positions, in order; and how many of the three there are.
    fn blocks<'a>(&'a self, own: &'a CacheBlock, own_positions: usize) -> ([(&'a CacheBlock, usize); 3], usize) {
        match &self.shared {
            Some(shared) => ([(&shared.cache, shared.cache.len()), (&self.cache, self.cache.len()), (own, own_positions)], 3),
            None => ([(&self.cache, self.cache.len()), (own, own_positions), (own, 0)], 2),
        }
    }
}

/// One sequence that is being decoded.
#[derive(Debug)]
pub struct Sequence {
    /// The prompt it continues.
    pub prefix: Arc<Prefix>,
    /// Keys and values of what it wrote itself.
    pub own: CacheBlock,
    /// The token that goes in next.
    pub token: u32,
}

/// Buffers of one worker, reused from token to token.
#[derive(Debug, Default)]
pub struct Scratch {
    x: Vec<f32>,
    normed: Vec<f32>,
    inverse: Vec<f32>,
    projected: Vec<f32>,
    attended: Vec<f32>,
    gate_up: Vec<f32>,
    inside: Vec<f32>,
    delta: Vec<f32>,
    scores: Vec<f32>,
    /// Logits of the last call. // (rows, V)
    pub logits: Vec<f32>,
}

fn sized(buffer: &mut Vec<f32>, numbers: usize) -> &mut [f32] {
    buffer.resize(numbers, 0.0);
    &mut buffer[..numbers]
}

impl Decoder {
    /// Lays out weights for decoding, for sequences of up to `longest` tokens.
    #[must_use]
    pub fn new(weights: &Weights, longest: usize) -> Self {
        let config = weights.config.clone();
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let layers = weights
            .layout
            .layers
            .iter()
            .map(|layer| {
                let bias = |index: usize| layer.qkv_bias.as_ref().map(|biases| weights.at(&biases[index]));
                DecoderLayer {
                    attention_norm: weights.at(&layer.attention_norm).to_vec(),
                    query_key_value: PackedWeight::stacked(
                        &[
                            (weights.at(&layer.query), bias(0)),
                            (weights.at(&layer.key), bias(1)),
                            (weights.at(&layer.value), bias(2)),
                        ],
                        width,
                    ),
                    qk_norm: layer.qk_norm.as_ref().map(|[q, k]| [weights.at(q).to_vec(), weights.at(k).to_vec()]),
                    output: PackedWeight::new(
                        weights.at(&layer.output),
                        width,
                        config.query_width(),
                        layer.output_bias.as_ref().map(|bias| weights.at(bias)),
                    ),
                    feed_forward_norm: weights.at(&layer.feed_forward_norm).to_vec(),
                    gate_up: PackedWeight::stacked(&[(weights.at(&layer.gate), None), (weights.at(&layer.up), None)], width),
                    down: PackedWeight::new(weights.at(&layer.down), width, inner, None),
                }
            })
            .collect();
        Self {
            rotary: RotaryTable::new(&config.rotary_frequencies(), longest),
            embedding: weights.at(&weights.layout.embedding).to_vec(),
            layers,
            final_norm: weights.at(&weights.layout.final_norm).to_vec(),
            head: PackedWeight::new(weights.at(&weights.layout.head), config.vocab_size, width, None),
            config,
        }
    }

    /// Sizes and switches.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Runs a prompt through the model. The prompt is not empty.
    #[must_use]
    pub fn prefill(&self, prompt: &[u32], scratch: &mut Scratch) -> Prefix {
        self.prefill_after(None, prompt, scratch)
    }

    /// Runs the rest of a prompt through the model, after a beginning that went through it before and has none before itself.
    #[must_use]
    pub fn prefill_after(&self, shared: Option<Arc<Prefix>>, prompt: &[u32], scratch: &mut Scratch) -> Prefix {
        assert!(!prompt.is_empty(), "a prompt has at least one token");
        assert!(shared.as_ref().is_none_or(|shared| shared.shared.is_none()), "a shared beginning is one block");
        let mut cache = CacheBlock::new(&self.config, prompt.len());
        let before = shared.as_ref().map_or(0, |shared| shared.cache.len());
        for tokens in prompt.chunks(PREFILL_ROWS) {
            let start = cache.len();
            cache.extend(tokens.len());
            self.embed(tokens.iter().copied(), scratch);
            for layer in 0..self.layers.len() {
                self.project(layer, scratch);
                for row in 0..tokens.len() {
                    let (key, value) = self.place_row(layer, row, before + start + row, scratch);
                    cache.write(layer, start + row, key, value);
                }
                for row in 0..tokens.len() {
                    let own = (&cache, start + row + 1);
                    match &shared {
                        Some(shared) => self.attend(layer, row, &[(&shared.cache, before), own], scratch),
                        None => self.attend(layer, row, &[own], scratch),
                    }
                }
                self.finish_layer(layer, scratch);
            }
        }
        // Only the last row's logits are wanted.
        let width = self.config.hidden_size;
        let last = scratch.x.len() - width;
        scratch.x.drain(..last);
        self.logits(scratch);
        Prefix { shared, cache, logits: scratch.logits.clone() }
    }

    /// Feeds every sequence its token; the logits of row i of the scratch are those of sequence i.
    pub fn step(&self, sequences: &mut [&mut Sequence], scratch: &mut Scratch) {
        self.embed(sequences.iter().map(|sequence| sequence.token), scratch);
        for sequence in sequences.iter_mut() {
            sequence.own.extend(1);
        }
        for layer in 0..self.layers.len() {
            self.project(layer, scratch);
            for (row, sequence) in sequences.iter_mut().enumerate() {
                let (prompt, own) = (sequence.prefix.num_positions(), sequence.own.len());
                let (key, value) = self.place_row(layer, row, prompt + own - 1, scratch);
                sequence.own.write(layer, own - 1, key, value);
                let (blocks, count) = sequence.prefix.blocks(&sequence.own, own);
                self.attend(layer, row, &blocks[..count], scratch);
            }
            self.finish_layer(layer, scratch);
        }
        self.logits(scratch);
    }

    fn embed(&self, tokens: impl Iterator<Item = u32>, scratch: &mut Scratch) {
        let width = self.config.hidden_size;
        scratch.x.clear();
        for token in tokens {
            let start = token as usize * width;
            scratch.x.extend_from_slice(&self.embedding[start..start + width]);
        }
    }

    /// Query, key and value of all rows, unrotated. // projected: (rows, query width + 2 kv widths)
    fn project(&self, layer: usize, scratch: &mut Scratch) {
        let (layer, rows) = (&self.layers[layer], scratch.x.len() / self.config.hidden_size);
        let normed = sized(&mut scratch.normed, scratch.x.len());
        let inverse = sized(&mut scratch.inverse, rows);
        rms_norm(&scratch.x, &layer.attention_norm, self.config.rms_norm_eps as f32, normed, inverse);
        layer.query_key_value.apply(normed, sized(&mut scratch.projected, rows * layer.query_key_value.outputs()));
        sized(&mut scratch.attended, rows * self.config.query_width());
    }

    /// Normalises and rotates one row's query and key in place; returns its key and value.
    fn place_row<'a>(&self, layer: usize, row: usize, position: usize, scratch: &'a mut Scratch) -> (&'a [f32], &'a [f32]) {
        let (q_width, kv_width, head_dim) = (self.config.query_width(), self.config.kv_width(), self.config.head_dim);
        let stride = q_width + 2 * kv_width;
        let projected = &mut scratch.projected[row * stride..(row + 1) * stride];
        if let Some([query_norm, key_norm]) = &self.layers[layer].qk_norm {
            let eps = self.config.rms_norm_eps as f32;
            let raw = projected.to_vec();
            let mut inverse = vec![0.0; self.config.num_heads.max(self.config.num_kv_heads)];
            let heads = q_width / head_dim;
            rms_norm(&raw[..q_width], query_norm, eps, &mut projected[..q_width], &mut inverse[..heads]);
            let heads = kv_width / head_dim;
            let key = q_width..q_width + kv_width;
            rms_norm(&raw[key.clone()], key_norm, eps, &mut projected[key], &mut inverse[..heads]);
        }
        vectorized(|| self.rotary.rotate(&mut projected[..q_width + kv_width], position, Rotation::Forward));
        let (key, value) = projected[q_width..].split_at(kv_width);
        (key, value)
    }

    /// Attention of one row over the given blocks, each up to a number of positions.
    fn attend(&self, layer: usize, row: usize, past: &[(&CacheBlock, usize)], scratch: &mut Scratch) {
        let config = &self.config;
        let (head_dim, q_width) = (config.head_dim, config.query_width());
        let stride = q_width + 2 * config.kv_width();
        let query = &scratch.projected[row * stride..row * stride + q_width];
        let attended = &mut scratch.attended[row * q_width..(row + 1) * q_width];
        let positions = past.iter().map(|(_, count)| count).sum();
        let scores = sized(&mut scratch.scores, positions);
        let groups = config.num_heads / config.num_kv_heads;
        let scale = 1.0 / (head_dim as f32).sqrt();
        vectorized(|| {
            for (head, (query, attended)) in query.chunks_exact(head_dim).zip(attended.chunks_exact_mut(head_dim)).enumerate() {
                let kv_head = head / groups;
                let mut start = 0;
                for (block, count) in past {
                    let scores = &mut scores[start..start + count];
                    scores.fill(0.0);
                    for (lane, q) in query.iter().enumerate() {
                        add_scaled(scores, q * scale, block.key_lane(layer, kv_head, lane, *count));
                    }
                    start += count;
                }
                let (_, sum) = exp_shifted(scores);
                let inverse = 1.0 / sum;
                attended.fill(0.0);
                let mut start = 0;
                for (block, count) in past {
                    let values = block.head_values(layer, kv_head, *count);
                    for (weight, value) in scores[start..start + count].iter().zip(values.chunks_exact(head_dim)) {
                        add_scaled(attended, weight * inverse, value);
                    }
                    start += count;
                }
            }
        });
    }

    /// Output projection, residual and feed-forward of all rows.
    fn finish_layer(&self, layer: usize, scratch: &mut Scratch) {
        let layer = &self.layers[layer];
        let inner = self.config.intermediate_size;
        let rows = scratch.x.len() / self.config.hidden_size;
        let delta = sized(&mut scratch.delta, scratch.x.len());
        layer.output.apply(&scratch.attended, delta);
        vectorized(|| add_scaled(&mut scratch.x, 1.0, delta));
        let normed = sized(&mut scratch.normed, scratch.x.len());
        let inverse = sized(&mut scratch.inverse, rows);
        rms_norm(&scratch.x, &layer.feed_forward_norm, self.config.rms_norm_eps as f32, normed, inverse);
        let gate_up = sized(&mut scratch.gate_up, rows * 2 * inner);
        layer.gate_up.apply(normed, gate_up);
        let inside = sized(&mut scratch.inside, rows * inner);
        for (gate_up, inside) in gate_up.chunks_exact(2 * inner).zip(inside.chunks_exact_mut(inner)) {
            swiglu(&gate_up[..inner], &gate_up[inner..], inside);
        }
        layer.down.apply(inside, delta);
        vectorized(|| add_scaled(&mut scratch.x, 1.0, delta));
    }

    fn logits(&self, scratch: &mut Scratch) {
        let rows = scratch.x.len() / self.config.hidden_size;
        let normed = sized(&mut scratch.normed, scratch.x.len());
        let inverse = sized(&mut scratch.inverse, rows);
        rms_norm(&scratch.x, &self.final_norm, self.config.rms_norm_eps as f32, normed, inverse);
        self.head.apply(normed, sized(&mut scratch.logits, rows * self.config.vocab_size));
    }
}
