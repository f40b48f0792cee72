//! The slow twin: the same model in plain, differentiable candle operations, one sequence at a time.
//!
//! Nothing in a run calls it; tests hold [`crate::training`] and [`crate::decoder`] against it, and it against candle-transformers.
//! Fused candle operations (rms_norm, rope, softmax_last_dim) are avoided: they drop gradients without an error.

use crate::training::PackedSequences;
use crate::weights::{Layout, Weights};
use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::ops::{log_softmax, silu, softmax};
use std::ops::Range;

/// The model's weights as one candle variable.
#[derive(Debug)]
pub struct ReferenceModel {
    weights: Weights,
    flat: Var,
}

impl ReferenceModel {
    /// Copies weights into a variable, in f64 so that finite differences can be told from rounding.
    ///
    /// # Errors
    /// Passes on candle's.
    pub fn new(weights: &Weights) -> Result<Self> {
        let flat = Var::from_tensor(&Tensor::new(weights.values.as_slice(), &Device::Cpu)?.to_dtype(DType::F64)?)?;
        Ok(Self { weights: weights.clone(), flat })
    }

    /// The flat variable; its gradient lies as [`Layout`] says.
    #[must_use]
    pub fn variable(&self) -> &Var {
        &self.flat
    }

    fn at(&self, range: &Range<usize>) -> Result<Tensor> {
        self.flat.narrow(0, range.start, range.len())
    }

    fn matrix(&self, range: &Range<usize>, inputs: usize) -> Result<Tensor> {
        self.at(range)?.reshape((range.len() / inputs, inputs))
    }

    fn norm(&self, x: &Tensor, range: &Range<usize>) -> Result<Tensor> {
        let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = x.broadcast_div(&(mean + self.weights.config.rms_norm_eps)?.sqrt()?)?;
        normed.broadcast_mul(&self.at(range)?)
    }

    /// Rotary embedding on (heads, T, head_dim).
    fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        let (_, length, head_dim) = x.dims3()?;
        let half = head_dim / 2;
        let rotary = self.weights.config.rotary_frequencies();
        let angles: Vec<f64> = (0..length)
            .flat_map(|position| rotary.frequencies.iter().map(move |frequency| position as f64 * frequency))
            .collect();
        let angles = Tensor::from_vec(angles, (length, half), &Device::Cpu)?;
        let (cos, sin) = ((angles.cos()? * rotary.amplitude)?, (angles.sin()? * rotary.amplitude)?);
        let (first, second) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
        let left = (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?;
        let right = (second.broadcast_mul(&cos)? + first.broadcast_mul(&sin)?)?;
        Tensor::cat(&[left, right], 2)
    }

    /// Logits of every position of one sequence. // (T, V), f64
    ///
    /// # Errors
    /// Passes on candle's.
    pub fn logits(&self, tokens: &[u32]) -> Result<Tensor> {
        let config = &self.weights.config;
        let layout: &Layout = &self.weights.layout;
        let (width, length, head_dim) = (config.hidden_size, tokens.len(), config.head_dim);
        let tokens = Tensor::new(tokens, &Device::Cpu)?;
        let mut x = self.matrix(&layout.embedding, width)?.index_select(&tokens, 0)?;
        let mask: Vec<f64> =
            (0..length * length).map(|at| if at % length > at / length { f64::NEG_INFINITY } else { 0.0 }).collect();
        let mask = Tensor::from_vec(mask, (length, length), &Device::Cpu)?;
        for layer in &layout.layers {
            let normed = self.norm(&x, &layer.attention_norm)?;
            let project = |range: &Range<usize>, bias: Option<&Range<usize>>, norm: Option<&Range<usize>>| -> Result<Tensor> {
                let mut y = normed.matmul(&self.matrix(range, width)?.t()?)?;
                if let Some(bias) = bias {
                    y = y.broadcast_add(&self.at(bias)?)?;
                }
                let mut y = y.reshape((length, range.len() / width / head_dim, head_dim))?;
                if let Some(norm) = norm {
                    y = self.norm(&y, norm)?;
                }
                y.transpose(0, 1)?.contiguous()
            };
            let biases = layer.qkv_bias.as_ref();
            let norms = layer.qk_norm.as_ref();
            let query = self.rotate(&project(&layer.query, biases.map(|b| &b[0]), norms.map(|n| &n[0]))?)?;
            let key = self.rotate(&project(&layer.key, biases.map(|b| &b[1]), norms.map(|n| &n[1]))?)?;
            let value = project(&layer.value, biases.map(|b| &b[2]), None)?;
            let groups = config.num_heads / config.num_kv_heads;
            let spread = |x: &Tensor| -> Result<Tensor> {
                x.unsqueeze(1)?.broadcast_as((config.num_kv_heads, groups, length, head_dim))?.reshape((
                    config.num_heads,
                    length,
                    head_dim,
                ))
            };
            let scores = (query.matmul(&spread(&key)?.t()?)? / (head_dim as f64).sqrt())?.broadcast_add(&mask)?;
            let attended = softmax(&scores, D::Minus1)?.matmul(&spread(&value)?)?; // (heads, T, head_dim)
            let attended = attended.transpose(0, 1)?.reshape((length, config.query_width()))?;
            let mut attended = attended.matmul(&self.matrix(&layer.output, config.query_width())?.t()?)?;
            if let Some(bias) = &layer.output_bias {
                attended = attended.broadcast_add(&self.at(bias)?)?;
            }
            x = (x + attended)?;
            let normed = self.norm(&x, &layer.feed_forward_norm)?;
            let gate = silu(&normed.matmul(&self.matrix(&layer.gate, width)?.t()?)?)?;
            let up = normed.matmul(&self.matrix(&layer.up, width)?.t()?)?;
            x = (x + (gate * up)?.matmul(&self.matrix(&layer.down, config.intermediate_size)?.t()?)?)?;
        }
        self.norm(&x, &layout.final_norm)?.matmul(&self.matrix(&layout.head, width)?.t()?)
    }

    /// Log-probabilities and entropies at the asked positions of packed sequences. // (M), f64
    ///
    /// # Errors
    /// Passes on candle's.
    pub fn token_logprobs(&self, batch: &PackedSequences) -> Result<(Tensor, Tensor)> {
        let mut all = Vec::new();
        for segment in &batch.segments {
            let seen = segment.past.iter().chain([&segment.rows]);
            let tokens: Vec<u32> = seen.flat_map(|rows| &batch.tokens[rows.clone()]).copied().collect();
            let logits = self.logits(&tokens)?.narrow(0, segment.first_position(), segment.rows.len())?;
            all.push(log_softmax(&logits, D::Minus1)?);
        }
        let rows = Tensor::new(batch.rows.as_slice(), &Device::Cpu)?;
        let asked = Tensor::cat(&all, 0)?.index_select(&rows, 0)?; // (M, V)
        let targets = Tensor::new(batch.targets.as_slice(), &Device::Cpu)?.unsqueeze(1)?;
        let entropies = (asked.exp()? * &asked)?.sum(1)?.neg()?;
        Ok((asked.gather(&targets, 1)?.squeeze(1)?, entropies))
    }
}
