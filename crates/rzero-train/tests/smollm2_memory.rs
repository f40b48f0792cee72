//! The memory of a GRPO step on SmolLM2 (8 sequences of 256 tokens): within its bounds, and what the plan says to 15 %.
//!
//! Needs `data/models/smollm2` (`just model-smollm2`), or another place in RZERO_SMOLLM2; without it the test says that it was skipped. Peaks
//! belong to a process, so each kind of step runs in one of its own: this test, started again.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
#![allow(clippy::print_stderr, reason = "a skipped test says so, and the measuring process tells its figures")]

use rzero_algo::seed::{StreamKey, random_stream, uniform_below};
use rzero_model::Weights;
use rzero_schema::profile::{GrpoSettings, LoraSettings};
use rzero_schema::vocab::{FloatType, LoraTarget, LossNormalization, Phase};
use rzero_train::batch::Sequence;
use rzero_train::checkpoint::TrainState;
use rzero_train::grpo::{GrpoSample, GrpoStep, grpo_step, reference_logprobs};
use rzero_train::memory::{MemoryPlan, StepSize, peak_bytes};
use rzero_train::trainable::Trainable;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicBool;

/// That of the stage binaries: allocators differ in what they keep.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NUM_SEQUENCES: u64 = 8;
const PROMPT: usize = 128;
const COMPLETION: usize = 128;

fn folder() -> Option<PathBuf> {
    let named = std::env::var_os("RZERO_SMOLLM2").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/models/smollm2").into());
    folder.join("config.json").is_file().then_some(folder)
}

fn settings(rank: usize) -> GrpoSettings {
    GrpoSettings {
        learning_rate: 1e-6,
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
        mask_truncated: false,
        update_batch: 0,
        micro_batch_tokens: if rank == 0 { 1024 } else { 512 },
        gradient_parts: 1,
        recompute_activations: false,
        lora: LoraSettings { rank, alpha: 32.0, targets: LoraTarget::ALL.to_vec() },
        weight_ema: 0.0,
    }
}

/// Two steps; prints their peak and their plan.
fn measure(rank: usize) {
    let weights = Weights::read(&folder().unwrap()).unwrap();
    let settings = settings(rank);
    let key = |row: u64| StreamKey { run_seed: 1, iteration: 1, phase: Phase::Solver, step: 1, row, sample: 0 };
    let sequences: Vec<Vec<u32>> = (0..NUM_SEQUENCES)
        .map(|row| {
            let mut stream = random_stream("memory", &key(row));
            (0..PROMPT + COMPLETION).map(|_| uniform_below(&mut stream, weights.config.vocab_size as u64) as u32).collect()
        })
        .collect();
    let old_logprobs = vec![-10.0f32; COMPLETION];
    let samples: Vec<GrpoSample<'_>> = sequences
        .iter()
        .enumerate()
        .map(|(index, tokens)| GrpoSample {
            sequence: Sequence { prompt: &tokens[..PROMPT], completion: &tokens[PROMPT..] },
            old_logprobs: &old_logprobs,
            advantage: if index % 2 == 0 { 1.0 } else { -1.0 },
            is_truncated: false,
        })
        .collect();
    let size = StepSize { num_rollouts: samples.len(), longest: PROMPT + COMPLETION, longest_completion: COMPLETION };
    let plan = MemoryPlan::new(&weights.config, &settings, FloatType::F32, size, rayon::current_num_threads());
    let interrupt = AtomicBool::new(false);
    let reference = reference_logprobs(&weights, &samples, &settings, None, &interrupt).unwrap();
    let mut policy = match rank {
        0 => Trainable::weights_of(weights, FloatType::F32, None),
        _ => Trainable::adapters_of(weights, FloatType::F32, &settings.lora, None, &mut random_stream("adapters", &key(0))),
    };
    let mut state = TrainState::new(policy.values(), 0.0);
    let step = GrpoStep {
        settings: &settings,
        learning_rate: 1e-6,
        length_limit: COMPLETION,
        reference: Some(&reference),
        accelerator: None,
        interrupt: &interrupt,
        on_tokens: &|_| (),
    };
    // Moments of zero take no memory before the first update, so the second step is the one that shows what a step takes.
    for _ in 0..2 {
        let (metrics, _) = grpo_step(&mut policy, &mut state.adam, &samples, &step).unwrap();
        assert_eq!(metrics.num_tokens, NUM_SEQUENCES * COMPLETION as u64);
    }
    let peak = peak_bytes(&std::fs::read_to_string("/proc/self/status").unwrap()).unwrap();
    eprintln!("measured {peak} planned {}", plan.total());
}

#[test]
fn a_step_on_smollm2_stays_within_its_bounds_and_its_plan() {
    const KIND: &str = "RZERO_MEASURED_RANK";
    if let Some(rank) = std::env::var(KIND).ok().and_then(|rank| rank.parse().ok()) {
        measure(rank);
        return;
    }
    if folder().is_none() {
        eprintln!("skipped: there is no SmolLM2 (`just model-smollm2` brings it)");
        return;
    }
    for (rank, bound) in [(0, 6_000_000_000.0), (16, 3_000_000_000.0)] {
        let test = std::env::current_exe().unwrap();
        let mut command = Command::new(test);
        command.args(["--nocapture", "--exact", "a_step_on_smollm2_stays_within_its_bounds_and_its_plan"]);
        let output = command.env(KIND, rank.to_string()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let number = |word: &str| text.split_once(word).and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<f64>().ok());
        let (Some(measured), Some(planned)) = (number("measured "), number("planned ")) else { panic!("{text}") };
        eprintln!("rank {rank}: measured {:.2} GB, planned {:.2} GB", measured / 1e9, planned / 1e9);
        assert!(measured < bound, "rank {rank}: {measured} bytes");
        assert!((planned / measured - 1.0).abs() < 0.15, "rank {rank}: measured {measured}, planned {planned}");
    }
}
