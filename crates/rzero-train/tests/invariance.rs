//! Laws of an update: how it is cut into micro-batches, on how many threads it runs, and whether it was stopped in between
//! do not change what it does.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use rzero_algo::seed::{StreamKey, random_stream, uniform_below, uniform_f64};
use rzero_model::{ModelConfig, Weights};
use rzero_schema::profile::GrpoSettings;
use rzero_schema::vocab::{LossNormalization, Phase};
use rzero_train::TrainError;
use rzero_train::batch::Sequence;
use rzero_train::checkpoint::TrainState;
use rzero_train::grpo::{GrpoMetrics, GrpoSample, GrpoStep, grpo_step};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::AtomicBool;

fn settings(micro_batch_tokens: usize) -> GrpoSettings {
    GrpoSettings {
        learning_rate: 1e-3,
        learning_rate_decay: 1.0,
        adam_beta1: 0.9,
        adam_beta2: 0.99,
        adam_epsilon: 1e-8,
        weight_decay: 0.01,
        max_gradient_norm: 1.0,
        kl_coef: 0.01,
        kl_clamp: 10.0,
        clip_low: 0.2,
        clip_high: 0.3,
        clip_dual: 3.0,
        loss_normalization: LossNormalization::Token,
        mask_truncated: true,
        update_batch: 8,
        micro_batch_tokens,
        weight_ema: 0.5,
    }
}

fn model() -> Weights {
    let config = json!({
        "architectures": ["Qwen3ForCausalLM"], "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 20, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 64, "tie_word_embeddings": true, "hidden_act": "silu", "eos_token_id": 2,
    });
    let mut weights = Weights::zeros(ModelConfig::from_json(&config.to_string()).unwrap());
    let mut stream = random_stream("weights", &key(0));
    weights.values.iter_mut().for_each(|value| *value = (uniform_f64(&mut stream) - 0.5) as f32);
    weights
}

fn key(row: u64) -> StreamKey {
    StreamKey { run_seed: 5, iteration: 1, phase: Phase::Solver, step: 1, row, sample: 0 }
}

struct OwnedSample {
    prompt: Vec<u32>,
    completion: Vec<u32>,
    old_logprobs: Vec<f32>,
    advantage: f64,
}

fn rollouts(count: u64) -> Vec<OwnedSample> {
    (0..count)
        .map(|row| {
            let mut stream = random_stream("rollout", &key(row));
            let length = 1 + uniform_below(&mut stream, 12) as usize;
            let mut tokens = |n: usize| -> Vec<u32> { (0..n).map(|_| uniform_below(&mut stream, 20) as u32).collect() };
            let (prompt, completion) = (tokens(3), tokens(length));
            let old_logprobs = completion.iter().map(|token| -1.0 - *token as f32 / 10.0).collect();
            OwnedSample { prompt, completion, old_logprobs, advantage: (row % 5) as f64 - 2.0 }
        })
        .collect()
}

fn borrowed(rollouts: &[OwnedSample]) -> Vec<GrpoSample<'_>> {
    rollouts
        .iter()
        .enumerate()
        .map(|(index, sample)| GrpoSample {
            sequence: Sequence { prompt: &sample.prompt, completion: &sample.completion },
            old_logprobs: &sample.old_logprobs,
            advantage: sample.advantage,
            is_truncated: index % 7 == 3,
        })
        .collect()
}

fn run(threads: usize, micro_batch_tokens: usize) -> (Weights, TrainState, GrpoMetrics) {
    let (mut weights, reference) = (model(), model());
    let settings = settings(micro_batch_tokens);
    let mut state = TrainState::new(&weights.values, settings.weight_ema);
    let rollouts = rollouts(20);
    let interrupt = AtomicBool::new(false);
    let step = GrpoStep {
        settings: &settings,
        learning_rate: 1e-3,
        length_limit: 12,
        reference: &reference,
        accelerator: None,
        interrupt: &interrupt,
        on_tokens: &|_| (),
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let (metrics, _) = pool.install(|| grpo_step(&mut weights, &mut state.adam, &borrowed(&rollouts), &step)).unwrap();
    state.update_average(&weights.values, settings.weight_ema);
    (weights, state, metrics)
}

#[test]
fn micro_batches_change_an_update_by_rounding_only() {
    let (whole, _, expected) = run(1, 1_000_000);
    for budget in [1, 20, 64] {
        let (weights, _, metrics) = run(1, budget);
        assert_eq!(metrics.num_updates, 3);
        assert!((metrics.loss - expected.loss).abs() < 1e-6);
        assert!((metrics.gradient_norm - expected.gradient_norm).abs() < 1e-5);
        let worst = whole.values.iter().zip(&weights.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Three updates of 1e-3 each; Adam can turn a gradient that is zero but for rounding into a whole step.
        let share = whole.values.iter().zip(&weights.values).filter(|(a, b)| (**a - **b).abs() > 2e-5).count() as f64
            / whole.values.len() as f64;
        assert!(worst < 6.1e-3 && share < 0.002, "worst {worst}, share {share}");
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let expected = run(1, 40);
    for threads in [2, 3] {
        let actual = run(threads, 40);
        assert_eq!(actual.0.values, expected.0.values);
        assert_eq!(actual.1, expected.1);
        assert_eq!(actual.2, expected.2);
    }
}

#[test]
fn a_step_resumed_from_files_is_the_step_that_was_never_stopped() {
    let settings = settings(64);
    let (rollouts, reference, interrupt) = (rollouts(16), model(), AtomicBool::new(false));
    let step = GrpoStep {
        settings: &settings,
        learning_rate: 1e-3,
        length_limit: 12,
        reference: &reference,
        accelerator: None,
        interrupt: &interrupt,
        on_tokens: &|_| (),
    };
    let (mut weights, mut state) = (model(), TrainState::new(&model().values, 0.5));
    let (mut resumed, mut resumed_state) = (weights.clone(), state.clone());
    for _ in 0..3 {
        grpo_step(&mut weights, &mut state.adam, &borrowed(&rollouts), &step).unwrap();
        state.update_average(&weights.values, 0.5);

        grpo_step(&mut resumed, &mut resumed_state.adam, &borrowed(&rollouts), &step).unwrap();
        resumed_state.update_average(&resumed.values, 0.5);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.safetensors"), resumed.to_safetensors()).unwrap();
        std::fs::write(folder.path().join("config.json"), resumed.config.to_json().to_string()).unwrap();
        resumed = Weights::read(folder.path()).unwrap();
        let bytes = resumed_state.to_safetensors();
        resumed_state = TrainState::from_safetensors(&bytes, resumed.values.len(), Path::new("optimizer.safetensors")).unwrap();
    }
    assert_eq!(weights.values, resumed.values);
    assert_eq!(state, resumed_state);
}

#[test]
fn bad_rollouts_and_interrupts_are_errors_and_not_panics() {
    let settings = settings(64);
    let reference = model();
    let attempt = |prompt: &[u32], completion: &[u32], old_logprobs: &[f32], advantage: f64, is_interrupted: bool| {
        let interrupt = AtomicBool::new(is_interrupted);
        let step = GrpoStep {
            settings: &settings,
            learning_rate: 1e-3,
            length_limit: 12,
            reference: &reference,
            accelerator: None,
            interrupt: &interrupt,
            on_tokens: &|_| (),
        };
        let sample = GrpoSample { sequence: Sequence { prompt, completion }, old_logprobs, advantage, is_truncated: false };
        let mut weights = model();
        let mut state = TrainState::new(&weights.values, 0.0);
        grpo_step(&mut weights, &mut state.adam, &[sample], &step).map(|_| ())
    };
    assert!(attempt(&[1], &[2], &[-1.0], 1.0, false).is_ok());
    assert!(matches!(attempt(&[], &[2], &[-1.0], 1.0, false), Err(TrainError::Rollout { .. })));
    assert!(matches!(attempt(&[1], &[2, 2], &[-1.0], 1.0, false), Err(TrainError::Rollout { .. })));
    assert!(matches!(attempt(&[1], &[20], &[-1.0], 1.0, false), Err(TrainError::Rollout { .. })));
    assert!(matches!(attempt(&[1], &[2; 64], &[-1.0; 64], 1.0, false), Err(TrainError::Rollout { .. })));
    assert!(matches!(attempt(&[1], &[2], &[f32::NAN], 1.0, false), Err(TrainError::Rollout { .. })));
    assert!(matches!(attempt(&[1], &[2], &[-1.0], f64::INFINITY, false), Err(TrainError::Rollout { .. })));
    assert!(matches!(attempt(&[1], &[], &[], 1.0, false), Err(TrainError::NoTokens)));
    assert!(matches!(attempt(&[1], &[2], &[-1.0], 1.0, true), Err(TrainError::Interrupted)));
}
