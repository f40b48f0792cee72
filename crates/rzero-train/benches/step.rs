//! The GRPO step by itself: how long it takes, how many tokens a second that is, and the most memory it held. Prints one line of JSON.
//!
//! ```text
//! cargo bench -p rzero-train --bench step -- --model data/models/tiny --sequences 64 --prompt 32 --completion 32
//! ```
//!
//! Further: `--steps N` (measured, after one that is not), `--threads N` (0: all), `--mode full|lora`, `--recompute`, `--group N` (answers to
//! each prompt; their prompt is laid out once), `--micro-batch N` (tokens). Tokens and rollouts are drawn from a fixed seed; tokens are counted
//! as a peer without shared prompts counts them: all of every sequence. `pipelines/bench/torch_step.py` does the same step with PyTorch.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::unwrap_used, reason = "a benchmark stops where it cannot go on")]

use rzero_algo::seed::{StreamKey, random_stream, uniform_below};
use rzero_model::Weights;
use rzero_schema::profile::{GrpoSettings, LoraSettings};
use rzero_schema::vocab::{FloatType, LoraTarget, LossNormalization, Phase};
use rzero_train::batch::{Sequence, micro_batches};
use rzero_train::checkpoint::TrainState;
use rzero_train::grpo::{GrpoSample, GrpoStep, grpo_step};
use rzero_train::memory::{MemoryPlan, StepSize, peak_bytes};
use rzero_train::trainable::Trainable;
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// That of the stage binaries.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What was asked for on the command line.
struct Options {
    values: HashMap<String, String>,
}

impl Options {
    fn read() -> Self {
        let mut values = HashMap::new();
        let mut words = std::env::args().skip(1).peekable();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").unwrap_or_else(|| panic!("`{word}` is no option"));
            let value = words.next_if(|next| !next.starts_with("--")).unwrap_or_default();
            values.insert(name.to_owned(), value);
        }
        Self { values }
    }

    fn number(&self, name: &str, default: usize) -> usize {
        self.values.get(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("--{name} takes a number")))
    }

    fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }
}

fn settings(rank: usize, micro_batch_tokens: usize, recompute_activations: bool) -> GrpoSettings {
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
        micro_batch_tokens,
        gradient_parts: 1,
        recompute_activations,
        lora: LoraSettings { rank, alpha: 32.0, targets: LoraTarget::ALL.to_vec() },
        weight_ema: 0.0,
    }
}

fn main() {
    let options = Options::read();
    let threads = match options.number("threads", 0) {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    println!("{}", pool.install(|| measure(&options, threads)));
}

fn measure(options: &Options, threads: usize) -> serde_json::Value {
    let folder = options.values.get("model").map_or("data/models/tiny", String::as_str);
    let here = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let folder = if Path::new(folder).is_dir() { folder.into() } else { here.join(folder) };
    let weights = Weights::read(&folder).unwrap();
    let (num_sequences, prompt, completion) =
        (options.number("sequences", 8), options.number("prompt", 64), options.number("completion", 64));
    let (steps, group) = (options.number("steps", 5), options.number("group", 1).max(1));
    let rank = match options.values.get("mode").map_or("full", String::as_str) {
        "full" => 0,
        "lora" => 16,
        other => panic!("--mode is full or lora, not {other}"),
    };
    let settings = settings(rank, options.number("micro-batch", 1024), options.has("recompute"));
    let key = |row: u64| StreamKey { run_seed: 1, iteration: 1, phase: Phase::Solver, step: 1, row, sample: 0 };
    let tokens = |purpose: &str, row: usize, count: usize| -> Vec<u32> {
        let mut stream = random_stream(purpose, &key(row as u64));
        (0..count).map(|_| uniform_below(&mut stream, weights.config.vocab_size as u64) as u32).collect()
    };
    let prompts: Vec<Vec<u32>> = (0..num_sequences).map(|row| tokens("prompt", row / group, prompt)).collect();
    let completions: Vec<Vec<u32>> = (0..num_sequences).map(|row| tokens("completion", row, completion)).collect();
    let old_logprobs = vec![-(weights.config.vocab_size as f32).ln(); completion];
    let reference = vec![old_logprobs.clone(); num_sequences];
    let samples: Vec<GrpoSample<'_>> = (0..num_sequences)
        .map(|row| GrpoSample {
            sequence: Sequence { prompt: &prompts[row], completion: &completions[row] },
            old_logprobs: &old_logprobs,
            advantage: if row % 2 == 0 { 1.0 } else { -1.0 },
            is_truncated: false,
        })
        .collect();
    let sequences: Vec<Sequence<'_>> = samples.iter().map(|sample| sample.sequence).collect();
    let batches = micro_batches(&sequences, settings.micro_batch_tokens, &weights.config).unwrap();
    let num_rows: usize = batches.iter().map(|batch| batch.packed.tokens.len()).sum();
    let size = StepSize { num_rollouts: num_sequences, longest: prompt + completion, longest_completion: completion };
    let plan = MemoryPlan::new(&weights.config, &settings, FloatType::F32, size, threads);
    let mut policy = match rank {
        0 => Trainable::weights_of(weights, FloatType::F32, None),
        _ => Trainable::adapters_of(weights, FloatType::F32, &settings.lora, None, &mut random_stream("adapters", &key(0))),
    };
    let mut state = TrainState::new(policy.values(), 0.0);
    let interrupt = AtomicBool::new(false);
    let step = GrpoStep {
        settings: &settings,
        learning_rate: settings.learning_rate,
        length_limit: completion,
        reference: Some(&reference),
        accelerator: None,
        interrupt: &interrupt,
        on_tokens: &|_| (),
    };
    let (mut seconds, mut passes, mut optimizer, mut last) = (Vec::new(), Vec::new(), Vec::new(), None);
    for index in 0..=steps {
        let clock = Instant::now();
        let (metrics, timings) = grpo_step(&mut policy, &mut state.adam, &samples, &step).unwrap();
        if index > 0 {
            seconds.push(clock.elapsed().as_secs_f64());
            passes.push(timings.gradient.as_secs_f64());
            optimizer.push(timings.optimizer.as_secs_f64());
        }
        last = Some(metrics);
    }
    let metrics = last.unwrap();
    let num_tokens = num_sequences * (prompt + completion);
    json!({
        "library": "rzero", "model": folder.display().to_string(), "threads": threads, "mode": if rank == 0 { "full" } else { "lora" },
        "recompute": settings.recompute_activations, "sequences": num_sequences, "prompt": prompt, "completion": completion,
        "group": group, "rows": num_rows, "padding_share": 0.0,
        "seconds": seconds, "forward_backward_seconds": passes, "optimizer_seconds": optimizer,
        "tokens_per_second": num_tokens as f64 / median(&seconds),
        "peak_bytes": std::fs::read_to_string("/proc/self/status").ok().and_then(|status| peak_bytes(&status)),
        "planned_bytes": plan.total(), "loss": metrics.loss, "gradient_norm": metrics.gradient_norm,
    })
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
