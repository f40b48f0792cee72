//! The profile of a base model, from which `pretrain` draws a corpus and `make-ladder` problems of the same kind.

use crate::exit::StageFailure;
use anyhow::Context;
use rzero_algo::arithmetic::ExpressionRule;
use rzero_schema::pretrain_profile::{CorpusSettings, PretrainProfile};
use std::path::Path;

/// Reads the profile of a base model; also its digest.
///
/// # Errors
/// When it cannot be read or used: exit code 2.
pub fn read_base_profile(path: &Path) -> anyhow::Result<(PretrainProfile, String)> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        StageFailure::usage(format!("cannot read profile {}: {error}", path.display()))
            .hint("name the profile of a base model with --profile, such as pipelines/profiles/tiny-base.toml")
    })?;
    let profile = PretrainProfile::from_toml(&text).with_context(|| format!("cannot use profile {}", path.display()))?;
    Ok((profile, blake3::hash(text.as_bytes()).to_hex().to_string()))
}

/// The expression rule of a corpus.
#[must_use]
pub fn expression_rule(corpus: &CorpusSettings) -> ExpressionRule {
    ExpressionRule {
        two_digit_share: corpus.two_digit_share,
        zero_share: corpus.zero_share,
        multiply_share: corpus.multiply_share,
        plus_share: corpus.plus_share,
        left_leaning_share: corpus.left_leaning_share,
        max_intermediate: corpus.max_intermediate,
        max_factor: corpus.max_factor,
        small_factor: corpus.small_factor,
        negative_share: corpus.negative_share,
        max_chars: corpus.max_question_chars,
    }
}
