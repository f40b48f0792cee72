//! This project's way through a model gives what Hugging Face transformers gives: logits, log-probabilities, gradients and greedy
//! texts of tiny random models, one folder for each family and option, and of the embedded model.
//!
//! `fixtures/transformers/make.py` makes the folders and the expected numbers; what a folder holds is told in `tiny_models.py` there.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use rzero_model::decoder::Decoder;
use rzero_model::tokenizer::Tokenizer;
use rzero_model::training::{Keep, PackedSequences, TrainingModel};
use rzero_model::{ModelConfig, Weights};
use rzero_schema::vocab::{FinishReason, WeightFormat};
use std::path::PathBuf;
use support::{Golden, fixtures, greedy, workspace, worst};

mod support;

/// Logits and log-probabilities in f32; transformers sums in another order.
const TOLERANCE: f32 = 1e-4;
/// Of a gradient's norm.
const GRADIENT_TOLERANCE: f64 = 1e-3;

/// Every folder that must be there: a fixture that is lost is a test that is lost.
const FOLDERS: [&str; 11] = [
    "llama-attention-bias",
    "llama-head-dim",
    "llama-rope-linear",
    "llama-rope-llama3",
    "llama-tied",
    "llama-untied-f16-shards",
    "qwen2-rope-yarn",
    "qwen2-tied",
    "qwen2-untied-bf16",
    "qwen3-rope-yarn",
    "qwen3-tied",
];

fn folder(name: &str) -> PathBuf {
    fixtures().join(name)
}

fn models() -> impl Iterator<Item = (&'static str, Weights, Golden)> {
    FOLDERS.into_iter().map(|name| {
        let weights = Weights::read(&folder(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, weights, Golden::read(&folder(name).join("golden.json")))
    })
}

#[test]
fn logits_of_a_prompt_and_of_its_beginnings_are_the_same() {
    for (name, weights, golden) in models() {
        let prompt = golden.tokens("prompt");
        let decoder = Decoder::new(&weights, weights.config.max_positions, WeightFormat::F32);
        let positions = golden.tokens("positions");
        assert_eq!(positions.last().map(|last| *last as usize + 1), Some(prompt.len()));
        for (position, expected) in positions.into_iter().zip(golden.rows("logits")) {
            let logits = decoder.logits_after(&prompt[..=position as usize]);
            let difference = worst(&logits, &expected);
            assert!(difference < TOLERANCE, "{name}: logits at position {position} differ by {difference:e}");
        }
    }
}

#[test]
fn greedy_texts_are_the_same_and_end_where_any_of_the_stop_tokens_ends_them() {
    let mut num_stopped = 0;
    for (name, weights, golden) in models() {
        let expected = golden.tokens("greedy");
        let decoder = Decoder::new(&weights, weights.config.max_positions, WeightFormat::F32);
        let completion = &greedy(&decoder, &[golden.tokens("prompt")], 24)[0];
        assert_eq!(completion.tokens, expected, "{name}: another text");
        let is_ended = weights.config.eos_tokens.contains(&expected[expected.len() - 1]);
        assert_eq!(completion.finish == FinishReason::Stop, is_ended, "{name}: another end");
        num_stopped += usize::from(expected.len() < 24);
    }
    assert!(num_stopped > 0, "one model ends its text by a token that generation_config.json alone names");
}

/// Layouts of a prompt and its greedy text, with the slope of each log-probability: by itself with all activations kept, and as two halves that
/// share the prompt, with inputs kept only.
fn layouts(prompt: &[u32], written: &[u32], asked: usize) -> [(PackedSequences, Vec<f32>, Keep); 2] {
    let mut plain = PackedSequences::default();
    plain.push(&prompt[..1], &[&prompt[1..], written].concat());
    let shared = PackedSequences::shared(&[(prompt, written), (prompt, written)]);
    assert!(shared.tokens.len() < 2 * (prompt.len() + written.len()), "the prompt is shared");
    let slope = |at: usize, length: usize, value| if at + asked < length { 0.0 } else { value };
    let (length, half) = (plain.targets.len(), written.len());
    let of_plain = (0..length).map(|at| slope(at, length, 1.0)).collect();
    let of_shared = (0..2 * half).map(|at| slope(at % half, half, 0.5)).collect();
    [(plain, of_plain, Keep::Activations), (shared, of_shared, Keep::Inputs)]
}

#[test]
fn the_training_pass_gives_the_same_logprobs_and_gradients() {
    for (name, weights, golden) in models() {
        let (prompt, written) = (golden.tokens("prompt"), golden.tokens("greedy"));
        let (all_logprobs, expected) = (golden.floats("logprobs"), golden.gradients());
        assert_eq!(expected.len(), weights.layout.parameters.len(), "{name}: parameters");
        let training = TrainingModel::new(&weights.config, prompt.len() + written.len());
        for (batch, slopes, keep) in layouts(&prompt, &written, golden.number("asked_tokens") as usize) {
            let (result, tape) = training.forward(&weights, &batch, keep);
            let mut logprobs = all_logprobs.clone();
            if keep == Keep::Inputs {
                logprobs = all_logprobs[prompt.len() - 1..].repeat(2);
            }
            let difference = worst(&result.logprobs, &logprobs);
            assert!(difference < TOLERANCE, "{name}, {keep:?}: log-probabilities differ by {difference:e}");

            let mut gradient = vec![0.0; weights.values.len()];
            training.backward(&weights, &batch, tape, &slopes, &mut |range, part| {
                gradient[range].iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
            });
            for parameter in &weights.layout.parameters {
                let (sum, norm) = expected[&parameter.name];
                let gradient = &gradient[parameter.range.clone()];
                let our_sum: f64 = gradient.iter().map(|value| f64::from(*value)).sum();
                let our_norm = gradient.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
                assert!(norm > 0.0, "{name} {}: no gradient expected", parameter.name);
                let difference = (our_norm - norm).abs().max((our_sum - sum).abs()) / norm;
                assert!(
                    difference < GRADIENT_TOLERANCE,
                    "{name} {}, {keep:?}: gradient of sum {our_sum} and norm {our_norm}, expected {sum} and {norm}",
                    parameter.name
                );
            }
        }
    }
}

#[test]
fn both_forms_of_a_configuration_and_what_is_written_of_it_read_alike() {
    for name in FOLDERS {
        let read = |file: &str| {
            let text = std::fs::read_to_string(folder(name).join(file)).unwrap();
            ModelConfig::from_json(&text).unwrap_or_else(|problem| panic!("{name}/{file}: {problem}"))
        };
        let config = read("config.json");
        assert_eq!(config, read("old/config.json"), "{name}");
        let written =
            ModelConfig::from_json(&config.to_json("float32").to_string()).unwrap_or_else(|problem| panic!("{name}: {problem}"));
        assert_eq!(config, written, "{name}");
    }
}

/// With `RZERO_EXPORT` the folders are written there and stay, for `tests/python/opens_in_transformers.py` to open.
#[test]
fn a_model_of_any_type_and_number_of_shards_is_written_as_one_f32_file_that_reads_back() {
    let temporary = tempfile::tempdir().unwrap();
    let root = std::env::var_os("RZERO_EXPORT").map_or_else(|| temporary.path().to_path_buf(), PathBuf::from);
    for (name, weights, _) in models() {
        let other = root.join(name);
        std::fs::create_dir_all(&other).unwrap();
        std::fs::write(other.join("config.json"), weights.config.to_json("float32").to_string()).unwrap();
        std::fs::write(other.join("model.safetensors"), weights.to_safetensors()).unwrap();
        let again = Weights::read(&other).unwrap();
        assert_eq!(again.values, weights.values, "{name}");
        assert_eq!(again.config, weights.config, "{name}");
    }
}

#[test]
fn the_embedded_model_writes_what_it_writes_in_transformers() {
    let tiny = workspace().join("data/models/tiny");
    let weights = Weights::read(&tiny).unwrap();
    let tokenizer = Tokenizer::read(&tiny).unwrap();
    let decoder = Decoder::new(&weights, weights.config.max_positions, WeightFormat::F32);
    let cases = Golden::read(&fixtures().join("embedded.json")).cases();
    assert!(cases.len() >= 6);
    for case in cases {
        let (text, prompt) = (case.text("text"), case.tokens("prompt"));
        assert_eq!(tokenizer.encode(&text).unwrap(), prompt, "{text}");
        let difference = worst(&decoder.logits_after(&prompt), &case.floats("logits"));
        assert!(difference < TOLERANCE, "{text}: logits differ by {difference:e}");
        let completion = &greedy(&decoder, &[prompt], 40)[0];
        assert_eq!(completion.tokens, case.tokens("greedy"), "{text}: another text");
        assert_eq!(tokenizer.decode(&completion.tokens).text, case.text("written"), "{text}");
    }
}
