//! The generating way through the model: rows of tokens in, logits out, keys and values kept in a cache of blocks.
//!
//! A row is one token at one position of one sequence. Prefill feeds the rows of one prompt, decoding one row of each of many
//! sequences; both are the same code, and a row's result depends on its own past only. A layer is five steps, each shared by all members of
//! a team of threads: products strip by strip, attention row by row. Slow twin: [`crate::reference`].

use crate::config::ModelConfig;
use crate::decode_attention::attend;
use crate::kernels::{RotaryTable, Rotation, add_scaled, maximum, rms_norm, swiglu_in_place, vectorized};
use crate::kv_cache::{BlockPool, KvCache};
use crate::panels::PackedWeight;
use crate::strips::{Lanes, Strips, WIDTH};
use crate::team::{Team, with_team};
use crate::weights::Weights;
use half::bf16;
use rzero_schema::vocab::WeightFormat;
use std::sync::Arc;

/// Rows of a prefill that go through the layers together.
const PREFILL_ROWS: usize = 128;

/// Tokens of a piece of logits: what one member computes at a time, small enough for its cache.
const PIECE: usize = 64 * WIDTH;

#[derive(Debug)]
struct DecoderLayer {
    attention_norm: Vec<f32>,
    query_key_value: PackedWeight,
    qk_norm: Option<[Vec<f32>; 2]>,
    output: PackedWeight,
    feed_forward_norm: Vec<f32>,
    gate: PackedWeight,
    up: PackedWeight,
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
    num_weights: usize,
}

/// A prompt that has gone through the model: its cache and the logits of the token after it.
#[derive(Debug)]
pub struct Prefix {
    /// What the prompt has in common with others, where there is such a beginning.
    pub shared: Option<Arc<Prefix>>,
    /// Keys and values of the rest of the prompt.
    pub cache: KvCache,
    /// Logits after its last token. // (V)
    pub logits: Vec<f32>,
}

impl Prefix {
    /// Positions of the whole prompt.
    #[must_use]
    pub fn num_positions(&self) -> usize {
        self.cache.len() + self.shared.as_ref().map_or(0, |shared| shared.num_positions())
    }
}

/// One sequence that is being decoded.
#[derive(Debug)]
pub struct Sequence {
    /// The prompt it continues.
    pub prefix: Arc<Prefix>,
    /// Keys and values of what it wrote itself.
    pub own: KvCache,
    /// The token that goes in next.
    pub token: u32,
}

/// Buffers of one team, reused from token to token.
#[derive(Debug, Default)]
pub struct Scratch {
    x: Strips,
    normed: Strips,
    inverse: Vec<f32>,
    projected: Strips,
    attended: Strips,
    delta: Strips,
    gate: Strips,
    inside: Strips,
    rows: Vec<f32>,
    pool: BlockPool,
    logits: Logits,
}

impl Scratch {
    /// Logits of the last step's rows.
    #[must_use]
    pub fn logits(&self) -> &Logits {
        &self.logits
    }

    /// Where the blocks of finished sequences go back to.
    pub fn pool(&mut self) -> &mut BlockPool {
        &mut self.pool
    }
}

/// Logits of some rows, in pieces of the vocabulary; the largest of each piece is taken as the piece is made.
#[derive(Debug, Default)]
pub struct Logits {
    rows: usize,
    vocab: usize,
    /// A piece holds all rows, each with its part of the vocabulary. // (pieces, rows, PIECE), the last piece shorter
    values: Vec<f32>,
    largest: Vec<f32>, // (pieces, rows)
}

impl Logits {
    fn shape(&mut self, rows: usize, vocab: usize) {
        (self.rows, self.vocab) = (rows, vocab);
        self.values.resize(rows * vocab, 0.0);
        self.largest.resize(rows * vocab.div_ceil(PIECE), 0.0);
    }

    /// One row, piece by piece.
    pub fn row(&self, row: usize) -> impl Iterator<Item = &[f32]> + Clone {
        self.values.chunks(self.rows * PIECE).map(move |piece| {
            let length = piece.len() / self.rows;
            &piece[row * length..(row + 1) * length]
        })
    }

    /// The largest logit of a row.
    #[must_use]
    pub fn largest(&self, row: usize) -> f32 {
        self.largest.iter().skip(row).step_by(self.rows).fold(f32::NEG_INFINITY, |largest, value| largest.max(*value))
    }
}

impl Decoder {
    /// Lays out weights for decoding in a format, for sequences of up to `longest` tokens.
    #[must_use]
    pub fn new(weights: &Weights, longest: usize, format: WeightFormat) -> Self {
        let config = weights.config.clone();
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let layers = weights
            .layout
            .layers
            .iter()
            .map(|layer| {
                let matrices = [&layer.query, &layer.key, &layer.value].map(|range| weights.at(range)).concat();
                let biases = layer.qkv_bias.as_ref().map(|all| all.iter().flat_map(|range| weights.at(range)).copied().collect());
                let biases: Option<Vec<f32>> = biases;
                let outputs = matrices.len() / width;
                let bias = layer.output_bias.as_ref().map(|bias| weights.at(bias));
                DecoderLayer {
                    attention_norm: weights.at(&layer.attention_norm).to_vec(),
                    query_key_value: PackedWeight::new(&matrices, outputs, width, biases.as_deref(), format),
                    qk_norm: layer.qk_norm.as_ref().map(|[q, k]| [weights.at(q).to_vec(), weights.at(k).to_vec()]),
                    output: PackedWeight::new(weights.at(&layer.output), width, config.query_width(), bias, format),
                    feed_forward_norm: weights.at(&layer.feed_forward_norm).to_vec(),
                    gate: PackedWeight::new(weights.at(&layer.gate), inner, width, None, format),
                    up: PackedWeight::new(weights.at(&layer.up), inner, width, None, format),
                    down: PackedWeight::new(weights.at(&layer.down), width, inner, None, format),
                }
            })
            .collect();
        let head = PackedWeight::new(weights.at(&weights.layout.head), config.vocab_size, width, None, format);
        let embedding = match format {
            // A tied embedding is the head's matrix, as it is computed with.
            WeightFormat::Q8 if config.is_tied => head.rounded(),
            WeightFormat::F32 | WeightFormat::Q8 => weights.at(&weights.layout.embedding).to_vec(),
            WeightFormat::Bf16 => {
                weights.at(&weights.layout.embedding).iter().map(|value| bf16::from_f32(*value).to_f32()).collect()
            }
        };
        Self {
            rotary: RotaryTable::new(&config.rotary_frequencies(), longest),
            embedding,
            layers,
            final_norm: weights.at(&weights.layout.final_norm).to_vec(),
            head,
            num_weights: weights.values.len(),
            config,
        }
    }

    /// Sizes and switches.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Numbers of the model.
    #[must_use]
    pub fn num_weights(&self) -> usize {
        self.num_weights
    }

    /// The logits of the token after a prompt, which is not empty. // (V)
    #[must_use]
    pub fn logits_after(&self, prompt: &[u32]) -> Vec<f32> {
        with_team(1, |team| self.prefill(prompt, team, &mut Scratch::default())).logits
    }

    /// Runs a prompt through the model. The prompt is not empty.
    #[must_use]
    pub fn prefill(&self, prompt: &[u32], team: &mut Team<'_>, scratch: &mut Scratch) -> Prefix {
        self.prefill_after(None, prompt, team, scratch)
    }

    /// Runs the rest of a prompt through the model, after a beginning that went through it before and has none before itself.
    #[must_use]
    pub fn prefill_after(
        &self,
        shared: Option<Arc<Prefix>>,
        prompt: &[u32],
        team: &mut Team<'_>,
        scratch: &mut Scratch,
    ) -> Prefix {
        assert!(!prompt.is_empty(), "a prompt has at least one token");
        assert!(shared.as_ref().is_none_or(|shared| shared.shared.is_none()), "a shared beginning is one cache");
        let mut cache = KvCache::new(&self.config);
        let before = shared.as_ref().map_or(0, |shared| shared.cache.len());
        for tokens in prompt.chunks(PREFILL_ROWS) {
            let start = cache.len();
            cache.extend(tokens.len(), &mut scratch.pool);
            self.embed(tokens.iter().copied(), tokens.len(), scratch);
            for (index, layer) in self.layers.iter().enumerate() {
                self.project(layer, team, scratch);
                let Scratch { projected, rows, .. } = scratch;
                rows.resize(tokens.len() * self.row_width(), 0.0);
                for (row, placed) in rows.chunks_exact_mut(self.row_width()).enumerate() {
                    projected.gather(row, &mut placed[..projected.columns()]);
                    let (key, value) = self.place(layer, before + start + row, placed);
                    cache.write(index, start + row, key, value);
                }
                let (cache, shared) = (&cache, shared.as_ref());
                team.split(rows, self.row_width(), |_, row, placed| {
                    let own = (cache, start + row + 1);
                    match shared {
                        Some(shared) => self.attend(index, &[(&shared.cache, before), own], placed),
                        None => self.attend(index, &[own], placed),
                    }
                });
                self.finish_layer(layer, team, scratch);
            }
        }
        // Only the last row's logits are wanted.
        let mut last = vec![0.0; self.config.hidden_size];
        scratch.x.gather(scratch.x.rows() - 1, &mut last);
        scratch.x.shape(1, self.config.hidden_size);
        scratch.x.scatter(0, &last);
        self.logits(team, scratch);
        Prefix { shared, cache, logits: scratch.logits.row(0).flatten().copied().collect() }
    }

    /// Feeds every sequence its token; the logits of row i of the scratch are those of sequence i.
    pub fn step(&self, sequences: &mut [&mut Sequence], team: &mut Team<'_>, scratch: &mut Scratch) {
        self.embed(sequences.iter().map(|sequence| sequence.token), sequences.len(), scratch);
        for sequence in sequences.iter_mut() {
            sequence.own.extend(1, &mut scratch.pool);
        }
        for (index, layer) in self.layers.iter().enumerate() {
            self.project(layer, team, scratch);
            let Scratch { projected, rows, .. } = scratch;
            let columns = projected.columns();
            rows.resize(sequences.len() * self.row_width(), 0.0);
            team.split_both((rows, self.row_width()), (sequences, 1), |_, row, placed, sequence| {
                projected.gather(row, &mut placed[..columns]);
                let Sequence { prefix, own, .. } = &mut *sequence[0];
                let count = own.len();
                let (key, value) = self.place(layer, prefix.num_positions() + count - 1, placed);
                own.write(index, count - 1, key, value);
                let last = [(&prefix.cache, prefix.cache.len()), (&*own, count)];
                match &prefix.shared {
                    Some(shared) => self.attend(index, &[(&shared.cache, shared.cache.len()), last[0], last[1]], placed),
                    None => self.attend(index, &last, placed),
                }
            });
            self.finish_layer(layer, team, scratch);
        }
        self.logits(team, scratch);
    }

    fn embed(&self, tokens: impl Iterator<Item = u32>, rows: usize, scratch: &mut Scratch) {
        let width = self.config.hidden_size;
        scratch.x.shape(rows, width);
        for (row, token) in tokens.enumerate() {
            scratch.x.scatter(row, &self.embedding[token as usize * width..(token as usize + 1) * width]);
        }
    }

    /// Query, key and value of all rows, unrotated. // projected: (rows, query width + 2 kv widths)
    fn project(&self, layer: &DecoderLayer, team: &mut Team<'_>, scratch: &mut Scratch) {
        let Scratch { x, normed, inverse, projected, .. } = scratch;
        x.rms_norm_into(&layer.attention_norm, self.config.rms_norm_eps as f32, team, inverse, normed);
        apply(&layer.query_key_value, normed, team, projected);
    }

    /// Numbers of a row of what attention works on: query, key, value, and room for the attended values.
    fn row_width(&self) -> usize {
        2 * (self.config.query_width() + self.config.kv_width())
    }

    /// Normalises and rotates one row's query and key in place; returns its key and value.
    fn place<'a>(&self, layer: &DecoderLayer, position: usize, placed: &'a mut [f32]) -> (&'a [f32], &'a [f32]) {
        let (q_width, kv_width) = (self.config.query_width(), self.config.kv_width());
        let (query_key, rest) = placed.split_at_mut(q_width + kv_width);
        if let Some([query_norm, key_norm]) = &layer.qk_norm {
            let eps = self.config.rms_norm_eps as f32;
            let (query, key) = query_key.split_at_mut(q_width);
            for (values, norm) in [(query, query_norm), (key, key_norm)] {
                for head in values.chunks_exact_mut(self.config.head_dim) {
                    let mut raw = [0.0; MOST_HEAD_DIM];
                    let raw = &mut raw[..head.len()];
                    raw.copy_from_slice(head);
                    rms_norm(raw, norm, eps, head, &mut [0.0]);
                }
            }
        }
        vectorized(
            #[inline(always)]
            || self.rotary.rotate(query_key, position, Rotation::Forward),
        );
        (&query_key[q_width..], &rest[..kv_width])
    }

    /// Attention of one row over the given runs of the past; the attended values go to the row's end.
    fn attend(&self, layer: usize, past: &[(&KvCache, usize)], placed: &mut [f32]) {
        let q_width = self.config.query_width();
        let (query, rest) = placed.split_at_mut(q_width);
        let attended = rest.len() - q_width;
        attend(&self.config, layer, past, query, &mut rest[attended..]);
    }

    /// Output projection, residual and feed-forward of all rows.
    fn finish_layer(&self, layer: &DecoderLayer, team: &mut Team<'_>, scratch: &mut Scratch) {
        let Scratch { x, normed, inverse, attended, delta, gate, inside, rows, .. } = scratch;
        let (num_rows, q_width) = (x.rows(), self.config.query_width());
        attended.shape(num_rows, q_width);
        attended.scatter_all(rows, self.row_width(), self.row_width() - q_width, team);
        apply_residual(&layer.output, attended, team, delta, x);
        x.rms_norm_into(&layer.feed_forward_norm, self.config.rms_norm_eps as f32, team, inverse, normed);
        gate.shape(num_rows, layer.gate.outputs());
        inside.shape(num_rows, layer.gate.outputs());
        let normed = &*normed;
        // The strip of the target holds `up` until the gate is applied to it.
        team.split_both((gate.values_mut(), num_rows), (inside.values_mut(), num_rows), |_, panel, gate, inside| {
            layer.gate.apply(panel, normed, gate);
            layer.up.apply(panel, normed, inside);
            swiglu_in_place(gate.as_flattened(), inside.as_flattened_mut());
        });
        apply_residual(&layer.down, inside, team, delta, x);
    }

    fn logits(&self, team: &mut Team<'_>, scratch: &mut Scratch) {
        let Scratch { x, normed, inverse, logits, .. } = scratch;
        x.rms_norm_into(&self.final_norm, self.config.rms_norm_eps as f32, team, inverse, normed);
        let (rows, vocab) = (x.rows(), self.config.vocab_size);
        logits.shape(rows, vocab);
        let normed = &*normed;
        team.split_both((&mut logits.values, rows * PIECE), (&mut logits.largest, rows), |_, piece, values, largest| {
            let length = values.len() / rows;
            STRIP.with_borrow_mut(|strip| {
                strip.resize(rows, [0.0; WIDTH]);
                for (panel, first) in (piece * PIECE / WIDTH..).zip((0..length).step_by(WIDTH)) {
                    self.head.apply(panel, normed, strip);
                    let columns = WIDTH.min(length - first);
                    for (lanes, values) in strip.iter().zip(values.chunks_exact_mut(length)) {
                        values[first..first + columns].copy_from_slice(&lanes[..columns]);
                    }
                }
            });
            vectorized(
                #[inline(always)]
                || largest.iter_mut().zip(values.chunks_exact(length)).for_each(|(largest, row)| *largest = maximum(row)),
            );
        });
    }
}

thread_local! {
    /// A strip of logits on its way into its piece.
    static STRIP: std::cell::RefCell<Vec<Lanes>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Largest head that norms of heads are made for; [`ModelConfig`] refuses larger ones.
const MOST_HEAD_DIM: usize = 1024;

/// `y = x W^T + bias`, a strip at a time.
fn apply(weight: &PackedWeight, x: &Strips, team: &mut Team<'_>, y: &mut Strips) {
    y.shape(x.rows(), weight.outputs());
    team.split(y.values_mut(), x.rows(), |_, panel, y| weight.apply(panel, x, y));
}

/// `residual += x W^T + bias`, a strip at a time; the product is summed up by itself first.
fn apply_residual(weight: &PackedWeight, x: &Strips, team: &mut Team<'_>, delta: &mut Strips, residual: &mut Strips) {
    let rows = x.rows();
    delta.shape(rows, weight.outputs());
    team.split_both((delta.values_mut(), rows), (residual.values_mut(), rows), |_, panel, delta, residual| {
        weight.apply(panel, x, delta);
        vectorized(
            #[inline(always)]
            || add_scaled(residual.as_flattened_mut(), 1.0, delta.as_flattened()),
        );
    });
}
