//! One layer on a device, in plain differentiable candle operations: projection, attention, the rest.
//!
//! Rows (tokens) lie in one dimension, each with a position of its own; only attention knows which rows belong together. Every function
//! records a graph exactly when a tensor it is given is a variable. Shapes: N rows, D hidden, S sequences of T new and L past tokens.

use super::{Rotation, Upload};
use crate::config::ModelConfig;
use crate::weights::LayerLayout;
use candle_core::{D, DType, Result, Tensor, Var};
use std::ops::Range;

/// The parameters of one layer: matrices in the device's precision, norms and biases in f32.
#[derive(Debug)]
pub(super) struct DeviceLayer {
    attention_norm: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    qkv_bias: Option<[Tensor; 3]>,
    qk_norm: Option<[Tensor; 2]>,
    output: Tensor,
    output_bias: Option<Tensor>,
    feed_forward_norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

/// Query, key and value of some rows, rotated. // (N, heads, head_dim), (N, kv heads, head_dim) twice
pub(super) struct Projected {
    pub(super) query: Tensor,
    pub(super) key: Tensor,
    pub(super) value: Tensor,
}

impl Projected {
    pub(super) fn detached(&self) -> Self {
        Self { query: self.query.detach(), key: self.key.detach(), value: self.value.detach() }
    }
}

impl DeviceLayer {
    /// Copies a layer's parameters to the device, as variables.
    pub(super) fn upload(config: &ModelConfig, places: &LayerLayout, upload: &Upload<'_>) -> Result<Self> {
        let variable = |tensor: Tensor| Ok::<_, candle_core::Error>(Var::from_tensor(&tensor)?.into_inner());
        let matrix = |range: &Range<usize>, inputs: usize| variable(upload.matrix(range, inputs)?);
        let vector = |range: &Range<usize>| variable(upload.vector(range)?);
        let width = config.hidden_size;
        Ok(Self {
            attention_norm: vector(&places.attention_norm)?,
            query: matrix(&places.query, width)?,
            key: matrix(&places.key, width)?,
            value: matrix(&places.value, width)?,
            qkv_bias: match &places.qkv_bias {
                Some([query, key, value]) => Some([vector(query)?, vector(key)?, vector(value)?]),
                None => None,
            },
            qk_norm: match &places.qk_norm {
                Some([query, key]) => Some([vector(query)?, vector(key)?]),
                None => None,
            },
            output: matrix(&places.output, config.query_width())?,
            output_bias: places.output_bias.as_ref().map(vector).transpose()?,
            feed_forward_norm: vector(&places.feed_forward_norm)?,
            gate: matrix(&places.gate, width)?,
            up: matrix(&places.up, width)?,
            down: matrix(&places.down, config.intermediate_size)?,
        })
    }

    /// The same numbers, in the same memory, without gradients.
    pub(super) fn detached(&self) -> Self {
        Self {
            attention_norm: self.attention_norm.detach(),
            query: self.query.detach(),
            key: self.key.detach(),
            value: self.value.detach(),
            qkv_bias: self.qkv_bias.as_ref().map(|biases| biases.each_ref().map(Tensor::detach)),
            qk_norm: self.qk_norm.as_ref().map(|norms| norms.each_ref().map(Tensor::detach)),
            output: self.output.detach(),
            output_bias: self.output_bias.as_ref().map(Tensor::detach),
            feed_forward_norm: self.feed_forward_norm.detach(),
            gate: self.gate.detach(),
            up: self.up.detach(),
            down: self.down.detach(),
        }
    }

    /// Every parameter with its place in the flat weights.
    pub(super) fn parameters<'a>(&'a self, places: &'a LayerLayout) -> Vec<(&'a Range<usize>, &'a Tensor)> {
        let mut all = vec![
            (&places.attention_norm, &self.attention_norm),
            (&places.query, &self.query),
            (&places.key, &self.key),
            (&places.value, &self.value),
            (&places.output, &self.output),
            (&places.feed_forward_norm, &self.feed_forward_norm),
            (&places.gate, &self.gate),
            (&places.up, &self.up),
            (&places.down, &self.down),
        ];
        if let (Some(places), Some(biases)) = (&places.qkv_bias, &self.qkv_bias) {
            all.extend(places.iter().zip(biases));
        }
        if let (Some(places), Some(norms)) = (&places.qk_norm, &self.qk_norm) {
            all.extend(places.iter().zip(norms));
        }
        all.extend(places.output_bias.as_ref().zip(self.output_bias.as_ref()));
        all
    }

    /// Norm, projections, biases, norms of heads and rotation of some rows. // x: (N, D)
    pub(super) fn project(&self, config: &ModelConfig, x: &Tensor, rotation: &Rotation) -> Result<Projected> {
        let (rows, head_dim, eps) = (x.dims()[0], config.head_dim, config.rms_norm_eps);
        let normed = rms_norm(x, &self.attention_norm, eps)?;
        let heads = |weight: &Tensor, bias: Option<&Tensor>| -> Result<Tensor> {
            let mut y = normed.matmul(&weight.t()?)?.to_dtype(DType::F32)?;
            if let Some(bias) = bias {
                y = y.broadcast_add(bias)?;
            }
            y.reshape((rows, weight.dims()[0] / head_dim, head_dim))
        };
        let place = |y: Tensor, norm: Option<&Tensor>| -> Result<Tensor> {
            let y = match norm {
                Some(norm) => rms_norm(&y, norm, eps)?,
                None => y,
            };
            rotate(&y, rotation)?.to_dtype(x.dtype())
        };
        let bias = |index: usize| self.qkv_bias.as_ref().map(|biases| &biases[index]);
        let norm = |index: usize| self.qk_norm.as_ref().map(|norms| &norms[index]);
        Ok(Projected {
            query: place(heads(&self.query, bias(0))?, norm(0))?,
            key: place(heads(&self.key, bias(1))?, norm(1))?,
            value: heads(&self.value, bias(2))?.to_dtype(x.dtype())?,
        })
    }

    /// Output projection, residual and feed-forward of some rows. // x: (N, D), attended: (N, query width); (N, D)
    pub(super) fn finish(&self, config: &ModelConfig, x: &Tensor, attended: &Tensor) -> Result<Tensor> {
        let mut attended = attended.matmul(&self.output.t()?)?;
        if let Some(bias) = &self.output_bias {
            attended = attended.to_dtype(DType::F32)?.broadcast_add(bias)?.to_dtype(x.dtype())?;
        }
        let middle = (x + attended)?;
        let normed = rms_norm(&middle, &self.feed_forward_norm, config.rms_norm_eps)?;
        let gate = normed.matmul(&self.gate.t()?)?.silu()?;
        let inside = (gate * normed.matmul(&self.up.t()?)?)?;
        middle + inside.matmul(&self.down.t()?)?
    }
}

/// RMS norm in f32, given back in the type of x. // x: (.., D), weight: (D)
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let mean = wide.sqr()?.mean_keepdim(D::Minus1)?;
    wide.broadcast_div(&(mean + eps)?.sqrt()?)?.broadcast_mul(weight)?.to_dtype(x.dtype())
}

/// Turns the pairs (i, i + head_dim / 2) of every head by the angle of its row. // x: (N, heads, head_dim), f32
fn rotate(x: &Tensor, rotation: &Rotation) -> Result<Tensor> {
    let half = x.dims()[2] / 2;
    let (first, second) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
    let left = (first.broadcast_mul(&rotation.cos)? - second.broadcast_mul(&rotation.sin)?)?;
    let right = (second.broadcast_mul(&rotation.cos)? + first.broadcast_mul(&rotation.sin)?)?;
    Tensor::cat(&[left, right], 2)
}

/// Attention of S sequences; query heads that share a key-value head go through one product, so that keys are not repeated.
///
/// query: (S, heads, T, head_dim); key, value: (S, kv heads, L, head_dim); mask: 0 or -inf, (T, L) or (S, 1, 1, L), with at least
/// one 0 a row. Returns (S, heads, T, head_dim).
pub(super) fn attend(config: &ModelConfig, query: &Tensor, key: &Tensor, value: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let (sequences, num_heads, length, head_dim) = query.dims4()?;
    let (kv_heads, past) = (config.num_kv_heads, key.dims()[2]);
    let rows = num_heads / kv_heads * length;
    let query = (query.reshape((sequences, kv_heads, rows, head_dim))? * (1.0 / (head_dim as f64).sqrt()))?;
    let scores = query.matmul(&key.t()?)?.to_dtype(DType::F32)?;
    let scores = scores.reshape((sequences, num_heads, length, past))?.broadcast_add(mask)?;
    // The largest score is a constant here: its gradient cancels, so none is made.
    let weights = scores.broadcast_sub(&scores.detach().max_keepdim(D::Minus1)?)?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?.to_dtype(value.dtype())?;
    let attended = weights.reshape((sequences, kv_heads, rows, past))?.matmul(value)?;
    attended.reshape((sequences, num_heads, length, head_dim))
}

/// What `length` new tokens may see of `past` ones, the last of which they are themselves. // (length, past), f32
pub(super) fn causal_mask(length: usize, past: usize, device: &candle_core::Device) -> Result<Tensor> {
    let before = past - length;
    let row = |row: usize| (0..past).map(move |at| if at > before + row { f32::NEG_INFINITY } else { 0.0 });
    Tensor::from_vec((0..length).flat_map(row).collect::<Vec<f32>>(), (length, past), device)
}
