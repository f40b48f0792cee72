//! Laws of an update: how it is cut into micro-batches, on how many threads it runs, and whether it was stopped in between
//! do not change what it does.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use rzero_algo::seed::{StreamKey, random_stream, uniform_below, uniform_f64};
use rzero_model::device::{Accelerator, Precision};
use rzero_model::{ModelConfig, Weights};
use rzero_schema::profile::{GrpoSettings, LoraSettings};
use rzero_schema::vocab::{FloatType, LoraTarget, LossNormalization, Phase};
use rzero_train::TrainError;
use rzero_train::batch::{Sequence, micro_batches};
use rzero_train::checkpoint::TrainState;
use rzero_train::grpo::{GrpoMetrics, GrpoSample, GrpoStep, grpo_step, reference_logprobs};
use rzero_train::lora::Lora;
use rzero_train::trainable::Trainable;
use serde_json::json;
use std::fs::File;
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
        gradient_parts: 1,
        recompute_activations: false,
        lora: LoraSettings { rank: 0, alpha: 8.0, targets: LoraTarget::ALL.to_vec() },
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

/// What is trained: all weights or adapters, stored as f32 or bf16.
#[derive(Clone, Copy)]
struct Kind {
    rank: usize,
    float: FloatType,
}

const PLAIN: Kind = Kind { rank: 0, float: FloatType::F32 };

fn trainable(kind: Kind, settings: &GrpoSettings, checkpoint: Weights, trained: Option<Vec<f32>>) -> Trainable {
    match kind.rank {
        0 => Trainable::weights_of(checkpoint, kind.float, trained),
        _ => Trainable::adapters_of(checkpoint, kind.float, &settings.lora, trained, &mut random_stream("lora", &key(0))),
    }
}

/// Steps one after another, each from what the one before left in memory or, with `through_files`, in files.
fn steps(kind: Kind, num_steps: usize, micro_batch_tokens: usize, through_files: bool) -> (Trainable, TrainState, GrpoMetrics) {
    steps_on(None, kind, num_steps, micro_batch_tokens, through_files)
}

fn steps_on(
    accelerator: Option<&Accelerator>,
    kind: Kind,
    num_steps: usize,
    micro_batch_tokens: usize,
    through_files: bool,
) -> (Trainable, TrainState, GrpoMetrics) {
    let mut settings = settings(micro_batch_tokens);
    settings.lora.rank = kind.rank;
    let (rollouts, interrupt) = (rollouts(20), AtomicBool::new(false));
    let reference = reference_logprobs(&model(), &borrowed(&rollouts), &settings, accelerator, &interrupt).unwrap();
    let step = GrpoStep {
        settings: &settings,
        learning_rate: 1e-3,
        length_limit: 12,
        reference: Some(&reference),
        accelerator,
        interrupt: &interrupt,
        on_tokens: &|_| (),
    };
    let mut policy = trainable(kind, &settings, model(), None);
    let mut state = TrainState::new(policy.values(), settings.weight_ema);
    let mut metrics = GrpoMetrics::default();
    for _ in 0..num_steps {
        metrics = grpo_step(&mut policy, &mut state.adam, &borrowed(&rollouts), &step).unwrap().0;
        state.update_average(policy.values(), settings.weight_ema);
        if through_files {
            let folder = tempfile::tempdir().unwrap();
            let (model_file, state_file) = (folder.path().join("model.safetensors"), folder.path().join("optimizer.safetensors"));
            let config = policy.weights().config.to_json("float32").to_string();
            policy.weights().write_safetensors(&mut File::create(model_file).unwrap(), kind.float).unwrap();
            state.write_safetensors(&mut File::create(&state_file).unwrap(), policy.values_beside_checkpoint()).unwrap();
            std::fs::write(folder.path().join("config.json"), config).unwrap();
            state = TrainState::read(&state_file, policy.values().len()).unwrap();
            let checkpoint = Weights::read(folder.path()).unwrap();
            assert_eq!(checkpoint.values, policy.weights().values, "a checkpoint holds what passes compute with");
            // Adapters belong to the weights that the phase started from.
            let checkpoint = if kind.rank == 0 { checkpoint } else { model() };
            policy = trainable(kind, &settings, checkpoint, state.trained.take());
        }
    }
    (policy, state, metrics)
}

fn run(threads: usize, micro_batch_tokens: usize) -> (Weights, TrainState, GrpoMetrics) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let (policy, state, metrics) = pool.install(|| steps(PLAIN, 1, micro_batch_tokens, false));
    (policy.weights().clone(), state, metrics)
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
fn a_device_gives_the_cpus_step_but_for_rounding() {
    let device = Accelerator::candle_cpu(Precision::F32);
    for rank in [0, 3] {
        let kind = Kind { rank, float: FloatType::F32 };
        let (expected, _, on_cpu) = steps(kind, 1, 64, false);
        let (policy, _, metrics) = steps_on(Some(&device), kind, 1, 64, false);
        assert_eq!((metrics.num_tokens, metrics.num_updates), (on_cpu.num_tokens, on_cpu.num_updates));
        assert!((metrics.loss - on_cpu.loss).abs() < 1e-5);
        assert!((metrics.kl_reference - on_cpu.kl_reference).abs() < 1e-5);
        assert!((metrics.gradient_norm - on_cpu.gradient_norm).abs() < 1e-4);
        // As above: Adam can turn a gradient that is zero but for rounding into a whole step.
        let pairs = || policy.values().iter().zip(expected.values());
        let share = pairs().filter(|(a, b)| (**a - **b).abs() > 2e-5).count() as f64 / policy.values().len() as f64;
        assert!(share < 0.01, "share {share}");
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

/// A model and rows of sizes from which products, loops and attention are cut, and more weights than a small model has.
#[test]
fn threads_do_not_change_a_bit_of_large_passes() {
    let config = json!({
        "architectures": ["Qwen2ForCausalLM"], "hidden_size": 192, "intermediate_size": 320, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 32, "vocab_size": 50_000, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 256, "tie_word_embeddings": true, "hidden_act": "silu", "eos_token_id": 2,
    });
    let mut weights = Weights::zeros(ModelConfig::from_json(&config.to_string()).unwrap());
    let mut stream = random_stream("weights", &key(1));
    weights.values.iter_mut().for_each(|value| *value = (0.2 * (uniform_f64(&mut stream) - 0.5)) as f32);
    let prompts: Vec<Vec<u32>> = (0..3).map(|group| (0..50).map(|at| (group * 997 + at * 31) % 50_000).collect()).collect();
    let completions: Vec<Vec<u32>> =
        (0..9).map(|row| (0..40 + row).map(|at| (row * 7_919 + at * 101) % 50_000).collect()).collect();
    let old_logprobs = [-10.0f32; 50];
    let samples: Vec<GrpoSample<'_>> = completions
        .iter()
        .enumerate()
        .map(|(row, completion)| GrpoSample {
            sequence: Sequence { prompt: &prompts[row / 3], completion },
            old_logprobs: &old_logprobs[..completion.len()],
            advantage: (row % 3) as f64 - 1.0,
            is_truncated: false,
        })
        .collect();
    let step_on = |threads: usize, recompute_activations: bool| {
        let settings = GrpoSettings { recompute_activations, update_batch: 0, ..settings(400) };
        let interrupt = AtomicBool::new(false);
        let step = GrpoStep {
            settings: &settings,
            learning_rate: 1e-3,
            length_limit: 50,
            reference: None,
            accelerator: None,
            interrupt: &interrupt,
            on_tokens: &|_| (),
        };
        let mut policy = trainable(PLAIN, &settings, weights.clone(), None);
        let mut state = TrainState::new(policy.values(), 0.0);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (metrics, _) = pool.install(|| grpo_step(&mut policy, &mut state.adam, &samples, &step)).unwrap();
        (policy.values().to_vec(), state, metrics)
    };
    let expected = step_on(1, false);
    for (threads, recompute_activations) in [(2, false), (3, false), (5, true)] {
        assert!(step_on(threads, recompute_activations) == expected, "{threads} threads, recompute {recompute_activations}");
    }
}

#[test]
fn nothing_is_padded_and_a_prompt_is_laid_out_once() {
    let config = model().config;
    let prompts: Vec<Vec<u32>> = (0..6).map(|row| vec![row / 3; 40]).collect();
    let completions: Vec<Vec<u32>> = (0..6).map(|row| vec![7; 1 + 3 * row as usize]).collect();
    let sequences: Vec<Sequence<'_>> =
        prompts.iter().zip(&completions).map(|(prompt, completion)| Sequence { prompt, completion }).collect();
    let num_rows = |sequences: &[Sequence<'_>], budget: usize| -> usize {
        let batches = micro_batches(sequences, budget, &config).unwrap();
        batches.iter().map(|batch| batch.packed.tokens.len()).sum()
    };
    let num_completion_tokens: usize = completions.iter().map(Vec::len).sum();
    // Each by itself: every row is a token of its sequence. Together: the two prompts stand there once each.
    assert_eq!(num_rows(&sequences, 1), 6 * 40 + num_completion_tokens);
    assert_eq!(num_rows(&sequences, 1_000), 2 * 40 + num_completion_tokens);
}

#[test]
fn a_step_resumed_from_files_is_the_step_that_was_never_stopped() {
    for rank in [0, 3] {
        for float in [FloatType::F32, FloatType::Bf16] {
            let kind = Kind { rank, float };
            let (policy, state, metrics) = steps(kind, 3, 64, false);
            let (resumed, resumed_state, resumed_metrics) = steps(kind, 3, 64, true);
            assert_eq!(policy.weights().values, resumed.weights().values);
            assert_eq!(policy.values(), resumed.values());
            assert_eq!(state, resumed_state);
            assert_eq!(metrics, resumed_metrics);
        }
    }
}

#[test]
fn adapters_move_their_matrices_only_and_off_they_are_the_base() {
    let base = model();
    let (policy, _, _) = steps(Kind { rank: 3, float: FloatType::F32 }, 2, 64, false);
    for parameter in &base.layout.parameters {
        let has_adapter = parameter.is_matrix() && parameter.name.contains(".layers.");
        let is_moved = base.at(&parameter.range) != policy.weights().at(&parameter.range);
        assert_eq!(is_moved, has_adapter, "{}", parameter.name);
    }
    let settings = settings(64);
    let settings = GrpoSettings { lora: LoraSettings { rank: 3, ..settings.lora.clone() }, ..settings };
    let fresh = trainable(Kind { rank: 3, float: FloatType::F32 }, &settings, base.clone(), None);
    assert_eq!(fresh.weights().values, base.values);
}

#[test]
fn the_gradient_of_adapters_is_that_of_finite_differences() {
    let base = model();
    let lora_settings = LoraSettings { rank: 2, alpha: 3.0, targets: vec![LoraTarget::Query, LoraTarget::Down] };
    let lora = Lora::new(&base.layout, &lora_settings);
    let mut stream = random_stream("lora", &key(1));
    let values: Vec<f32> = (0..lora.num_parameters()).map(|_| (uniform_f64(&mut stream) - 0.5) as f32).collect();
    // Any linear function of the weights will do as a loss: its gradient is a constant.
    let slopes: Vec<f32> = (0..base.values.len()).map(|_| (uniform_f64(&mut stream) - 0.5) as f32).collect();
    let loss = |values: &[f32]| {
        let mut weights = base.values.clone();
        lora.merge_into(&mut weights, values);
        weights.iter().zip(&slopes).map(|(w, s)| f64::from(*w) * f64::from(*s)).sum::<f64>()
    };
    let mut gradient = vec![0.0; values.len()];
    for layer in &base.layout.layers {
        let range = layer.range();
        lora.project(&range, &slopes[range.clone()], &values, &mut gradient);
    }
    for at in (0..values.len()).step_by(7) {
        let moved = |by: f32| {
            let mut values = values.clone();
            values[at] += by;
            loss(&values)
        };
        let slope = (moved(0.25) - moved(-0.25)) / 0.5;
        assert!((slope - f64::from(gradient[at])).abs() < 1e-4, "{at}: {slope} {}", gradient[at]);
    }
}

#[test]
fn bad_rollouts_and_interrupts_are_errors_and_not_panics() {
    let settings = settings(64);
    let attempt = |prompt: &[u32], completion: &[u32], old_logprobs: &[f32], advantage: f64, is_interrupted: bool| {
        let interrupt = AtomicBool::new(is_interrupted);
        let step = GrpoStep {
            settings: &settings,
            learning_rate: 1e-3,
            length_limit: 12,
            reference: None,
            accelerator: None,
            interrupt: &interrupt,
            on_tokens: &|_| (),
        };
        let sample = GrpoSample { sequence: Sequence { prompt, completion }, old_logprobs, advantage, is_truncated: false };
        reference_logprobs(&model(), &[sample], &settings, None, &AtomicBool::new(false))?;
        let mut policy = trainable(PLAIN, &settings, model(), None);
        let mut state = TrainState::new(policy.values(), 0.0);
        grpo_step(&mut policy, &mut state.adam, &[sample], &step).map(|_| ())
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
