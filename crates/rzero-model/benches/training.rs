//! The kernels of a training pass at SmolLM2's sizes (8 sequences of 128 tokens), forward and backward.
//!
//! `cargo bench -p rzero-model --bench training`. The largest products stand beside them as floating-point operations a second, so that the
//! rest can be set against what the machine gives.

#![allow(missing_docs, reason = "criterion's macros make the functions public")]
#![allow(clippy::unwrap_used, reason = "a benchmark stops where it cannot go on")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rzero_model::kernels::{self, RotaryTable, Rotation};
use rzero_model::matmul::{Matrix, Store, multiply_shared};
use rzero_model::training::attention::{self, Heads, Kept};
use rzero_model::training::workspace::Workspace;
use rzero_model::training::{Keep, PackedSequences, TrainingModel};
use rzero_model::{ModelConfig, Weights};
use std::hint::black_box;

const SEQUENCES: usize = 8;
const TOKENS: usize = 128;
const ROWS: usize = SEQUENCES * TOKENS;

fn config() -> ModelConfig {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../pipelines/sizes/smollm2.json");
    ModelConfig::from_json(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|at| ((at * 7_919) % 2_003) as f32 / 1_001.5 - 1.0).collect()
}

fn batch(config: &ModelConfig) -> PackedSequences {
    let tokens: Vec<u32> = (0..ROWS).map(|at| ((at * 7_919) % config.vocab_size) as u32).collect();
    let mut batch = PackedSequences::default();
    for sequence in tokens.chunks(TOKENS) {
        batch.push(&sequence[..TOKENS / 2], &sequence[TOKENS / 2..]);
    }
    batch
}

fn rows(criterion: &mut Criterion) {
    let config = config();
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    let mut group = criterion.benchmark_group("rows");
    group.sample_size(20).throughput(Throughput::Elements(ROWS as u64));
    let (x, weight, dy) = (numbers(ROWS * width), numbers(width), numbers(ROWS * width));
    let (mut y, mut inverse) = (vec![0.0; ROWS * width], vec![0.0; ROWS]);
    group.bench_function("rms norm", |bench| {
        bench.iter(|| kernels::rms_norm_shared(&x, &weight, 1e-5, black_box(&mut y), &mut inverse));
    });
    let (mut dx, mut dweight) = (vec![0.0; ROWS * width], vec![0.0; width]);
    group.bench_function("rms norm, backward", |bench| {
        bench.iter(|| kernels::rms_norm_backward_shared(&x, &weight, &inverse, &dy, black_box(&mut dx), &mut dweight));
    });
    let gate_up = numbers(ROWS * 2 * inner);
    let mut y = vec![0.0; ROWS * inner];
    group.bench_function("swiglu", |bench| bench.iter(|| kernels::swiglu_shared(&gate_up, black_box(&mut y), inner)));
    let mut gradient = gate_up.clone();
    group.bench_function("swiglu, backward", |bench| {
        bench.iter(|| kernels::swiglu_backward_shared(black_box(&mut gradient), &mut y, inner));
    });
    let table = RotaryTable::new(&config.rotary_frequencies(), TOKENS);
    let mut heads = numbers(ROWS * config.query_width());
    for (name, direction) in [("rotation", Rotation::Forward), ("rotation, backward", Rotation::Backward)] {
        group.bench_function(name, |bench| {
            bench.iter(|| {
                kernels::vectorized(|| {
                    for (row, values) in black_box(&mut heads).chunks_exact_mut(config.query_width()).enumerate() {
                        table.rotate(values, row % TOKENS, direction);
                    }
                });
            });
        });
    }
    group.finish();
}

fn causal_attention(criterion: &mut Criterion) {
    let config = config();
    let (heads, batch, workspace) = (Heads::of(&config), batch(&config), Workspace::default());
    let qkv = numbers(ROWS * heads.qkv_width());
    let (attended, log_sums) = attention::forward(heads, &batch.segments, &qkv, &workspace);
    let mut group = criterion.benchmark_group("causal attention");
    group.sample_size(20).throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("forward", |bench| {
        bench.iter(|| {
            let (attended, log_sums) = attention::forward(heads, &batch.segments, black_box(&qkv), &workspace);
            workspace.give(attended, config.query_width());
            workspace.give(log_sums, config.num_heads);
        });
    });
    let kept = Kept { qkv: &qkv, attended: &attended, log_sums: &log_sums };
    group.bench_function("backward", |bench| {
        bench.iter(|| {
            let dqkv = attention::backward(heads, &batch.segments, black_box(kept), &attended, &workspace);
            workspace.give(dqkv, heads.qkv_width());
        });
    });
    group.finish();
}

/// Embedding, final norm and the tied head, without a layer between them.
fn token_logprobs(criterion: &mut Criterion) {
    let mut config = config();
    config.num_layers = 0;
    let batch = batch(&config);
    let mut weights = Weights::zeros(config);
    weights.values = numbers(weights.values.len());
    let model = TrainingModel::new(&weights.config, TOKENS);
    let slopes = vec![0.5; batch.targets.len()];
    let mut group = criterion.benchmark_group("log-probabilities of chosen tokens");
    group.sample_size(10).throughput(Throughput::Elements(batch.targets.len() as u64));
    group.bench_function("forward", |bench| bench.iter(|| black_box(model.logprobs(&weights, &batch))));
    for (name, keep) in [("forward and backward", Keep::Activations), ("forward and backward, logits made again", Keep::Inputs)] {
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let tape = model.forward(&weights, &batch, keep).1;
                model.backward(&weights, &batch, tape, &slopes, &mut |_, part| _ = black_box(part.len()));
            });
        });
    }
    group.finish();
}

fn products(criterion: &mut Criterion) {
    let config = config();
    let (width, outputs) = (config.hidden_size, 2 * config.intermediate_size);
    let (x, weight, dy) = (numbers(ROWS * width), numbers(outputs * width), numbers(ROWS * outputs));
    let (mut y, mut dx, mut dweight) = (vec![0.0; ROWS * outputs], vec![0.0; ROWS * width], vec![0.0; outputs * width]);
    let (x, weight, dy) = (Matrix::new(&x, ROWS, width), Matrix::new(&weight, outputs, width), Matrix::new(&dy, ROWS, outputs));
    let mut group = criterion.benchmark_group("products");
    // Two operations a multiply-add.
    group.sample_size(10).throughput(Throughput::Elements((2 * ROWS * width * outputs) as u64));
    group.bench_function("y = x W^T", |bench| {
        bench.iter(|| multiply_shared(&mut y, outputs, Store::Overwrite, 1.0, x, weight.transposed()));
    });
    group.bench_function("dx = dy W", |bench| {
        bench.iter(|| multiply_shared(&mut dx, width, Store::Overwrite, 1.0, dy, weight));
    });
    group.bench_function("dW = dy^T x", |bench| {
        bench.iter(|| multiply_shared(&mut dweight, width, Store::Overwrite, 1.0, dy.transposed(), x));
    });
    group.finish();
}

criterion_group!(benches, rows, causal_attention, token_logprobs, products);
criterion_main!(benches);
