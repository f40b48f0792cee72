//! The sizes and switches in a GGUF header, and the config.json that says the same.
//!
//! What changes the forward pass and cannot be said in config.json is refused by its key. Rotary scaling is translated where it is
//! linear or YaRN; where the header gives a factor and no type it is linear, as in llama.cpp.

use super::header::Header;
use rzero_schema::vocab::FloatType;
use serde_json::{Value, json};

/// The architectures that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    Llama,
    Qwen2,
    Qwen3,
}

/// YaRN's constants where a header leaves them out.
const YARN_BETA_FAST: f64 = 32.0;
const YARN_BETA_SLOW: f64 = 1.0;

/// How rotary frequencies are stretched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum RopeScaling {
    /// Not at all.
    None,
    /// Positions are divided by the factor.
    Linear { factor: f64 },
    /// YaRN; the attention factor is that of its paper times `attention_factor`.
    Yarn { factor: f64, original_positions: u64, attention_factor: f64, beta_fast: f64, beta_slow: f64 },
}

/// Sizes and switches of the model in a file.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    pub(super) architecture: Architecture,
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) num_layers: usize,
    pub(super) num_heads: usize,
    pub(super) num_kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) max_positions: u64,
    pub(super) rms_norm_eps: f64,
    pub(super) rope_theta: f64,
    pub(super) rope_scaling: RopeScaling,
}

impl Sizes {
    /// Reads the sizes of a supported architecture.
    pub(super) fn read(header: &Header) -> Result<Self, String> {
        let name = Header::require(header.text("general.architecture")?, "general.architecture")?;
        let architecture = match name {
            "llama" => Architecture::Llama,
            "qwen2" => Architecture::Qwen2,
            "qwen3" => Architecture::Qwen3,
            other => return Err(format!("architecture `{other}` is not supported, expected llama, qwen2 or qwen3")),
        };
        if let Some(count) = header.unsigned("split.count")?.filter(|count| *count > 1) {
            return Err(format!(
                "metadata `split.count` is {count}: this is one part of a model in several files, join them first"
            ));
        }
        let read = ArchitectureKeys { header, architecture: name };
        read.refuse_what_cannot_be_expressed()?;
        let size = |name: &str, limit: u64| read.size(name, limit);
        let hidden_size = size("embedding_length", 1 << 16)?;
        let num_heads = size("attention.head_count", 1024)?;
        let num_kv_heads =
            if read.unsigned("attention.head_count_kv")?.is_some() { size("attention.head_count_kv", 1024)? } else { num_heads };
        if !num_heads.is_multiple_of(num_kv_heads) {
            return Err(format!("{num_heads} query heads cannot share {num_kv_heads} key-value heads"));
        }
        let head_dim = match read.unsigned("attention.key_length")? {
            Some(_) => size("attention.key_length", 1024)?,
            None => hidden_size / num_heads,
        };
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(format!("the width of a head is {head_dim}, rotary embedding needs an even one"));
        }
        for width in ["attention.value_length", "rope.dimension_count"] {
            if let Some(found) = read.unsigned(width)?.filter(|found| *found != head_dim as u64) {
                return Err(format!("metadata `{}` is {found}, expected the width of a head, {head_dim}", read.key(width)));
            }
        }
        let rms_norm_eps = read.positive("attention.layer_norm_rms_epsilon")?;
        let max_positions = size("context_length", 1 << 24)? as u64;
        Ok(Self {
            architecture,
            hidden_size,
            intermediate_size: size("feed_forward_length", 1 << 18)?,
            num_layers: size("block_count", 1024)?,
            num_heads,
            num_kv_heads,
            head_dim,
            max_positions,
            rms_norm_eps: Header::require(rms_norm_eps, &read.key("attention.layer_norm_rms_epsilon"))?,
            rope_theta: read.positive("rope.freq_base")?.unwrap_or(10_000.0),
            rope_scaling: read.rope_scaling(max_positions)?,
        })
    }

    /// Takes in factors that divide the rotary frequencies one by one; only equal ones can be said in config.json.
    pub(super) fn divide_frequencies(&mut self, factors: &[f32]) -> Result<(), String> {
        let refusal =
            "tensor `rope_freqs.weight` divides each rotary frequency by a factor of its own, which is neither linear nor YaRN";
        let first = factors.first().copied().unwrap_or(1.0);
        if factors.iter().any(|factor| *factor != first) || !(first.is_finite() && first > 0.0) {
            return Err(refusal.to_owned());
        }
        if first == 1.0 {
            return Ok(());
        }
        if self.rope_scaling != RopeScaling::None {
            return Err("tensor `rope_freqs.weight` and the metadata both scale the rotary frequencies".to_owned());
        }
        self.rope_scaling = RopeScaling::Linear { factor: f64::from(first) };
        Ok(())
    }

    /// The config.json of the model, but for its tokens.
    pub(super) fn config_json(&self, dtype: FloatType, is_tied: bool, vocab_size: usize) -> Value {
        let (class, model_type) = match self.architecture {
            Architecture::Llama => ("LlamaForCausalLM", "llama"),
            Architecture::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
            Architecture::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
        };
        let mut config = json!({
            "architectures": [class],
            "model_type": model_type,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": vocab_size,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": self.rope_scaling.to_json(),
            "max_position_embeddings": self.max_positions,
            "tie_word_embeddings": is_tied,
            "attention_bias": self.architecture == Architecture::Qwen2,
            "torch_dtype": dtype.torch_name(),
        });
        if self.architecture == Architecture::Llama {
            config["mlp_bias"] = json!(false);
        } else {
            config["use_sliding_window"] = json!(false);
        }
        config
    }
}

impl RopeScaling {
    /// As config.json says it: `type` is the older word for `rope_type`, so that both kinds of readers find it.
    fn to_json(self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Linear { factor } => json!({"rope_type": "linear", "type": "linear", "factor": factor}),
            Self::Yarn { factor, original_positions, attention_factor, beta_fast, beta_slow } => json!({
                "rope_type": "yarn",
                "type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": original_positions,
                // YaRN's own is 0.1 ln(factor) + 1 (arXiv 2309.00071, equation 22); the header holds what multiplies it.
                "attention_factor": attention_factor * (0.1 * factor.ln() + 1.0),
                "beta_fast": beta_fast,
                "beta_slow": beta_slow,
            }),
        }
    }
}

/// Keys that begin with the architecture's name.
struct ArchitectureKeys<'a> {
    header: &'a Header,
    architecture: &'a str,
}

impl ArchitectureKeys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn unsigned(&self, name: &str) -> Result<Option<u64>, String> {
        self.header.unsigned(&self.key(name))
    }

    fn decimal(&self, name: &str) -> Result<Option<f64>, String> {
        self.header.decimal(&self.key(name))
    }

    fn size(&self, name: &str, limit: u64) -> Result<usize, String> {
        let size = Header::require(self.unsigned(name)?, &self.key(name))?;
        if size == 0 || size > limit {
            return Err(format!("metadata `{}` is {size}, expected 1 to {limit}", self.key(name)));
        }
        Ok(size as usize)
    }

    fn positive(&self, name: &str) -> Result<Option<f64>, String> {
        let number = self.decimal(name)?;
        match number.filter(|number| *number <= 0.0) {
            Some(number) => Err(format!("metadata `{}` is {number}, expected more than 0", self.key(name))),
            None => Ok(number),
        }
    }

    fn refuse_what_cannot_be_expressed(&self) -> Result<(), String> {
        let refuse = |name: &str, value: &dyn std::fmt::Display| {
            Err(format!("metadata `{}` is {value}, which the architectures served here do not have", self.key(name)))
        };
        for name in ["expert_count", "attention.sliding_window", "nextn_predict_layers"] {
            if let Some(number) = self.unsigned(name)?.filter(|number| *number != 0) {
                return refuse(name, &number);
            }
        }
        let neutral = [
            ("attention.clamp_kqv", 0.0),
            ("attention.max_alibi_bias", 0.0),
            ("attn_logit_softcapping", 0.0),
            ("final_logit_softcapping", 0.0),
            ("attention.scale", 0.0),
            ("embedding_scale", 1.0),
            ("residual_scale", 1.0),
            ("logit_scale", 1.0),
        ];
        for (name, neutral) in neutral {
            if let Some(number) = self.decimal(name)?.filter(|number| *number != neutral && *number != 0.0) {
                return refuse(name, &number);
            }
        }
        if self.header.flag(&self.key("attention.causal"))? == Some(false) {
            return refuse("attention.causal", &false);
        }
        if self.header.flag(&self.key("use_parallel_residual"))? == Some(true) {
            return refuse("use_parallel_residual", &true);
        }
        Ok(())
    }

    fn rope_scaling(&self, max_positions: u64) -> Result<RopeScaling, String> {
        let kind = self.header.text(&self.key("rope.scaling.type"))?;
        let factor = match self.decimal("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.decimal("rope.scale_linear")?,
        };
        // A factor of 0 stands for none.
        let factor = factor.filter(|factor| *factor != 0.0);
        if let Some(factor) = factor.filter(|factor| *factor < 0.0) {
            return Err(format!("metadata `{}` is {factor}, expected more than 0", self.key("rope.scaling.factor")));
        }
        match (kind, factor) {
            (Some("none"), _) | (None | Some("linear"), None | Some(1.0)) => Ok(RopeScaling::None),
            (None | Some("linear"), Some(factor)) => Ok(RopeScaling::Linear { factor }),
            (Some("yarn"), Some(factor)) => self.yarn(factor, max_positions),
            (Some("yarn"), None) => Err(format!("metadata `{}` is missing, YaRN needs it", self.key("rope.scaling.factor"))),
            (Some(other), _) => Err(format!(
                "metadata `{}` is `{other}`, only none, linear and yarn can be translated",
                self.key("rope.scaling.type")
            )),
        }
    }

    fn yarn(&self, factor: f64, max_positions: u64) -> Result<RopeScaling, String> {
        // Each of these changes the formula in a way that config.json has no word for; -1 stands for unset.
        let fixed = [
            ("rope.scaling.yarn_ext_factor", 1.0),
            ("rope.scaling.yarn_attn_factor", 1.0),
            ("rope.scaling.yarn_log_multiplier", 0.0),
        ];
        for (name, expected) in fixed {
            if let Some(number) = self.decimal(name)?.filter(|number| *number != expected && *number >= 0.0) {
                return Err(format!("metadata `{}` is {number}, only {expected} can be translated", self.key(name)));
            }
        }
        let original = match self.unsigned("rope.scaling.original_context_length")? {
            Some(_) => self.size("rope.scaling.original_context_length", 1 << 24)? as u64,
            None => max_positions,
        };
        Ok(RopeScaling::Yarn {
            factor,
            original_positions: original,
            attention_factor: self.positive("rope.scaling.attn_factor")?.unwrap_or(1.0),
            beta_fast: self.decimal("rope.scaling.yarn_beta_fast")?.filter(|beta| *beta >= 0.0).unwrap_or(YARN_BETA_FAST),
            beta_slow: self.decimal("rope.scaling.yarn_beta_slow")?.filter(|beta| *beta >= 0.0).unwrap_or(YARN_BETA_SLOW),
        })
    }
}
