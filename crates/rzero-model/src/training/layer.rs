//! One transformer layer, forward and backward: `x + attention(norm(x))`, then `x + swiglu(norm(x))`.

use super::attention::{self, Heads, Kept};
use super::packing::Segment;
use crate::config::ModelConfig;
use crate::kernels::{RotaryTable, Rotation, rms_norm, rms_norm_backward, swiglu_backward, swiglu_shared, vectorized};
use crate::matmul::{Matrix, Store, multiply_shared};
use crate::weights::{LayerLayout, Weights};
use std::ops::Range;

/// What one layer keeps for its backward pass.
#[derive(Debug)]
pub(super) struct LayerTape {
    input: Vec<f32>,                // (N, D)
    attention_inverse: Vec<f32>,    // (N)
    raw_qk: Option<QkNormTape>,     // before the head norms, where there are any
    query: Vec<f32>,                // (N, heads x head_dim), rotated
    key: Vec<f32>,                  // (N, kv heads x head_dim), rotated
    value: Vec<f32>,                // (N, kv heads x head_dim)
    attended: Vec<f32>,             // (N, heads x head_dim)
    log_sums: Vec<f32>,             // (N, heads)
    middle: Vec<f32>,               // (N, D)
    feed_forward_inverse: Vec<f32>, // (N)
    gate: Vec<f32>,                 // (N, F)
    up: Vec<f32>,                   // (N, F)
}

#[derive(Debug)]
struct QkNormTape {
    query: Vec<f32>,
    query_inverse: Vec<f32>,
    key: Vec<f32>,
    key_inverse: Vec<f32>,
}

impl LayerTape {
    /// Numbers that a row leaves on the tape.
    pub(super) fn numbers_a_row(config: &ModelConfig) -> usize {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let (q_width, kv_width) = (config.query_width(), config.kv_width());
        let raw = if config.has_qk_norm { q_width + kv_width + config.num_heads + config.num_kv_heads } else { 0 };
        2 * width + 2 * q_width + 2 * kv_width + 2 * inner + config.num_heads + 2 + raw
    }
}

/// `y (+)= x W^T` for W of [out, in]. // x: (N, in), y: (N, out)
fn linear(y: &mut [f32], store: Store, x: &[f32], weight: &[f32], inputs: usize) {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    multiply_shared(y, outputs, store, 1.0, Matrix::new(x, rows, inputs), Matrix::new(weight, outputs, inputs).transposed());
}

/// Backward of [`linear`]: adds `dy W` to dx and `dy^T x` to dW.
fn linear_backward(dx: &mut [f32], dweight: &mut [f32], dy: &[f32], x: &[f32], weight: &[f32], inputs: usize) {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    multiply_shared(dx, inputs, Store::Add, 1.0, Matrix::new(dy, rows, outputs), Matrix::new(weight, outputs, inputs));
    multiply_shared(dweight, inputs, Store::Add, 1.0, Matrix::new(dy, rows, outputs).transposed(), Matrix::new(x, rows, inputs));
}

fn add_bias(y: &mut [f32], bias: &[f32]) {
    for row in y.chunks_exact_mut(bias.len()) {
        crate::kernels::add_scaled(row, 1.0, bias);
    }
}

/// Adds the sum over rows to the gradient of a bias.
fn bias_backward(dbias: &mut [f32], dy: &[f32]) {
    for row in dy.chunks_exact(dbias.len()) {
        crate::kernels::add_scaled(dbias, 1.0, row);
    }
}

fn rotate_all(rotary: &RotaryTable, segments: &[Segment], values: &mut [f32], width: usize, direction: Rotation) {
    vectorized(|| {
        for segment in segments {
            let first = segment.first_position();
            let rows = &mut values[segment.rows.start * width..segment.rows.end * width];
            for (position, row) in rows.chunks_exact_mut(width).enumerate() {
                rotary.rotate(row, first + position, direction);
            }
        }
    });
}

pub(super) fn forward(
    config: &ModelConfig,
    weights: &Weights,
    index: usize,
    rotary: &RotaryTable,
    segments: &[Segment],
    input: Vec<f32>,
) -> (Vec<f32>, LayerTape) {
    let layout = &weights.layout.layers[index];
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    let (q_width, kv_width) = (config.query_width(), config.kv_width());
    let rows = input.len() / width;
    let eps = config.rms_norm_eps as f32;

    let mut normed = vec![0.0; input.len()];
    let mut attention_inverse = vec![0.0; rows];
    rms_norm(&input, weights.at(&layout.attention_norm), eps, &mut normed, &mut attention_inverse);
    let (mut query, mut key, mut value) = (vec![0.0; rows * q_width], vec![0.0; rows * kv_width], vec![0.0; rows * kv_width]);
    linear(&mut query, Store::Overwrite, &normed, weights.at(&layout.query), width);
    linear(&mut key, Store::Overwrite, &normed, weights.at(&layout.key), width);
    linear(&mut value, Store::Overwrite, &normed, weights.at(&layout.value), width);
    if let Some([query_bias, key_bias, value_bias]) = &layout.qkv_bias {
        add_bias(&mut query, weights.at(query_bias));
        add_bias(&mut key, weights.at(key_bias));
        add_bias(&mut value, weights.at(value_bias));
    }
    let raw_qk = layout.qk_norm.as_ref().map(|[query_norm, key_norm]| {
        let normalise = |values: &mut Vec<f32>, weight: &[f32]| {
            let mut inverse = vec![0.0; values.len() / config.head_dim];
            let mut output = vec![0.0; values.len()];
            rms_norm(values, weight, eps, &mut output, &mut inverse);
            (std::mem::replace(values, output), inverse)
        };
        let (raw_query, query_inverse) = normalise(&mut query, weights.at(query_norm));
        let (raw_key, key_inverse) = normalise(&mut key, weights.at(key_norm));
        QkNormTape { query: raw_query, query_inverse, key: raw_key, key_inverse }
    });
    rotate_all(rotary, segments, &mut query, q_width, Rotation::Forward);
    rotate_all(rotary, segments, &mut key, kv_width, Rotation::Forward);
    let (attended, log_sums) = attention::forward(Heads::of(config), segments, &query, &key, &value);

    let mut middle = input.clone();
    linear(&mut middle, Store::Add, &attended, weights.at(&layout.output), q_width);
    if let Some(bias) = &layout.output_bias {
        add_bias(&mut middle, weights.at(bias));
    }
    let mut feed_forward_inverse = vec![0.0; rows];
    rms_norm(&middle, weights.at(&layout.feed_forward_norm), eps, &mut normed, &mut feed_forward_inverse);
    let (mut gate, mut up, mut inside) = (vec![0.0; rows * inner], vec![0.0; rows * inner], vec![0.0; rows * inner]);
    linear(&mut gate, Store::Overwrite, &normed, weights.at(&layout.gate), width);
    linear(&mut up, Store::Overwrite, &normed, weights.at(&layout.up), width);
    swiglu_shared(&gate, &up, &mut inside);
    let mut output = middle.clone();
    linear(&mut output, Store::Add, &inside, weights.at(&layout.down), inner);

    let tape = LayerTape {
        input,
        attention_inverse,
        raw_qk,
        query,
        key,
        value,
        attended,
        log_sums,
        middle,
        feed_forward_inverse,
        gate,
        up,
    };
    (output, tape)
}

/// The gradient of one layer's parameters: a part of the flat buffer.
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

/// Adds to the layer's gradient and returns that of its input. // dy: (N, D)
pub(super) fn backward(
    config: &ModelConfig,
    weights: &Weights,
    index: usize,
    rotary: &RotaryTable,
    segments: &[Segment],
    tape: LayerTape,
    dy: Vec<f32>,
    mut gradient: LayerGradient<'_>,
) -> Vec<f32> {
    let layout: &LayerLayout = &weights.layout.layers[index];
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    let (q_width, kv_width) = (config.query_width(), config.kv_width());
    let rows = dy.len() / width;
    let eps = config.rms_norm_eps as f32;
    let mut normed = vec![0.0; dy.len()];
    let mut inverse = vec![0.0; rows];

    // Feed-forward: y = middle + swiglu(norm(middle)) W_down^T
    let LayerTape { mut gate, mut up, middle, .. } = tape;
    let mut inside = vec![0.0; rows * inner];
    swiglu_shared(&gate, &up, &mut inside);
    let mut dinside = vec![0.0; rows * inner];
    linear_backward(&mut dinside, gradient.at(&layout.down), &dy, &inside, weights.at(&layout.down), inner);
    drop(inside);
    swiglu_backward(&mut gate, &mut up, &dinside);
    drop(dinside);
    rms_norm(&middle, weights.at(&layout.feed_forward_norm), eps, &mut normed, &mut inverse);
    let mut dnormed = vec![0.0; dy.len()];
    linear_backward(&mut dnormed, gradient.at(&layout.gate), &gate, &normed, weights.at(&layout.gate), width);
    linear_backward(&mut dnormed, gradient.at(&layout.up), &up, &normed, weights.at(&layout.up), width);
    drop((gate, up));
    let mut dmiddle = dy;
    rms_norm_backward(
        &middle,
        weights.at(&layout.feed_forward_norm),
        &tape.feed_forward_inverse,
        &dnormed,
        &mut dmiddle,
        gradient.at(&layout.feed_forward_norm),
    );
    drop(middle);

    // Attention: middle = input + attention(norm(input)) W_output^T
    let mut dattended = vec![0.0; rows * q_width];
    linear_backward(&mut dattended, gradient.at(&layout.output), &dmiddle, &tape.attended, weights.at(&layout.output), q_width);
    if let Some(bias) = &layout.output_bias {
        bias_backward(gradient.at(bias), &dmiddle);
    }
    let kept =
        Kept { query: &tape.query, key: &tape.key, value: &tape.value, attended: &tape.attended, log_sums: &tape.log_sums };
    let (mut dquery, mut dkey, dvalue) = attention::backward(Heads::of(config), segments, kept, &dattended);
    rotate_all(rotary, segments, &mut dquery, q_width, Rotation::Backward);
    rotate_all(rotary, segments, &mut dkey, kv_width, Rotation::Backward);
    if let (Some(raw), Some([query_norm, key_norm])) = (&tape.raw_qk, &layout.qk_norm) {
        let mut through = |draw: &mut Vec<f32>, raw: &[f32], inverse: &[f32], norm: &Range<usize>| {
            let mut dx = vec![0.0; draw.len()];
            rms_norm_backward(raw, weights.at(norm), inverse, draw, &mut dx, gradient.at(norm));
            *draw = dx;
        };
        through(&mut dquery, &raw.query, &raw.query_inverse, query_norm);
        through(&mut dkey, &raw.key, &raw.key_inverse, key_norm);
    }
    if let Some(biases) = &layout.qkv_bias {
        for (bias, dy) in biases.iter().zip([&dquery, &dkey, &dvalue]) {
            bias_backward(gradient.at(bias), dy);
        }
    }
    rms_norm(&tape.input, weights.at(&layout.attention_norm), eps, &mut normed, &mut inverse);
    dnormed.fill(0.0);
    linear_backward(&mut dnormed, gradient.at(&layout.query), &dquery, &normed, weights.at(&layout.query), width);
    linear_backward(&mut dnormed, gradient.at(&layout.key), &dkey, &normed, weights.at(&layout.key), width);
    linear_backward(&mut dnormed, gradient.at(&layout.value), &dvalue, &normed, weights.at(&layout.value), width);
    let mut dinput = dmiddle;
    rms_norm_backward(
        &tape.input,
        weights.at(&layout.attention_norm),
        &tape.attention_inverse,
        &dnormed,
        &mut dinput,
        gradient.at(&layout.attention_norm),
    );
    dinput
}
