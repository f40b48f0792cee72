//! The kernels of decoding at the shapes of SmolLM2-135M: packed panels against the gemm crate on the same products, attention over a cache, the
//! sampler over 49,152 logits, the norm.
//!
//! `cargo bench --bench kernels`, one thread. Throughput of a product is in multiply-adds: twice as many operations.

#![allow(missing_docs, reason = "criterion's macros make the functions public")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rzero_algo::seed::{StreamKey, random_stream};
use rzero_model::config::ModelConfig;
use rzero_model::decoder::{Decoder, Scratch, Sequence};
use rzero_model::kernels::rms_norm;
use rzero_model::kv_cache::KvCache;
use rzero_model::matmul::{Matrix, Store, multiply};
use rzero_model::panels::PackedWeight;
use rzero_model::sampler::Sampler;
use rzero_model::strips::Strips;
use rzero_model::team::with_team;
use rzero_model::weights::Weights;
use rzero_schema::profile::SamplingSettings;
use rzero_schema::vocab::{Phase, WeightFormat};
use serde_json::json;
use std::hint::black_box;
use std::sync::Arc;

/// As in the binaries.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// (what, outputs, inputs) of the products that a token of SmolLM2-135M goes through.
const PRODUCTS: [(&str, usize, usize); 5] = [
    ("query, key, value", 960, 576),
    ("output", 576, 576),
    ("gate, up", 3_072, 576),
    ("down", 576, 1_536),
    ("head", 49_152, 576),
];

const ROWS: [usize; 4] = [1, 8, 32, 64];

const VOCABULARY: usize = 49_152;

/// Numbers that look like noise, from -0.5 to 0.5.
fn numbers(count: usize) -> Vec<f32> {
    let mut state = 1u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 16_777_216.0 - 0.5
    };
    (0..count).map(next).collect()
}

fn products(criterion: &mut Criterion) {
    for (name, outputs, inputs) in PRODUCTS {
        let weight = numbers(outputs * inputs);
        let formats = [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Q8];
        let packed = formats.map(|format| (format, PackedWeight::new(&weight, outputs, inputs, None, format)));
        let mut group = criterion.benchmark_group(format!("{name} ({outputs} x {inputs})"));
        group.sample_size(20);
        for rows in ROWS {
            let x = numbers(rows * inputs);
            let mut y = vec![0f32; rows * outputs];
            group.throughput(Throughput::Elements((rows * outputs * inputs) as u64));
            let (mut strips, mut target) = (Strips::default(), Strips::default());
            strips.shape(rows, inputs);
            target.shape(rows, outputs);
            x.chunks_exact(inputs).enumerate().for_each(|(row, values)| strips.scatter(row, values));
            for (format, packed) in &packed {
                group.bench_function(format!("panels, {format}/{rows}"), |bencher| {
                    bencher.iter(|| {
                        for (panel, target) in target.values_mut().chunks_exact_mut(rows).enumerate() {
                            packed.apply(panel, black_box(&strips), target);
                        }
                    });
                });
            }
            group.bench_function(format!("gemm/{rows}"), |bencher| {
                bencher.iter(|| {
                    let (x, weight) = (Matrix::new(black_box(&x), rows, inputs), Matrix::new(&weight, outputs, inputs));
                    multiply(&mut y, outputs, Store::Overwrite, 1.0, x, weight.transposed());
                });
            });
        }
        group.finish();
    }
}

/// One layer of SmolLM2's shape with a vocabulary of nearly nothing: what a step costs beside its products grows with the past.
fn attention(criterion: &mut Criterion) {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 576, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 2048, "vocab_size": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 0,
    });
    let folder = tempfile::tempdir().expect("a folder can be made");
    std::fs::write(folder.path().join("config.json"), config.to_string()).expect("a file can be written");
    let mut weights = Weights::zeros(ModelConfig::read(folder.path()).expect("this is a configuration"));
    let values = numbers(weights.values.len());
    weights.values.copy_from_slice(&values);
    let decoder = Decoder::new(&weights, 2_048, WeightFormat::F32);
    let mut group = criterion.benchmark_group("a step of one layer, 32 sequences");
    group.throughput(Throughput::Elements(32));
    for past in [16, 128, 512] {
        let prompt: Vec<u32> = (0..past).map(|at| at % 64).collect();
        with_team(1, |team| {
            let mut scratch = Scratch::default();
            let prefix = Arc::new(decoder.prefill(&prompt, team, &mut scratch));
            let mut all: Vec<Sequence> =
                (0..32).map(|token| Sequence { prefix: prefix.clone(), own: KvCache::new(decoder.config()), token }).collect();
            group.bench_function(format!("past {past}"), |bencher| {
                bencher.iter(|| {
                    all.iter_mut().for_each(|sequence| sequence.own.clear(scratch.pool()));
                    let mut sequences: Vec<&mut Sequence> = all.iter_mut().collect();
                    decoder.step(&mut sequences, team, &mut scratch);
                });
            });
        });
    }
    group.finish();
}

fn sampler(criterion: &mut Criterion) {
    let logits: Vec<f32> = numbers(VOCABULARY).iter().map(|number| number * 20.0).collect();
    let key = StreamKey { run_seed: 1, iteration: 1, phase: Phase::Solver, step: 1, row: 0, sample: 0 };
    let mut group = criterion.benchmark_group("sampler, 49,152 logits");
    group.throughput(Throughput::Elements(1));
    for (name, temperature, top_k, top_p) in
        [("greedy", 0.0, 0, 1.0), ("temperature 1", 1.0, 0, 1.0), ("top-k 40", 0.6, 40, 1.0), ("top-p 0.95", 0.8, 0, 0.95)]
    {
        let mut sampler = Sampler::new(&SamplingSettings { temperature, top_k, top_p, max_tokens: 1 });
        let mut stream = random_stream("kernels bench", &key);
        group.bench_function(name, |bencher| bencher.iter(|| black_box(sampler.draw(black_box(&logits), &mut stream))));
    }
    group.finish();
}

fn norm(criterion: &mut Criterion) {
    let (x, weight) = (numbers(64 * 576), numbers(576));
    let (mut y, mut inverse) = (vec![0f32; 64 * 576], vec![0f32; 64]);
    criterion.bench_function("rms_norm, 64 x 576", |bencher| {
        bencher.iter(|| rms_norm(black_box(&x), &weight, 1e-5, &mut y, &mut inverse));
    });
}

criterion_group!(benches, products, attention, sampler, norm);
criterion_main!(benches);
