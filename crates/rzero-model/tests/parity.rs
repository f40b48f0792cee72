//! Every way through the model agrees with every other: candle-transformers, the plain candle twin, the training pass and the
//! decoder, for Llama, Qwen2 and Qwen3, tied and untied; and gradients agree with autograd and with finite differences.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use candle_core::{D, DType, Device, Tensor};
use rzero_algo::seed::{StreamKey, random_stream, uniform_f64};
use rzero_model::decoder::Decoder;
use rzero_model::engine::{Request, Work, generate, generate_in_teams};
use rzero_model::panels::PackedWeight;
use rzero_model::reference::ReferenceModel;
use rzero_model::tensor_file;
use rzero_model::training::{Keep, PackedSequences, TrainingModel};
use rzero_model::{ModelConfig, Weights};
use rzero_schema::profile::SamplingSettings;
use rzero_schema::vocab::{FloatType, Phase, WeightFormat};
use serde_json::json;
use std::sync::atomic::AtomicBool;

const VOCAB: usize = 40;

fn key(row: u64, sample: u32) -> StreamKey {
    StreamKey { run_seed: 3, iteration: 1, phase: Phase::Solver, step: 1, row, sample }
}

fn model(architecture: &str, is_tied: bool) -> Weights {
    let config = json!({
        "architectures": [architecture], "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCAB, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "head_dim": if architecture == "Qwen3ForCausalLM" { 8 } else { 6 },
        "max_position_embeddings": 64, "tie_word_embeddings": is_tied, "hidden_act": "silu", "eos_token_id": 2,
    });
    let mut weights = Weights::zeros(ModelConfig::from_json(&config.to_string()).unwrap());
    let mut stream = random_stream("weights", &key(0, 0));
    for value in &mut weights.values {
        *value = (uniform_f64(&mut stream) - 0.5) as f32;
    }
    weights
}

fn all_models() -> Vec<Weights> {
    let families = ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"];
    families.into_iter().flat_map(|name| [model(name, true), model(name, false)]).collect()
}

fn packed() -> PackedSequences {
    let mut batch = PackedSequences::default();
    batch.push(&[1, 5, 9], &[11, 30, 7, 2]);
    batch.push(&[1], &[4, 4, 39]);
    batch.push(&[1, 6, 6, 6, 6, 17, 20], &[8, 2]);
    batch
}

/// Seven sequences of two prompts that begin alike, laid out with their beginnings shared, and one by one.
fn shared_and_plain() -> (PackedSequences, PackedSequences) {
    let examples: Vec<u32> = (0..35).map(|i| 1 + i % 38).collect();
    let prompts = [[examples.as_slice(), &[7, 8]].concat(), [examples.as_slice(), &[9]].concat()];
    let completions: Vec<Vec<u32>> = (0..7u32).map(|at| (0..=at).map(|i| 3 + 5 * i % 37).collect()).collect();
    let sequences: Vec<(&[u32], &[u32])> =
        completions.iter().enumerate().map(|(at, completion)| (prompts[at / 4].as_slice(), completion.as_slice())).collect();
    let mut plain = PackedSequences::default();
    sequences.iter().for_each(|(prompt, completion)| plain.push(prompt, completion));
    (PackedSequences::shared(&sequences), plain)
}

fn gradient(training: &TrainingModel, weights: &Weights, batch: &PackedSequences, slopes: &[f32], keep: Keep) -> Vec<f32> {
    let mut gradient = vec![0.0; weights.values.len()];
    let tape = training.forward(weights, batch, keep).1;
    training.backward(weights, batch, tape, slopes, &mut |range, part| {
        gradient[range].iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    });
    gradient
}

#[test]
fn shared_beginnings_and_recomputed_activations_change_nothing_but_rounding() {
    let (shared, plain) = shared_and_plain();
    assert!(shared.tokens.len() * 2 < plain.tokens.len());
    let slopes: Vec<f32> = (0..plain.targets.len()).map(|i| 0.3 - 0.07 * i as f32).collect();
    for weights in all_models() {
        let training = TrainingModel::new(&weights.config, plain.longest());
        let (left, right) = (training.logprobs(&weights, &shared), training.logprobs(&weights, &plain));
        assert!(worst(&left.logprobs, &right.logprobs) < 1e-5 && worst(&left.entropies, &right.entropies) < 1e-5);
        let of_shared = gradient(&training, &weights, &shared, &slopes, Keep::Activations);
        assert_eq!(of_shared, gradient(&training, &weights, &shared, &slopes, Keep::Inputs));
        let of_plain = gradient(&training, &weights, &plain, &slopes, Keep::Activations);
        for parameter in &weights.layout.parameters {
            let norm = |values: &[f32]| values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            let range = parameter.range.clone();
            let difference: Vec<f32> =
                of_shared[range.clone()].iter().zip(&of_plain[range.clone()]).map(|(a, b)| a - b).collect();
            let relative = norm(&difference) / norm(&of_plain[range]);
            assert!(relative < 1e-5, "{:?} {}: relative difference {relative:e}", weights.config.family, parameter.name);
        }
    }
}

fn transformers_logits(weights: &Weights, tokens: &[u32]) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, weights.to_safetensors()).unwrap();
    let tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let builder = candle_nn::VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let mut config = weights.config.to_json("float32");
    let input = Tensor::new(tokens, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let logits = match config["model_type"].as_str().unwrap() {
        "llama" => {
            config["bos_token_id"] = json!(1);
            let config: candle_transformers::models::llama::LlamaConfig = serde_json::from_value(config).unwrap();
            let config = config.into_config(false);
            let mut cache = candle_transformers::models::llama::Cache::new(false, DType::F32, &config, &Device::Cpu).unwrap();
            let model = candle_transformers::models::llama::Llama::load(builder, &config).unwrap();
            model.forward(&input, 0, &mut cache).unwrap()
        }
        "qwen2" => {
            config["sliding_window"] = json!(64);
            config["max_window_layers"] = json!(2);
            config["use_sliding_window"] = json!(false);
            let config: candle_transformers::models::qwen2::Config = serde_json::from_value(config).unwrap();
            let mut model = candle_transformers::models::qwen2::ModelForCausalLM::new(&config, builder).unwrap();
            model.forward(&input, 0).unwrap()
        }
        _ => {
            config["attention_bias"] = json!(false);
            config["max_window_layers"] = json!(2);
            config["use_sliding_window"] = json!(false);
            let config: candle_transformers::models::qwen3::Config = serde_json::from_value(config).unwrap();
            let mut model = candle_transformers::models::qwen3::ModelForCausalLM::new(&config, builder).unwrap();
            model.forward(&input, 0).unwrap()
        }
    };
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

fn worst(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn the_plain_twin_and_the_decoder_give_the_logits_of_candle_transformers() {
    let tokens = [1, 5, 9, 11, 30, 7];
    for weights in all_models() {
        let theirs = transformers_logits(&weights, &tokens);
        let twin = ReferenceModel::new(&weights).unwrap().logits(&tokens).unwrap();
        let twin = twin.get(tokens.len() - 1).unwrap().to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
        assert!(worst(&theirs, &twin) < 1e-5, "{:?}: twin differs by {}", weights.config.family, worst(&theirs, &twin));
        let decoder = Decoder::new(&weights, 64, WeightFormat::F32);
        let ours = decoder.logits_after(&tokens);
        assert!(worst(&theirs, &ours) < 1e-5, "{:?}: decoder differs by {}", weights.config.family, worst(&theirs, &ours));
    }
}

#[test]
fn training_agrees_with_autograd_in_values_and_in_every_parameters_gradient() {
    let batch = packed();
    let slopes: Vec<f32> = (0..batch.targets.len()).map(|i| 0.3 - 0.17 * i as f32).collect();
    for weights in all_models() {
        let training = TrainingModel::new(&weights.config, batch.longest());
        let ours = training.logprobs(&weights, &batch);
        let twin = ReferenceModel::new(&weights).unwrap();
        let (logprobs, entropies) = twin.token_logprobs(&batch).unwrap();
        let as_f32 = |tensor: &Tensor| tensor.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
        assert!(worst(&ours.logprobs, &as_f32(&logprobs)) < 1e-5);
        assert!(worst(&ours.entropies, &as_f32(&entropies)) < 1e-5);

        let gradient = gradient(&training, &weights, &batch, &slopes, Keep::Activations);
        let weight = Tensor::new(slopes.as_slice(), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
        let loss = (logprobs * weight).unwrap().sum_all().unwrap();
        let expected = loss.backward().unwrap().get(twin.variable()).unwrap().to_vec1::<f64>().unwrap();
        for parameter in &weights.layout.parameters {
            let (mut distance, mut length) = (0.0, 0.0);
            for at in parameter.range.clone() {
                distance += (f64::from(gradient[at]) - expected[at]).powi(2);
                length += expected[at].powi(2);
            }
            assert!(length > 0.0, "{}: no gradient", parameter.name);
            let relative = (distance / length).sqrt();
            assert!(relative < 1e-5, "{:?} {}: relative difference {relative:e}", weights.config.family, parameter.name);
        }
    }
}

#[test]
fn autograd_agrees_with_finite_differences_in_every_parameter() {
    let batch = packed();
    for weights in all_models() {
        let twin = ReferenceModel::new(&weights).unwrap();
        let value = |twin: &ReferenceModel| -> Tensor { twin.token_logprobs(&batch).unwrap().0.sum_all().unwrap() };
        let gradient = value(&twin).backward().unwrap().get(twin.variable()).unwrap().to_vec1::<f64>().unwrap();
        let original = twin.variable().to_vec1::<f64>().unwrap();
        for parameter in &weights.layout.parameters {
            for at in [parameter.range.start + parameter.range.len() / 3, parameter.range.end - 1] {
                let step = 1e-5;
                let moved = |by: f64| {
                    let mut values = original.clone();
                    values[at] += by;
                    twin.variable().set(&Tensor::new(values, &Device::Cpu).unwrap()).unwrap();
                    value(&twin).to_scalar::<f64>().unwrap()
                };
                let slope = (moved(step) - moved(-step)) / (2.0 * step);
                assert!(
                    (slope - gradient[at]).abs() < 1e-6 * (1.0 + slope.abs()),
                    "{}: {slope} {}",
                    parameter.name,
                    gradient[at]
                );
            }
        }
        twin.variable().set(&Tensor::new(original, &Device::Cpu).unwrap()).unwrap();
    }
}

fn requests(num_prompts: u64, num_samples: u32) -> Vec<Request> {
    (0..num_prompts)
        .map(|row| Request {
            prompt: (0..=row % 5).map(|i| 1 + ((row + i) % 30) as u32).collect(),
            streams: (0..num_samples).map(|sample| random_stream("sample", &key(row, sample))).collect(),
        })
        .collect()
}

#[test]
fn completions_do_not_depend_on_batch_size_or_threads_and_carry_the_trainers_logprobs() {
    let sampling = SamplingSettings { temperature: 1.0, top_k: 0, top_p: 1.0, max_tokens: 12 };
    let interrupt = AtomicBool::new(false);
    for weights in all_models() {
        let decoder = Decoder::new(&weights, 64, WeightFormat::F32);
        let requests = requests(7, 5);
        let run = |threads, batch_size| {
            generate(&decoder, &requests, &sampling, Work { threads, batch_size, interrupt: &interrupt }, &|_| ()).unwrap()
        };
        let expected = run(1, 1);
        for (threads, batch_size) in [(1, 4), (2, 3), (3, 64)] {
            assert_eq!(run(threads, batch_size), expected);
        }
        // As a large model is decoded: all threads, or some, at one token together.
        for (threads, team_size, batch_size) in [(2, 2, 1), (3, 3, 5), (4, 2, 4)] {
            let work = Work { threads, batch_size, interrupt: &interrupt };
            let together = generate_in_teams(&decoder, &requests, &sampling, work, team_size, &|_| ()).unwrap();
            assert_eq!(together, expected);
        }
        let mut batch = PackedSequences::default();
        let mut logprobs = Vec::new();
        for (request, completions) in requests.iter().zip(&expected) {
            for completion in completions {
                batch.push(&request.prompt, &completion.tokens);
                logprobs.extend_from_slice(&completion.policy_logprobs);
                assert_eq!(completion.policy_logprobs.len(), completion.tokens.len());
            }
        }
        let trainer = TrainingModel::new(&weights.config, batch.longest()).logprobs(&weights, &batch);
        assert!(worst(&trainer.logprobs, &logprobs) < 2e-5, "differs by {}", worst(&trainer.logprobs, &logprobs));
    }
}

#[test]
fn a_narrow_format_is_the_model_with_rounded_weights() {
    let sampling = SamplingSettings { temperature: 0.8, top_k: 12, top_p: 0.9, max_tokens: 12 };
    let interrupt = AtomicBool::new(false);
    let work = Work { threads: 2, batch_size: 4, interrupt: &interrupt };
    for weights in all_models() {
        let mut rounded = weights.clone();
        for parameter in weights.layout.parameters.iter().filter(|parameter| parameter.is_matrix()) {
            let values = &mut rounded.values[parameter.range.clone()];
            let packed = PackedWeight::new(values, parameter.shape[0], parameter.shape[1], None, WeightFormat::Q8).rounded();
            values.copy_from_slice(&packed);
        }
        // An embedding of its own is looked up, not multiplied with, and stays as it is.
        if !weights.config.is_tied {
            let range = weights.layout.embedding.clone();
            rounded.values[range.clone()].copy_from_slice(&weights.values[range]);
        }
        let narrow = Decoder::new(&weights, 64, WeightFormat::Q8);
        let wide = Decoder::new(&rounded, 64, WeightFormat::F32);
        let completions = generate(&narrow, &requests(5, 3), &sampling, work, &|_| ()).unwrap();
        assert_eq!(completions, generate(&wide, &requests(5, 3), &sampling, work, &|_| ()).unwrap());

        tensor_file::round(&mut rounded.values, FloatType::Bf16);
        let narrow = Decoder::new(&rounded, 64, WeightFormat::Bf16);
        let wide = Decoder::new(&rounded, 64, WeightFormat::F32);
        let completions = generate(&narrow, &requests(5, 3), &sampling, work, &|_| ()).unwrap();
        assert_eq!(completions, generate(&wide, &requests(5, 3), &sampling, work, &|_| ()).unwrap());
    }
}

#[test]
fn greedy_decoding_is_the_argmax_of_the_plain_twin() {
    let weights = model("Qwen3ForCausalLM", true);
    let sampling = SamplingSettings { temperature: 0.0, top_k: 0, top_p: 1.0, max_tokens: 10 };
    let interrupt = AtomicBool::new(false);
    let decoder = Decoder::new(&weights, 64, WeightFormat::F32);
    let requests = requests(3, 1);
    let work = Work { threads: 2, batch_size: 2, interrupt: &interrupt };
    let completions = generate(&decoder, &requests, &sampling, work, &|_| ()).unwrap();
    let twin = ReferenceModel::new(&weights).unwrap();
    for (request, completion) in requests.iter().zip(&completions) {
        let mut tokens = request.prompt.clone();
        for token in &completion[0].tokens {
            let logits = twin.logits(&tokens).unwrap().get(tokens.len() - 1).unwrap();
            assert_eq!(logits.argmax(D::Minus1).unwrap().to_scalar::<u32>().unwrap(), *token);
            tokens.push(*token);
        }
    }
}

#[test]
fn bad_prompts_are_refused_and_an_interrupt_stops() {
    let weights = model("LlamaForCausalLM", true);
    let decoder = Decoder::new(&weights, 64, WeightFormat::F32);
    let sampling = SamplingSettings { temperature: 1.0, top_k: 0, top_p: 1.0, max_tokens: 100 };
    let run = |prompt: Vec<u32>, is_interrupted: bool| {
        let interrupt = AtomicBool::new(is_interrupted);
        let request = Request { prompt, streams: vec![random_stream("sample", &key(0, 0))] };
        generate(&decoder, &[request], &sampling, Work { threads: 1, batch_size: 2, interrupt: &interrupt }, &|_| ())
    };
    assert!(run(vec![], false).is_err());
    assert!(run(vec![VOCAB as u32], false).is_err());
    assert!(run(vec![1; 64], false).is_err());
    assert!(run(vec![1], true).is_err());
    // The model's positions bound a completion even where the settings allow more.
    let completions = run(vec![1; 60], false).unwrap();
    assert!(completions[0][0].tokens.len() <= 4);
}

#[test]
fn prompts_that_begin_alike_give_what_each_gives_by_itself() {
    let sampling = SamplingSettings { temperature: 1.0, top_k: 0, top_p: 1.0, max_tokens: 8 };
    let interrupt = AtomicBool::new(false);
    let work = Work { threads: 2, batch_size: 3, interrupt: &interrupt };
    let weights = model("Qwen2ForCausalLM", true);
    let decoder = Decoder::new(&weights, 64, WeightFormat::F32);
    // The last prompt is the beginning of the others.
    let requests: Vec<Request> = (0..5u32)
        .map(|row| Request {
            prompt: (1..30).chain((row < 4).then_some(30 + row)).collect(),
            streams: (0..3).map(|sample| random_stream("sample", &key(u64::from(row), sample))).collect(),
        })
        .collect();
    let together = generate(&decoder, &requests, &sampling, work, &|_| ()).unwrap();
    for (request, completions) in requests.iter().zip(together) {
        let alone = generate(&decoder, std::slice::from_ref(request), &sampling, work, &|_| ()).unwrap();
        assert_eq!(alone, [completions]);
    }
}
