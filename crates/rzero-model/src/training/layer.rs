//! One transformer layer, forward and backward: `x + attention(norm(x))`, then `x + swiglu(norm(x))`.

use super::attention::{self, Heads};
use crate::config::ModelConfig;
use crate::kernels::{RotaryTable, Rotation, rms_norm, rms_norm_backward, swiglu, swiglu_backward, vectorized};
use crate::matmul::{Matrix, Store, multiply};
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

/// `y (+)= x W^T` for W of [out, in]. // x: (N, in), y: (N, out)
fn linear(y: &mut [f32], store: Store, x: &[f32], weight: &[f32], inputs: usize) {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    multiply(y, outputs, store, 1.0, Matrix::new(x, rows, inputs), Matrix::new(weight, outputs, inputs).transposed());
}

/// Backward of [`linear`]: adds `dy W` to dx and `dy^T x` to dW.
fn linear_backward(dx: &mut [f32], dweight: &mut [f32], dy: &[f32], x: &[f32], weight: &[f32], inputs: usize) {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    multiply(dx, inputs, Store::Add, 1.0, Matrix::new(dy, rows, outputs), Matrix::new(weight, outputs, inputs));
    multiply(dweight, inputs, Store::Add, 1.0, Matrix::new(dy, rows, outputs).transposed(), Matrix::new(x, rows, inputs));
}

fn add_bias(y: &mut [f32], bias: &[f32]) {
    for row in y.chunks_exact_mut(bias.len()) {
        crate::kernels::add_scaled(row, 1.0, bias);
    }
}

fn rotate_all(rotary: &RotaryTable, segments: &[Range<usize>], values: &mut [f32], width: usize, direction: Rotation) {
    vectorized(|| {
        for segment in segments {
            for (position, row) in values[segment.start * width..segment.end * width].chunks_exact_mut(width).enumerate() {
                rotary.rotate(row, position, direction);
            }
        }
    });
}

fn heads(config: &ModelConfig) -> Heads {
    Heads { num_heads: config.num_heads, num_kv_heads: config.num_kv_heads, head_dim: config.head_dim }
}

pub(super) fn forward(
    config: &ModelConfig,
    weights: &Weights,
    index: usize,
    rotary: &RotaryTable,
    segments: &[Range<usize>],
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
    let (attended, log_sums) = attention::forward(heads(config), segments, &query, &key, &value);

    let mut middle = input.clone();
    linear(&mut middle, Store::Add, &attended, weights.at(&layout.output), q_width);
    let mut feed_forward_inverse = vec![0.0; rows];
    rms_norm(&middle, weights.at(&layout.feed_forward_norm), eps, &mut normed, &mut feed_forward_inverse);
    let (mut gate, mut up, mut inside) = (vec![0.0; rows * inner], vec![0.0; rows * inner], vec![0.0; rows * inner]);
    linear(&mut gate, Store::Overwrite, &normed, weights.at(&layout.gate), width);
    linear(&mut up, Store::Overwrite, &normed, weights.at(&layout.up), width);
    swiglu(&gate, &up, &mut inside);
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

/// Gradients of two ranges of the flat buffer cannot be borrowed at once; this splits one off.
fn at<'a>(gradient: &'a mut [f32], range: &Range<usize>) -> &'a mut [f32] {
    &mut gradient[range.clone()]
}

/// Returns the gradient with respect to the layer's input. // dy: (N, D)
pub(super) fn backward(
    config: &ModelConfig,
    weights: &Weights,
    index: usize,
    rotary: &RotaryTable,
    segments: &[Range<usize>],
    tape: LayerTape,
    dy: Vec<f32>,
    gradient: &mut [f32],
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
    swiglu(&gate, &up, &mut inside);
    let mut dinside = vec![0.0; rows * inner];
    linear_backward(&mut dinside, at(gradient, &layout.down), &dy, &inside, weights.at(&layout.down), inner);
    drop(inside);
    swiglu_backward(&mut gate, &mut up, &dinside);
    drop(dinside);
    rms_norm(&middle, weights.at(&layout.feed_forward_norm), eps, &mut normed, &mut inverse);
    let mut dnormed = vec![0.0; dy.len()];
    linear_backward(&mut dnormed, at(gradient, &layout.gate), &gate, &normed, weights.at(&layout.gate), width);
    linear_backward(&mut dnormed, at(gradient, &layout.up), &up, &normed, weights.at(&layout.up), width);
    drop((gate, up));
    let mut dmiddle = dy;
    rms_norm_backward(
        &middle,
        weights.at(&layout.feed_forward_norm),
        &tape.feed_forward_inverse,
        &dnormed,
        &mut dmiddle,
        at(gradient, &layout.feed_forward_norm),
    );
    drop(middle);

    // Attention: middle = input + attention(norm(input)) W_output^T
    let mut dattended = vec![0.0; rows * q_width];
    linear_backward(&mut dattended, at(gradient, &layout.output), &dmiddle, &tape.attended, weights.at(&layout.output), q_width);
    let (mut dquery, mut dkey, dvalue) = attention::backward(
        heads(config),
        segments,
        &tape.query,
        &tape.key,
        &tape.value,
        &tape.attended,
        &tape.log_sums,
        &dattended,
    );
    rotate_all(rotary, segments, &mut dquery, q_width, Rotation::Backward);
    rotate_all(rotary, segments, &mut dkey, kv_width, Rotation::Backward);
    if let (Some(raw), Some([query_norm, key_norm])) = (&tape.raw_qk, &layout.qk_norm) {
        let mut through = |draw: &mut Vec<f32>, raw: &[f32], inverse: &[f32], norm: &Range<usize>| {
            let mut dx = vec![0.0; draw.len()];
            rms_norm_backward(raw, weights.at(norm), inverse, draw, &mut dx, at(gradient, norm));
            *draw = dx;
        };
        through(&mut dquery, &raw.query, &raw.query_inverse, query_norm);
        through(&mut dkey, &raw.key, &raw.key_inverse, key_norm);
    }
    if let Some(biases) = &layout.qkv_bias {
        for (bias, dy) in biases.iter().zip([&dquery, &dkey, &dvalue]) {
            let dbias = at(gradient, bias);
            for row in dy.chunks_exact(dbias.len()) {
                crate::kernels::add_scaled(dbias, 1.0, row);
            }
        }
    }
    rms_norm(&tape.input, weights.at(&layout.attention_norm), eps, &mut normed, &mut inverse);
    dnormed.fill(0.0);
    linear_backward(&mut dnormed, at(gradient, &layout.query), &dquery, &normed, weights.at(&layout.query), width);
    linear_backward(&mut dnormed, at(gradient, &layout.key), &dkey, &normed, weights.at(&layout.key), width);
    linear_backward(&mut dnormed, at(gradient, &layout.value), &dvalue, &normed, weights.at(&layout.value), width);
    let mut dinput = dmiddle;
    rms_norm_backward(
        &tape.input,
        weights.at(&layout.attention_norm),
        &tape.attention_inverse,
        &dnormed,
        &mut dinput,
        at(gradient, &layout.attention_norm),
    );
    dinput
}
