//! `pretrain`: a synthetic corpus by seed to the embedded base model.
//!
//! Reads a base profile and the prompt templates; writes a model folder (config.json, tokenizer.json, model.safetensors) and its
//! `pretrain_metrics`. Documents are drawn step by step from random streams, so nothing is stored but the result.

use crate::console::{Progress, Verbosity, print_product, start_log};
use crate::exit::StageFailure;
use crate::interrupt::Interrupt;
use crate::prompt::Prompt;
use crate::stages::base_profile::{read_base_profile, write_base_table};
use rzero_algo::arithmetic::{is_held_out, random_expression, with_slip, worked_lines, worked_text};
use rzero_algo::seed::{RandomStream, StreamKey, random_stream, uniform_f64};
use rzero_io::atomic::write_bytes;
use rzero_model::config::{Family, ModelConfig};
use rzero_model::tokenizer::{CHARACTER_SPECIALS, Tokenizer, character_tokenizer_json};
use rzero_schema::pretrain_profile::{CorpusSettings, ModelSizes, PretrainPhase, PretrainProfile};
use rzero_schema::tables::PretrainMetrics;
use rzero_schema::vocab::{Phase, Stage};
use rzero_train::batch::Sequence;
use rzero_train::optim::AdamSettings;
use rzero_train::pretrain::{PretrainSettings, Pretraining, random_weights};
use std::path::PathBuf;

/// Steps between two rows of `pretrain_metrics`.
const STEPS_PER_ROW: u32 = 50;

/// Trains the embedded base model from nothing.
#[derive(Debug, clap::Parser)]
#[command(name = "pretrain", version)]
pub struct Args {
    /// Profile of the base model
    #[arg(long, value_name = "FILE", default_value = "pipelines/profiles/tiny-base.toml")]
    profile: PathBuf,
    /// Model folder to write
    #[arg(long, value_name = "DIR", default_value = "data/models/tiny")]
    output: PathBuf,
    /// Folder that the profile's paths are relative to
    #[arg(long, env = "RZERO_ROOT", value_name = "DIR", default_value = ".")]
    project_root: PathBuf,
}

/// Runs the stage.
///
/// # Errors
/// When the profile or a prompt cannot be read, training fails or a file cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    start_log(Verbosity::Normal);
    let interrupt = Interrupt::listen()?;
    let (profile, profile_digest) = read_base_profile(&args.profile)?;
    let tokenizer_text = serde_json::to_string_pretty(&character_tokenizer_json())?;
    let config = model_config(&profile.model);
    let corpus = Corpus {
        settings: &profile.corpus,
        challenger_prompt: Prompt::read(&args.project_root.join(&profile.challenger_prompt), None)?,
        solver_prompt: Prompt::read(&args.project_root.join(&profile.solver_prompt), None)?,
        tokenizer: Tokenizer::from_json(&tokenizer_text, args.output.join("tokenizer.json"))?,
    };
    let weights_key = StreamKey { run_seed: profile.seed, iteration: 0, phase: Phase::Curriculum, step: 0, row: 0, sample: 0 };
    let mut weights = random_weights(&config, &mut random_stream("base weights", &weights_key));
    let mut rows = Vec::new();
    for (index, phase) in profile.phases.iter().enumerate() {
        let mut training = Pretraining::new(weights);
        train_phase(&profile, &corpus, index as u32, phase, &mut training, &interrupt, &mut rows)?;
        weights = training.weights;
    }
    // The model that was there stays whole until now. The config comes last: it makes a folder a model.
    write_bytes(&args.output.join("model.safetensors"), &weights.to_safetensors())?;
    let metrics = args.output.join("pretrain_metrics.parquet");
    write_base_table(&metrics, &rows, Stage::Pretrain, Phase::Curriculum, profile.seed, profile_digest)?;
    write_bytes(&args.output.join("tokenizer.json"), tokenizer_text.as_bytes())?;
    write_bytes(&args.output.join("config.json"), serde_json::to_string_pretty(&config.to_json())?.as_bytes())?;
    print_product(args.output.display());
    Ok(())
}

fn model_config(sizes: &ModelSizes) -> ModelConfig {
    let token = |word: &str| CHARACTER_SPECIALS.iter().position(|special| *special == word).map(|id| id as u32);
    ModelConfig {
        family: Family::Llama,
        hidden_size: sizes.hidden_size,
        intermediate_size: sizes.intermediate_size,
        num_layers: sizes.num_layers,
        num_heads: sizes.num_heads,
        num_kv_heads: sizes.num_kv_heads,
        head_dim: sizes.head_dim,
        vocab_size: 64,
        rms_norm_eps: sizes.rms_norm_eps,
        rope_theta: sizes.rope_theta,
        max_positions: sizes.max_positions,
        is_tied: true,
        has_qkv_bias: false,
        has_qk_norm: false,
        bos_token: token("<bos>"),
        eos_tokens: token("<eos>").into_iter().collect(),
    }
}

fn train_phase(
    profile: &PretrainProfile,
    corpus: &Corpus<'_>,
    index: u32,
    phase: &PretrainPhase,
    training: &mut Pretraining,
    interrupt: &Interrupt,
    rows: &mut Vec<PretrainMetrics>,
) -> anyhow::Result<()> {
    let optimizer = &profile.optimizer;
    let settings = PretrainSettings {
        steps: phase.steps,
        warmup_steps: optimizer.warmup_steps,
        learning_rate: phase.learning_rate,
        muon_learning_rate: phase.muon_learning_rate,
        adam: AdamSettings {
            beta1: optimizer.adam_beta1,
            beta2: optimizer.adam_beta2,
            epsilon: optimizer.adam_epsilon,
            weight_decay: optimizer.weight_decay,
        },
        momentum: optimizer.muon_momentum,
        max_gradient_norm: optimizer.max_gradient_norm,
        micro_batch_tokens: optimizer.micro_batch_tokens,
    };
    let progress = Progress::start(&format!("pre-training, phase {}", index + 1), u64::from(phase.steps), "steps");
    let (mut loss, mut tokens) = (0.0, 0u64);
    let (steps_before, tokens_before) = rows.last().map_or((0, 0), |row| (row.step, row.num_tokens));
    for step in 1..=phase.steps {
        interrupt.check()?;
        let documents = corpus.batch(profile.seed, index, step, optimizer.tokens_per_step, &phase.operator_shares)?;
        let sequences: Vec<Sequence<'_>> = documents.iter().map(|(prompt, completion)| Sequence { prompt, completion }).collect();
        let done = training.step(&sequences, step, &settings, interrupt.flag())?;
        loss += done.loss;
        tokens += done.num_tokens;
        if step % STEPS_PER_ROW == 0 || step == phase.steps {
            let steps = steps_before + step - rows.last().map_or(0, |row| row.step);
            rows.push(PretrainMetrics {
                step: steps_before + step,
                loss: loss / f64::from(steps),
                learning_rate: done.learning_rate,
                gradient_norm: done.gradient_norm,
                num_tokens: tokens_before + tokens,
            });
            progress.note(format!("loss {:.4}", loss / f64::from(steps)));
            loss = 0.0;
        }
        progress.advance(1);
    }
    Ok(())
}

/// The corpus: documents drawn by seed, phase, step and number.
struct Corpus<'a> {
    settings: &'a CorpusSettings,
    challenger_prompt: Prompt,
    solver_prompt: Prompt,
    tokenizer: Tokenizer,
}

impl Corpus<'_> {
    /// Documents as (prompt, completion), as many as fit a step.
    fn batch(
        &self,
        seed: u64,
        phase: u32,
        step: u32,
        num_tokens: usize,
        operator_shares: &[f64],
    ) -> anyhow::Result<Vec<(Vec<u32>, Vec<u32>)>> {
        let key = StreamKey { run_seed: seed, iteration: phase + 1, phase: Phase::Curriculum, step, row: 0, sample: 0 };
        let mut stream = random_stream("corpus", &key);
        let mut documents = Vec::new();
        let mut count = 0;
        loop {
            let (prompt, completion) = self.document(operator_shares, &mut stream)?;
            let (prompt, completion) = (self.tokenizer.encode(&prompt)?, self.tokenizer.encode(&completion)?);
            count += prompt.len() + completion.len();
            if count > num_tokens && !documents.is_empty() {
                return Ok(documents);
            }
            documents.push((prompt, completion));
        }
    }

    fn document(&self, operator_shares: &[f64], stream: &mut RandomStream) -> anyhow::Result<(String, String)> {
        let is_challenger = uniform_f64(stream) < self.settings.challenger_share;
        let shares = if is_challenger { &self.settings.challenger_operator_shares } else { operator_shares };
        let expression = loop {
            let expression = random_expression(choose(shares, stream), self.settings, stream);
            if !is_held_out(&expression.to_string()) {
                break expression;
            }
        };
        let question = expression.to_string();
        let value = expression
            .evaluate()
            .ok_or_else(|| StageFailure::internal(format!("the corpus drew `{question}`, which has no value")))?;
        if is_challenger {
            let answer = with_slip(value, self.settings, stream);
            return Ok((self.challenger_prompt.render("")?, format!("<question>{question}</question>\\boxed{{{answer}}}<eos>")));
        }
        let prompt = self.solver_prompt.render(&question)?;
        let (work, answer) = if uniform_f64(stream) < self.settings.worked_share {
            let (lines, answer) = worked_lines(&expression, Some(self.settings), stream);
            (worked_text(&lines), answer)
        } else {
            (String::new(), with_slip(value, self.settings, stream))
        };
        Ok((prompt, format!("{work}\\boxed{{{answer}}}<eos>")))
    }
}

/// A number of operators by its share: 1 for the first share, 2 for the second.
fn choose(shares: &[f64], stream: &mut RandomStream) -> u32 {
    let mut aim = uniform_f64(stream);
    for (index, share) in shares.iter().enumerate() {
        aim -= share;
        if aim < 0.0 {
            return index as u32 + 1;
        }
    }
    shares.len() as u32
}
