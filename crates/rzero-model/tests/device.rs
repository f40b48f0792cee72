//! The path of an accelerator, run on candle's CPU device, against the CPU's own: logits, completions, log-probabilities and every
//! parameter's gradient, for Llama, Qwen2 and Qwen3, tied and untied.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use rzero_algo::seed::{StreamKey, random_stream, uniform_f64};
use rzero_model::decoder::Decoder;
use rzero_model::device::{Accelerator, DeviceModel, Precision, generate_on_device};
use rzero_model::engine::{Completion, Request, Work, generate};
use rzero_model::training::{Keep, PackedSequences, TrainingModel};
use rzero_model::{ModelConfig, ModelError, Weights};
use rzero_schema::profile::SamplingSettings;
use rzero_schema::vocab::{FinishReason, Phase, WeightFormat};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const VOCAB: usize = 40;
const POSITIONS: usize = 64;

fn key(row: u64, sample: u32) -> StreamKey {
    StreamKey { run_seed: 9, iteration: 1, phase: Phase::Solver, step: 1, row, sample }
}

fn model(architecture: &str, is_tied: bool, max_positions: usize) -> Weights {
    model_with(architecture, is_tied, max_positions, json!({}))
}

/// A model with further keys in its configuration.
fn model_with(architecture: &str, is_tied: bool, max_positions: usize, further: Value) -> Weights {
    let mut config = json!({
        "architectures": [architecture], "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCAB, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "head_dim": if architecture == "Qwen3ForCausalLM" { 8 } else { 6 }, "max_position_embeddings": max_positions,
        "tie_word_embeddings": is_tied, "hidden_act": "silu", "eos_token_id": 2,
    });
    config.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
    let mut weights = Weights::zeros(ModelConfig::from_json(&config.to_string()).unwrap());
    let mut stream = random_stream("weights", &key(0, 0));
    weights.values.iter_mut().for_each(|value| *value = (uniform_f64(&mut stream) - 0.5) as f32);
    weights
}

fn all_models() -> Vec<Weights> {
    let families = ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"];
    let mut models: Vec<Weights> =
        families.into_iter().flat_map(|name| [model(name, true, POSITIONS), model(name, false, POSITIONS)]).collect();
    // Biases everywhere, and rotations that are stretched and grown.
    let scaling = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16});
    let further = json!({"attention_bias": true, "rope_scaling": scaling});
    models.push(model_with("LlamaForCausalLM", true, POSITIONS, further));
    models
}

fn on_device(weights: &Weights) -> DeviceModel {
    DeviceModel::new(weights, &Accelerator::candle_cpu(Precision::F32), weights.config.max_positions).unwrap()
}

fn worst(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn requests(num_prompts: u64, num_samples: u32) -> Vec<Request> {
    (0..num_prompts)
        .map(|row| Request {
            prompt: (0..=row % 5).map(|i| 1 + ((row + i) % 30) as u32).collect(),
            streams: (0..num_samples).map(|sample| random_stream("sample", &key(row, sample))).collect(),
        })
        .collect()
}

fn work(threads: usize, batch_size: usize) -> Work<'static> {
    static NEVER: AtomicBool = AtomicBool::new(false);
    Work { threads, batch_size, interrupt: &NEVER }
}

fn sampling(temperature: f64) -> SamplingSettings {
    SamplingSettings { temperature, top_k: 0, top_p: 1.0, max_tokens: 12 }
}

#[test]
fn logits_after_a_prompt_are_the_decoders() {
    let tokens: Vec<u32> = (0..50).map(|i| (i * 7 + 3) % VOCAB as u32).collect();
    for weights in all_models() {
        let device = on_device(&weights);
        for length in [1, 2, 13, 50] {
            let expected = Decoder::new(&weights, POSITIONS, WeightFormat::F32).logits_after(&tokens[..length]);
            let actual = device.prefill(&tokens[..length]).unwrap().logits;
            let difference = worst(&actual, &expected);
            assert!(difference < 1e-4, "{:?}, {length} tokens: differs by {difference}", weights.config.family);
        }
    }
}

/// A prompt that goes through the model in several pieces.
#[test]
fn a_long_prompt_gives_the_decoders_logits() {
    let weights = model("Qwen3ForCausalLM", true, 1400);
    let tokens: Vec<u32> = (0..1300).map(|i| (i * i + 3) % VOCAB as u32).collect();
    let expected = Decoder::new(&weights, 1400, WeightFormat::F32).logits_after(&tokens);
    let actual = on_device(&weights).prefill(&tokens).unwrap().logits;
    assert!(worst(&actual, &expected) < 1e-4, "differs by {}", worst(&actual, &expected));
}

/// Completions are those of the CPU's engine, and so are their log-probabilities but for rounding.
fn assert_same(actual: &[Vec<Completion>], expected: &[Vec<Completion>], what: &str) {
    assert_eq!(actual.len(), expected.len());
    for (actual, expected) in actual.iter().flatten().zip(expected.iter().flatten()) {
        assert_eq!((&actual.tokens, actual.finish), (&expected.tokens, expected.finish), "{what}");
        assert!(worst(&actual.policy_logprobs, &expected.policy_logprobs) < 1e-4, "{what}: policy");
        assert!(worst(&actual.sampler_logprobs, &expected.sampler_logprobs) < 1e-4, "{what}: sampler");
    }
}

/// Draws follow the same random streams; a rounding that crosses a draw's threshold is possible, and does not happen in these.
#[test]
fn completions_are_those_of_the_cpu_for_any_batch_size_and_any_threads() {
    for weights in all_models() {
        let decoder = Decoder::new(&weights, POSITIONS, WeightFormat::F32);
        let device = on_device(&weights);
        let requests = requests(7, 5);
        for temperature in [0.0, 1.0] {
            let expected = generate(&decoder, &requests, &sampling(temperature), work(2, 8), &|_| ()).unwrap();
            let finished = expected.iter().flatten().filter(|completion| completion.finish == FinishReason::Stop).count();
            assert!(temperature == 0.0 || (finished > 0 && finished < 35), "completions of different lengths are wanted");
            for (threads, batch_size) in [(1, 1), (1, 4), (3, 35), (2, 64)] {
                let tokens = AtomicUsize::new(0);
                let on_completion = |count: usize| {
                    tokens.fetch_add(count, Ordering::Relaxed);
                };
                let sampling = sampling(temperature);
                let actual =
                    generate_on_device(&device, &requests, &sampling, work(threads, batch_size), &on_completion).unwrap();
                let what = format!("{:?}, temperature {temperature}, batch {batch_size}", weights.config.family);
                assert_same(&actual, &expected, &what);
                let written: usize = actual.iter().flatten().map(|completion| completion.tokens.len()).sum();
                assert_eq!(tokens.load(Ordering::Relaxed), written);
            }
        }
    }
}

/// Sequences of one to many tokens, so that attention pads some, groups some and leaves some alone; the last asks for nothing.
fn packed() -> PackedSequences {
    let mut batch = PackedSequences::default();
    batch.push(&[1, 5, 9], &[11, 30, 7, 2]);
    batch.push(&[1], &[4, 4, 39]);
    batch.push(&(1..30).collect::<Vec<u32>>(), &[8, 2, 17, 3, 25]);
    batch.push(&[1, 6, 6, 6, 6, 17, 20], &[8, 2]);
    batch.push(&[3], &[12]);
    batch.push(&[3, 4], &[]);
    batch
}

fn slopes(batch: &PackedSequences) -> Vec<f32> {
    (0..batch.targets.len()).map(|i| (0.3 - 0.17 * i as f32) * 1e-3).collect()
}

/// Relative distance of two gradients, parameter by parameter.
fn distances(weights: &Weights, actual: &[f32], expected: &[f32]) -> Vec<(String, f64)> {
    let parameters = weights.layout.parameters.iter();
    parameters
        .map(|parameter| {
            let (mut distance, mut length) = (0.0, 0.0);
            for at in parameter.range.clone() {
                distance += f64::from(actual[at] - expected[at]).powi(2);
                length += f64::from(expected[at]).powi(2);
            }
            assert!(length > 0.0, "{}: no gradient", parameter.name);
            (parameter.name.clone(), (distance / length).sqrt())
        })
        .collect()
}

fn cpu_gradient(weights: &Weights, batch: &PackedSequences) -> Vec<f32> {
    let training = TrainingModel::new(&weights.config, batch.longest());
    let tape = training.forward(weights, batch, Keep::Activations).1;
    let mut gradient = vec![0.0; weights.values.len()];
    training.backward(weights, batch, tape, &slopes(batch), &mut |range, part| add(&mut gradient[range], part));
    gradient
}

fn device_gradient(device: &DeviceModel, batch: &PackedSequences, num_parameters: usize) -> Vec<f32> {
    let mut gradient = vec![0.0; num_parameters];
    let (_, tape) = device.forward(batch).unwrap();
    device.backward(batch, tape, &slopes(batch), &mut |range, part| add(&mut gradient[range], part)).unwrap();
    gradient
}

fn add(sum: &mut [f32], part: &[f32]) {
    sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
}

#[test]
fn logprobs_entropies_and_every_parameters_gradient_are_the_trainers() {
    let batch = packed();
    for weights in all_models() {
        let family = weights.config.family;
        let device = on_device(&weights);
        let expected = TrainingModel::new(&weights.config, batch.longest()).logprobs(&weights, &batch);
        let actual = device.forward(&batch).unwrap().0;
        assert_eq!(device.logprobs(&batch).unwrap(), actual);
        assert!(worst(&actual.logprobs, &expected.logprobs) < 1e-4, "{family:?}");
        assert!(worst(&actual.entropies, &expected.entropies) < 1e-4, "{family:?}");

        let expected = cpu_gradient(&weights, &batch);
        let gradient = device_gradient(&device, &batch, expected.len());
        for (name, distance) in distances(&weights, &gradient, &expected) {
            assert!(distance < 1e-4, "{family:?} {name}: relative difference {distance:e}");
        }
    }
}

#[test]
fn a_sequences_logprobs_do_not_depend_on_what_is_packed_beside_it() {
    let whole = packed();
    for weights in all_models() {
        let device = on_device(&weights);
        let together = device.forward(&whole).unwrap().0.logprobs;
        let mut alone = Vec::new();
        for segment in &whole.segments {
            let tokens = &whole.tokens[segment.rows.clone()];
            let asked = whole.rows.iter().filter(|row| segment.rows.contains(&(**row as usize))).count();
            let mut batch = PackedSequences::default();
            batch.push(&tokens[..tokens.len() - asked], &tokens[tokens.len() - asked..]);
            alone.extend(device.forward(&batch).unwrap().0.logprobs);
        }
        assert!(worst(&together, &alone) < 1e-5, "differs by {}", worst(&together, &alone));
    }
}

/// Two prompts that begin alike, with two and three completions, beginnings laid out once.
#[test]
fn shared_beginnings_change_neither_logprobs_nor_gradients() {
    let root: Vec<u32> = (0..34).map(|i| 3 + i % 30).collect();
    let prompts = [[root.as_slice(), &[7, 8]].concat(), [root.as_slice(), &[9, 4, 11]].concat()];
    let completions: [&[u32]; 5] = [&[12, 2], &[13, 14, 15, 2], &[6, 2], &[16, 17, 18], &[19]];
    let sequences: Vec<(&[u32], &[u32])> =
        completions.iter().enumerate().map(|(at, completion)| (prompts[at / 2 % 2].as_slice(), *completion)).collect();
    let shared = PackedSequences::shared(&sequences);
    let mut plain = PackedSequences::default();
    sequences.iter().for_each(|(prompt, completion)| plain.push(prompt, completion));
    assert!(shared.tokens.len() < plain.tokens.len() / 2 && shared.targets == plain.targets);
    for weights in all_models() {
        let device = on_device(&weights);
        let expected = TrainingModel::new(&weights.config, plain.longest()).logprobs(&weights, &plain).logprobs;
        let actual = device.logprobs(&shared).unwrap().logprobs;
        assert!(worst(&actual, &expected) < 1e-4, "{:?}: differs by {}", weights.config.family, worst(&actual, &expected));
        let expected = cpu_gradient(&weights, &plain);
        for (name, distance) in distances(&weights, &device_gradient(&device, &shared, expected.len()), &expected) {
            assert!(distance < 1e-4, "{:?} {name}: relative difference {distance:e}", weights.config.family);
        }
    }
}

/// Sixteen bits change numbers by a hundredth or so, and must not change what they mean.
#[test]
fn in_bf16_logits_and_gradients_are_roughly_those_of_f32() {
    let batch = packed();
    for weights in all_models() {
        let device = DeviceModel::new(&weights, &Accelerator::candle_cpu(Precision::Bf16), POSITIONS).unwrap();
        let expected = TrainingModel::new(&weights.config, batch.longest()).logprobs(&weights, &batch);
        let actual = device.forward(&batch).unwrap().0;
        let mean: f32 = actual.logprobs.iter().zip(&expected.logprobs).map(|(a, b)| (a - b).abs()).sum::<f32>()
            / expected.logprobs.len() as f32;
        assert!(mean < 0.1, "{:?}: log-probabilities differ by {mean}", weights.config.family);
        let expected = cpu_gradient(&weights, &batch);
        let gradient = device_gradient(&device, &batch, expected.len());
        for (name, distance) in distances(&weights, &gradient, &expected) {
            assert!(distance < 0.2, "{:?} {name}: relative difference {distance}", weights.config.family);
        }
        let completions = generate_on_device(&device, &requests(4, 3), &sampling(1.0), work(1, 5), &|_| ()).unwrap();
        assert!(completions.iter().flatten().all(|completion| completion.policy_logprobs.iter().all(|value| value.is_finite())));
    }
}

#[test]
fn what_does_not_fit_is_refused_and_an_interrupt_stops() {
    let weights = model("LlamaForCausalLM", true, POSITIONS);
    let device = on_device(&weights);
    let run = |prompt: Vec<u32>, is_interrupted: bool| {
        let interrupt = AtomicBool::new(is_interrupted);
        let request = Request { prompt, streams: vec![random_stream("sample", &key(0, 0))] };
        let sampling = SamplingSettings { max_tokens: 100, ..sampling(1.0) };
        generate_on_device(&device, &[request], &sampling, Work { threads: 1, batch_size: 2, interrupt: &interrupt }, &|_| ())
    };
    for prompt in [vec![], vec![VOCAB as u32], vec![1; POSITIONS]] {
        assert!(matches!(run(prompt, false), Err(ModelError::Request(_))));
    }
    assert!(matches!(run(vec![1], true), Err(ModelError::Interrupted)));
    assert!(run(vec![1; 60], false).unwrap()[0][0].tokens.len() <= 4);
    assert_eq!(generate_on_device(&device, &[], &sampling(1.0), work(1, 2), &|_| ()).unwrap(), Vec::<Vec<Completion>>::new());

    assert!(matches!(device.prefill(&[]), Err(ModelError::Request(_))));
    // Where nothing is asked for there is nothing to hand over.
    let mut batch = PackedSequences::default();
    batch.push(&[1, 2, 3], &[]);
    let (logprobs, tape) = device.forward(&batch).unwrap();
    assert!(logprobs.logprobs.is_empty());
    device.backward(&batch, tape, &[], &mut |_, _| panic!("a gradient of nothing")).unwrap();
    let mut batch = PackedSequences::default();
    batch.push(&[1; 60], &[1; 5]);
    assert!(matches!(device.forward(&batch), Err(ModelError::Request(_))));
    if !cfg!(feature = "cuda") {
        assert!(matches!(Accelerator::cuda(0, Precision::F32), Err(ModelError::Device(_))));
    }
}
