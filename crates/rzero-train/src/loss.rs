//! The GRPO objective of one token. To try another loss, change [`token_loss`]: its derivative follows by itself.
//!
//! With rho = exp(logp_new - logp_old), advantage A and clip bounds `low`, `high`, `dual`:
//!
//! ```text
//! surrogate = max(-A rho, -A clip(rho, 1 - low, 1 + high))          A >= 0
//!             min(the same, -A dual)                                A <  0
//! k3        = exp(logp_ref - logp_new) - (logp_ref - logp_new) - 1
//! loss      = surrogate + kl_coef * k3
//! ```
//!
//! Sources: clipped objective, Schulman et al. 2017 (PPO); group-relative advantage, Shao et al. 2024 (GRPO); dual clip, Ye et al.
//! 2020; asymmetric clip, Yu et al. 2025 (DAPO); k3, Schulman's note on approximating the divergence.
//!
//! Departures from the released R-Zero code (EasyR1 at the commit the paper links):
//! 1. Tokens are averaged over the whole update batch, not per micro-batch, so that micro-batches cannot change the result.
//! 2. `kl_clamp` bounds the estimate k3 as there (10); the log-ratio itself is clamped to +-20 before the exponential, in both.
//! 3. Everything here is f64; the released code computes the divergence in f32.

use crate::dual::Dual;
use rzero_schema::profile::GrpoSettings;
use rzero_schema::vocab::LossNormalization;

/// What one token's loss is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLoss {
    /// The objective, with its derivative.
    pub loss: Dual,
    /// Its clipped surrogate part.
    pub surrogate: f64,
    /// The k3 estimate of the divergence from the reference.
    pub kl_reference: f64,
    /// logp_old - logp_new: the k1 estimate of the divergence from the sampling policy.
    pub kl_old: f64,
    /// Whether the lower clip holds this token (ratio under 1 - low at a negative advantage), or the dual clip does.
    pub is_clipped_low: bool,
    /// Whether the upper clip does (ratio over 1 + high at a positive advantage).
    pub is_clipped_high: bool,
}

/// The largest log-ratio that is exponentiated.
const LOG_RATIO_BOUND: f64 = 20.0;

/// The objective of one token. `logp_ref` is absent where no reference is kept (`kl_coef` 0).
#[must_use]
pub fn token_loss(logp_new: f64, logp_old: f64, logp_ref: Option<f64>, advantage: f64, settings: &GrpoSettings) -> TokenLoss {
    let logp = Dual::variable(logp_new);
    let ratio = (logp - logp_old).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp();
    let unclipped = ratio * -advantage;
    let clipped = ratio.clamp(1.0 - settings.clip_low, 1.0 + settings.clip_high) * -advantage;
    let mut surrogate = unclipped.max(clipped);
    let mut is_clipped_low = advantage < 0.0 && clipped.value > unclipped.value;
    let is_clipped_high = advantage > 0.0 && clipped.value > unclipped.value;
    if advantage < 0.0 {
        let bound = Dual::constant(-advantage * settings.clip_dual);
        is_clipped_low |= bound.value < surrogate.value;
        surrogate = surrogate.min(bound);
    }
    let kl = match logp_ref {
        None => Dual::constant(0.0),
        Some(reference) => {
            let log_ratio = (Dual::constant(reference) - logp).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND);
            let k3 = log_ratio.exp() - log_ratio - Dual::constant(1.0);
            if settings.kl_clamp > 0.0 { k3.clamp(-settings.kl_clamp, settings.kl_clamp) } else { k3 }
        }
    };
    TokenLoss {
        loss: surrogate + kl * settings.kl_coef,
        surrogate: surrogate.value,
        kl_reference: kl.value,
        kl_old: logp_old - logp_new,
        is_clipped_low,
        is_clipped_high,
    }
}

/// The weight of each token of every sequence of an update batch; the weights of all tokens say how losses are averaged.
///
/// * `token`: 1 / (tokens of the batch).
/// * `sequence-mean`: 1 / (tokens of the sequence x sequences).
/// * `dr-grpo`: 1 / (length limit x sequences), Liu et al. 2025: long answers are not discounted.
///
/// A masked sequence has length 0 here and counts neither as tokens nor as a sequence.
#[must_use]
pub fn token_weights(lengths: &[usize], normalization: LossNormalization, length_limit: usize) -> Vec<f64> {
    let num_tokens: usize = lengths.iter().sum();
    let num_sequences = lengths.iter().filter(|length| **length > 0).count();
    lengths
        .iter()
        .map(|&length| match normalization {
            _ if length == 0 => 0.0,
            LossNormalization::Token => 1.0 / num_tokens as f64,
            LossNormalization::SequenceMean => 1.0 / (length * num_sequences) as f64,
            LossNormalization::DrGrpo => 1.0 / (length_limit * num_sequences) as f64,
        })
        .collect()
}
