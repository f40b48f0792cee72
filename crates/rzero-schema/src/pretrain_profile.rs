//! The profile of the embedded base model: its sizes, its synthetic corpus and its training, exactly.
//!
//! As in [`crate::profile`], every key stands in the file and unknown keys are errors.

use crate::profile::ProfileError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Everything that decides the bytes of the embedded model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainProfile {
    /// Name of the profile.
    pub name: String,
    /// Seed of the weights and the corpus.
    pub seed: u64,
    /// Prompt template of the Challenger, relative to the project's root.
    pub challenger_prompt: String,
    /// Prompt template of the Solver.
    pub solver_prompt: String,
    /// Sizes of the model, of the Llama family with a tied embedding.
    pub model: ModelSizes,
    /// What the corpus is drawn from.
    pub corpus: CorpusSettings,
    /// The optimiser.
    pub optimizer: PretrainOptimizer,
    /// Training phases, one after the other, each with an optimiser of its own.
    pub phases: Vec<PretrainPhase>,
}

/// Sizes of the embedded model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSizes {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Inner width of the feed-forward.
    pub intermediate_size: usize,
    /// Layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key-value heads.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// RMS norm's constant.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Longest sequence.
    pub max_positions: usize,
}

/// What the corpus is drawn from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorpusSettings {
    /// Share of Challenger documents; the rest are Solver documents.
    pub challenger_share: f64,
    /// Operators of a Challenger document's question: shares of 1, 2, 3, ...
    pub challenger_operator_shares: Vec<f64>,
    /// Share of Solver documents that work in steps; the rest answer directly.
    pub worked_share: f64,
    /// Probability that a step, or a direct answer, is wrong.
    pub slip_probability: f64,
    /// Share of slips that are off by one.
    pub slip_by_one_share: f64,
    /// Share of slips that are off by ten; the rest are off by 2, 3 or 5.
    pub slip_by_ten_share: f64,
    /// Share of two-digit leaves.
    pub two_digit_share: f64,
    /// Share of one-digit leaves that may be zero.
    pub zero_share: f64,
    /// Share of `*` among the operators.
    pub multiply_share: f64,
    /// Share of `+` among the operators; the rest are `-`.
    pub plus_share: f64,
    /// Share of operators whose left side takes all remaining operators.
    pub left_leaning_share: f64,
    /// Expressions with an intermediate value beyond this are not drawn.
    pub max_intermediate: i64,
    /// Factors beyond this are not drawn.
    pub max_factor: i64,
    /// At least one factor of a product is at most this.
    pub small_factor: i64,
    /// Share of expressions whose intermediate values may be negative.
    pub negative_share: f64,
    /// Longest question, in characters.
    pub max_question_chars: usize,
}

/// The optimiser of pre-training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainOptimizer {
    /// Tokens of a step.
    pub tokens_per_step: usize,
    /// Steps of linear warm-up.
    pub warmup_steps: u32,
    /// AdamW's first moment decay.
    pub adam_beta1: f64,
    /// AdamW's second moment decay.
    pub adam_beta2: f64,
    /// AdamW's denominator constant.
    pub adam_epsilon: f64,
    /// Decoupled weight decay on matrices.
    pub weight_decay: f64,
    /// Muon's momentum.
    pub muon_momentum: f64,
    /// Global gradient-norm clip.
    pub max_gradient_norm: f64,
    /// Tokens of a micro-batch.
    pub micro_batch_tokens: usize,
}

/// One training phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainPhase {
    /// Steps.
    pub steps: u32,
    /// Peak learning rate of AdamW.
    pub learning_rate: f64,
    /// Peak learning rate of Muon.
    pub muon_learning_rate: f64,
    /// Operators of a Solver document's question: shares of 1, 2, 3, ...
    pub operator_shares: Vec<f64>,
}

impl PretrainProfile {
    /// Reads a profile.
    ///
    /// # Errors
    /// When the text is no such profile or a number is out of range.
    pub fn from_toml(text: &str) -> Result<Self, ProfileError> {
        let profile: Self = toml::from_str(text)?;
        let shares = &profile.corpus;
        let all_shares = [
            ("corpus.challenger_share", shares.challenger_share),
            ("corpus.worked_share", shares.worked_share),
            ("corpus.slip_probability", shares.slip_probability),
            ("corpus.slip_by_one_share", shares.slip_by_one_share),
            ("corpus.slip_by_ten_share", shares.slip_by_ten_share),
            ("corpus.two_digit_share", shares.two_digit_share),
            ("corpus.zero_share", shares.zero_share),
            ("corpus.multiply_share", shares.multiply_share),
            ("corpus.plus_share", shares.plus_share),
            ("corpus.left_leaning_share", shares.left_leaning_share),
            ("corpus.negative_share", shares.negative_share),
        ];
        for (key, value) in all_shares {
            if !(0.0..=1.0).contains(&value) {
                return Err(ProfileError::Range { key, value: value.to_string(), expected: "a number from 0 to 1" });
            }
        }
        let operator_shares = profile.phases.iter().map(|phase| &phase.operator_shares);
        for shares in operator_shares.chain([&profile.corpus.challenger_operator_shares]) {
            let sum: f64 = shares.iter().sum();
            if shares.is_empty() || shares.iter().any(|share| *share < 0.0) || (sum - 1.0).abs() > 1e-9 {
                let value = format!("{shares:?}");
                return Err(ProfileError::Range { key: "operator_shares", value, expected: "shares that add up to 1" });
            }
        }
        Ok(profile)
    }
}
