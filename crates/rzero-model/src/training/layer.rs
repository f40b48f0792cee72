//! One transformer layer, forward and backward: `x + attention(norm(x))`, then `x + swiglu(norm(x))`.
//!
//! Matrices that read the same input (query, key and value; gate and up) lie side by side in the flat weights and are one product here.

use super::Pass;
use super::attention::{self, Heads, Kept};
use super::packing::Segment;
use super::workspace::Workspace;
use crate::config::ModelConfig;
use crate::kernels::{self, RotaryTable, Rotation, vectorized};
use crate::matmul::{Matrix, Store, multiply_shared};
use crate::weights::LayerLayout;
use rayon::prelude::*;
use std::ops::Range;

/// What one layer keeps for its backward pass.
#[derive(Debug)]
pub(super) struct LayerTape {
    input: Vec<f32>,                // (N, D)
    attention_inverse: Vec<f32>,    // (N)
    raw_qk: Option<QkNormTape>,     // before the head norms, where there are any
    qkv: Vec<f32>,                  // (N, queries, keys, values), queries and keys rotated
    attended: Vec<f32>,             // (N, heads x head_dim)
    log_sums: Vec<f32>,             // (N, heads)
    middle: Vec<f32>,               // (N, D)
    feed_forward_inverse: Vec<f32>, // (N)
    gate_up: Vec<f32>,              // (N, 2 F)
}

#[derive(Debug)]
struct QkNormTape {
    raw: Vec<f32>,     // (N, queries, keys)
    inverse: Vec<f32>, // (N, heads + kv heads)
}

impl LayerTape {
    /// Numbers that a row leaves on the tape.
    pub(super) fn numbers_a_row(config: &ModelConfig) -> usize {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let (q_width, kv_width) = (config.query_width(), config.kv_width());
        let raw = if config.has_qk_norm { q_width + kv_width + config.num_heads + config.num_kv_heads } else { 0 };
        2 * width + 2 * q_width + 2 * kv_width + 2 * inner + config.num_heads + 2 + raw
    }

    /// Leaves the buffers to whoever comes next.
    pub(super) fn give(self, config: &ModelConfig, workspace: &Workspace) {
        let width = config.hidden_size;
        workspace.give(self.input, width);
        workspace.give(self.attention_inverse, 1);
        if let Some(raw) = self.raw_qk {
            workspace.give(raw.raw, config.query_width() + config.kv_width());
            workspace.give(raw.inverse, config.num_heads + config.num_kv_heads);
        }
        workspace.give(self.qkv, Heads::of(config).qkv_width());
        workspace.give(self.attended, config.query_width());
        workspace.give(self.log_sums, config.num_heads);
        workspace.give(self.middle, width);
        workspace.give(self.feed_forward_inverse, 1);
        workspace.give(self.gate_up, 2 * config.intermediate_size);
    }
}

/// `y (+)= x W^T` for W of [out, in]. // x: (N, in), y: (N, out)
fn linear(y: &mut [f32], store: Store, x: &[f32], weight: &[f32], inputs: usize) {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    multiply_shared(y, outputs, store, 1.0, Matrix::new(x, rows, inputs), Matrix::new(weight, outputs, inputs).transposed());
}

/// Backward of [`linear`] in its input: `dx = dy W`.
fn linear_input(dx: &mut [f32], dy: &[f32], weight: &[f32], inputs: usize) {
    let (rows, outputs) = (dx.len() / inputs, weight.len() / inputs);
    multiply_shared(dx, inputs, Store::Overwrite, 1.0, Matrix::new(dy, rows, outputs), Matrix::new(weight, outputs, inputs));
}

/// Backward of [`linear`] in its weight: `dW = dy^T x`.
fn linear_weight(dweight: &mut [f32], dy: &[f32], x: &[f32], inputs: usize) {
    let (rows, outputs) = (x.len() / inputs, dweight.len() / inputs);
    let dy = Matrix::new(dy, rows, outputs).transposed();
    multiply_shared(dweight, inputs, Store::Overwrite, 1.0, dy, Matrix::new(x, rows, inputs));
}

fn add_bias(y: &mut [f32], bias: &[f32]) {
    y.par_chunks_mut(bias.len()).for_each(|row| {
        vectorized(
            #[inline(always)]
            || kernels::add_scaled(row, 1.0, bias),
        )
    });
}

/// The gradient of a bias: the sum over rows.
fn bias_backward(dbias: &mut [f32], dy: &[f32]) {
    dbias.fill(0.0);
    vectorized(
        #[inline(always)]
        || dy.chunks_exact(dbias.len()).for_each(|row| kernels::add_scaled(dbias, 1.0, row)),
    );
}

/// Rotates the heads in the first `width` columns of every row. // values: (N, stride)
fn rotate(rotary: &RotaryTable, segments: &[Segment], values: &mut [f32], width: usize, stride: usize, direction: Rotation) {
    let mut parts = Vec::with_capacity(segments.len());
    let mut rest = values;
    for segment in segments {
        let (part, after) = rest.split_at_mut(segment.rows.len() * stride);
        parts.push((segment.first_position(), part));
        rest = after;
    }
    parts.into_par_iter().for_each(|(first, rows)| {
        vectorized(
            #[inline(always)]
            || {
                for (position, row) in rows.chunks_exact_mut(stride).enumerate() {
                    rotary.rotate(&mut row[..width], first + position, direction);
                }
            },
        );
    });
}

/// The norms of each head of queries and keys, in place. // qkv: (N, queries, keys, values)
fn normalize_heads(pass: &Pass<'_>, layout: &LayerLayout, qkv: &mut [f32]) -> Option<QkNormTape> {
    let [query_norm, key_norm] = layout.qk_norm.as_ref()?;
    let (config, weights) = (pass.config, pass.weights);
    let (query_width, width) = (config.query_width(), config.query_width() + config.kv_width());
    let (stride, heads) = (Heads::of(config).qkv_width(), config.num_heads + config.num_kv_heads);
    let rows = qkv.len() / stride;
    let (mut raw, mut inverse) = (pass.workspace.take(rows, width), pass.workspace.take(rows, heads));
    let eps = config.rms_norm_eps as f32;
    let kept = raw.par_chunks_mut(width).zip(inverse.par_chunks_mut(heads));
    qkv.par_chunks_mut(stride).zip(kept).for_each(|(row, (raw, inverse))| {
        raw.copy_from_slice(&row[..width]);
        let (query, key) = row[..width].split_at_mut(query_width);
        let (query_inverse, key_inverse) = inverse.split_at_mut(config.num_heads);
        kernels::rms_norm(&raw[..query_width], weights.at(query_norm), eps, query, query_inverse);
        kernels::rms_norm(&raw[query_width..], weights.at(key_norm), eps, key, key_inverse);
    });
    Some(QkNormTape { raw, inverse })
}

/// Backward of [`normalize_heads`], in place. // dqkv: (N, queries, keys, values)
fn heads_backward(pass: &Pass<'_>, layout: &LayerLayout, raw: &QkNormTape, dqkv: &mut [f32], gradient: &mut LayerGradient<'_>) {
    let Some([query_norm, key_norm]) = &layout.qk_norm else { return };
    let config = pass.config;
    let (query_width, width) = (config.query_width(), config.query_width() + config.kv_width());
    let (stride, heads) = (Heads::of(config).qkv_width(), config.num_heads + config.num_kv_heads);
    for (norm, columns, inverses) in
        [(query_norm, 0..query_width, 0..config.num_heads), (key_norm, query_width..width, config.num_heads..heads)]
    {
        let dweight = gradient.at(norm);
        dweight.fill(0.0);
        let mut dx = vec![0.0; columns.len()];
        let kept = raw.raw.chunks_exact(width).zip(raw.inverse.chunks_exact(heads));
        for (row, (raw, inverse)) in dqkv.chunks_exact_mut(stride).zip(kept) {
            dx.fill(0.0);
            let dy = &mut row[columns.clone()];
            let (x, inverse) = (&raw[columns.clone()], &inverse[inverses.clone()]);
            kernels::rms_norm_backward(x, pass.weights.at(norm), inverse, dy, &mut dx, dweight);
            dy.copy_from_slice(&dx);
        }
    }
}

/// The output of a layer, and what its backward pass reads. // input: (N, D)
pub(super) fn forward(pass: &Pass<'_>, index: usize, input: Vec<f32>) -> (Vec<f32>, LayerTape) {
    let Pass { config, weights, rotary, segments, workspace } = *pass;
    let layout = &weights.layout.layers[index];
    let (width, inner, q_width) = (config.hidden_size, config.intermediate_size, config.query_width());
    let (rows, heads, eps) = (input.len() / width, Heads::of(config), config.rms_norm_eps as f32);

    let (mut normed, mut attention_inverse) = (workspace.take(rows, width), workspace.take(rows, 1));
    kernels::rms_norm_shared(&input, weights.at(&layout.attention_norm), eps, &mut normed, &mut attention_inverse);
    let mut qkv = workspace.take(rows, heads.qkv_width());
    linear(&mut qkv, Store::Overwrite, &normed, weights.at(&layout.query_key_value()), width);
    if let Some([query, _, value]) = &layout.qkv_bias {
        add_bias(&mut qkv, weights.at(&(query.start..value.end)));
    }
    let raw_qk = normalize_heads(pass, layout, &mut qkv);
    rotate(rotary, segments, &mut qkv, q_width + config.kv_width(), heads.qkv_width(), Rotation::Forward);
    let (attended, log_sums) = attention::forward(heads, segments, &qkv, workspace);

    let mut middle = workspace.take(rows, width);
    middle.copy_from_slice(&input);
    linear(&mut middle, Store::Add, &attended, weights.at(&layout.output), q_width);
    if let Some(bias) = &layout.output_bias {
        add_bias(&mut middle, weights.at(bias));
    }
    let mut feed_forward_inverse = workspace.take(rows, 1);
    kernels::rms_norm_shared(&middle, weights.at(&layout.feed_forward_norm), eps, &mut normed, &mut feed_forward_inverse);
    let (mut gate_up, mut inside) = (workspace.take(rows, 2 * inner), workspace.take(rows, inner));
    linear(&mut gate_up, Store::Overwrite, &normed, weights.at(&layout.gate_up()), width);
    workspace.give(normed, width);
    kernels::swiglu_shared(&gate_up, &mut inside, inner);
    let mut output = workspace.take(rows, width);
    output.copy_from_slice(&middle);
    linear(&mut output, Store::Add, &inside, weights.at(&layout.down), inner);
    workspace.give(inside, inner);

    let tape = LayerTape { input, attention_inverse, raw_qk, qkv, attended, log_sums, middle, feed_forward_inverse, gate_up };
    (output, tape)
}

/// The gradient of one layer's parameters: a part of the flat buffer, in which anything may stand before.
pub(super) struct LayerGradient<'a> {
    /// Where the part begins in the flat buffer.
    pub(super) start: usize,
    pub(super) values: &'a mut [f32],
}

impl LayerGradient<'_> {
    fn at(&mut self, range: &Range<usize>) -> &mut [f32] {
        &mut self.values[range.start - self.start..range.end - self.start]
    }
}

/// Fills in the layer's gradient and returns that of its input. // dy: (N, D)
pub(super) fn backward(
    pass: &Pass<'_>,
    index: usize,
    mut tape: LayerTape,
    dy: Vec<f32>,
    mut gradient: LayerGradient<'_>,
) -> Vec<f32> {
    let Pass { config, weights, rotary, segments, workspace } = *pass;
    let layout = &weights.layout.layers[index];
    let (width, inner, q_width) = (config.hidden_size, config.intermediate_size, config.query_width());
    let (rows, heads) = (dy.len() / width, Heads::of(config));
    let (mut normed, mut dnormed) = (workspace.take(rows, width), workspace.take(rows, width));

    // Feed-forward: y = middle + swiglu(norm(middle) [W_gate; W_up]^T) W_down^T
    let mut inside = workspace.take(rows, inner);
    linear_input(&mut inside, &dy, weights.at(&layout.down), inner);
    kernels::swiglu_backward_shared(&mut tape.gate_up, &mut inside, inner);
    linear_weight(gradient.at(&layout.down), &dy, &inside, inner);
    workspace.give(inside, inner);
    let norm = weights.at(&layout.feed_forward_norm);
    kernels::rms_norm_again(&tape.middle, norm, &tape.feed_forward_inverse, &mut normed);
    linear_input(&mut dnormed, &tape.gate_up, weights.at(&layout.gate_up()), width);
    linear_weight(gradient.at(&layout.gate_up()), &tape.gate_up, &normed, width);
    let mut dmiddle = dy;
    let dnorm = gradient.at(&layout.feed_forward_norm);
    dnorm.fill(0.0);
    kernels::rms_norm_backward_shared(&tape.middle, norm, &tape.feed_forward_inverse, &dnormed, &mut dmiddle, dnorm);

    // Attention: middle = input + attention(norm(input) [W_query; W_key; W_value]^T) W_output^T
    let mut dattended = workspace.take(rows, q_width);
    linear_input(&mut dattended, &dmiddle, weights.at(&layout.output), q_width);
    linear_weight(gradient.at(&layout.output), &dmiddle, &tape.attended, q_width);
    if let Some(bias) = &layout.output_bias {
        bias_backward(gradient.at(bias), &dmiddle);
    }
    let kept = Kept { qkv: &tape.qkv, attended: &tape.attended, log_sums: &tape.log_sums };
    let mut dqkv = attention::backward(heads, segments, kept, &dattended, workspace);
    workspace.give(dattended, q_width);
    rotate(rotary, segments, &mut dqkv, q_width + config.kv_width(), heads.qkv_width(), Rotation::Backward);
    if let Some(raw) = &tape.raw_qk {
        heads_backward(pass, layout, raw, &mut dqkv, &mut gradient);
    }
    if let Some([query, _, value]) = &layout.qkv_bias {
        bias_backward(gradient.at(&(query.start..value.end)), &dqkv);
    }
    let norm = weights.at(&layout.attention_norm);
    kernels::rms_norm_again(&tape.input, norm, &tape.attention_inverse, &mut normed);
    linear_input(&mut dnormed, &dqkv, weights.at(&layout.query_key_value()), width);
    linear_weight(gradient.at(&layout.query_key_value()), &dqkv, &normed, width);
    workspace.give(dqkv, heads.qkv_width());
    let mut dinput = dmiddle;
    let dnorm = gradient.at(&layout.attention_norm);
    dnorm.fill(0.0);
    kernels::rms_norm_backward_shared(&tape.input, norm, &tape.attention_inverse, &dnormed, &mut dinput, dnorm);
    workspace.give(normed, width);
    workspace.give(dnormed, width);
    tape.give(config, workspace);
    dinput
}
