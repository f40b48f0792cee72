//! config.json of a Hugging Face model folder, read into the switches that this project's transformer has.
//!
//! Llama: no biases, no q/k norm. Qwen2: biases on q, k and v. Qwen3: RMS norm on each head of q and k, `head_dim` of its own.
//! An architecture or option that is not served is an error that names it. Where `rope_theta` is left out it is 10000, as transformers has it.

use crate::error::ModelError;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;

/// The families whose forward pass is implemented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// LlamaForCausalLM.
    Llama,
    /// Qwen2ForCausalLM.
    Qwen2,
    /// Qwen3ForCausalLM.
    Qwen3,
}

/// Sizes and switches of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Family.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Inner width of the feed-forward.
    pub intermediate_size: usize,
    /// Layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key-value heads; divides the query heads.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// RMS norm's constant.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Longest sequence.
    pub max_positions: usize,
    /// Whether the output projection is the embedding.
    pub is_tied: bool,
    /// Whether q, k and v have biases.
    pub has_qkv_bias: bool,
    /// Whether each head of q and k is normalised.
    pub has_qk_norm: bool,
    /// First token of a sequence, if the model has one.
    pub bos_token: Option<u32>,
    /// Tokens that end a completion.
    pub eos_tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    architectures: Vec<String>,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
    max_position_embeddings: usize,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    use_sliding_window: bool,
    hidden_act: Option<String>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<Value>,
}

impl ModelConfig {
    /// Reads `folder/config.json`.
    ///
    /// # Errors
    /// When the file is missing, is no JSON object of the expected form, or asks for something that is not implemented.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
        Self::from_json(&text).map_err(|problem| ModelError::Config { path, problem })
    }

    /// Reads the text of a config.json.
    ///
    /// # Errors
    /// Says what is missing, out of range or not implemented.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let raw: RawConfig = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let family = match raw.architectures.as_slice() {
            [name] if name == "LlamaForCausalLM" => Family::Llama,
            [name] if name == "Qwen2ForCausalLM" => Family::Qwen2,
            [name] if name == "Qwen3ForCausalLM" => Family::Qwen3,
            other => {
                return Err(format!(
                    "architecture {other:?} is not supported, expected LlamaForCausalLM, Qwen2ForCausalLM or Qwen3ForCausalLM"
                ));
            }
        };
        let refusals = [
            (raw.rope_scaling.as_ref().is_some_and(|value| !value.is_null()), "rope_scaling"),
            (raw.rope_parameters.as_ref().is_some_and(|value| !value.is_null()), "rope_parameters (name rope_theta instead)"),
            (raw.mlp_bias, "mlp_bias"),
            (raw.use_sliding_window, "use_sliding_window"),
            (family != Family::Qwen2 && raw.attention_bias, "attention_bias"),
            (raw.hidden_act.as_deref().is_some_and(|name| name != "silu"), "a hidden_act other than silu"),
        ];
        if let Some((_, option)) = refusals.iter().find(|(is_refused, _)| *is_refused) {
            return Err(format!("{option} is not supported"));
        }
        let eos_tokens = match &raw.eos_token_id {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(ids)) => ids.iter().map(token_id).collect::<Result<_, _>>()?,
            Some(id) => vec![token_id(id)?],
        };
        let config = Self {
            family,
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            num_layers: raw.num_hidden_layers,
            num_heads: raw.num_attention_heads,
            num_kv_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
            head_dim: raw.head_dim.unwrap_or(raw.hidden_size / raw.num_attention_heads.max(1)),
            vocab_size: raw.vocab_size,
            rms_norm_eps: raw.rms_norm_eps,
            rope_theta: raw.rope_theta.unwrap_or(10_000.0),
            max_positions: raw.max_position_embeddings,
            is_tied: raw.tie_word_embeddings,
            has_qkv_bias: family == Family::Qwen2,
            has_qk_norm: family == Family::Qwen3,
            bos_token: raw.bos_token_id,
            eos_tokens,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let sizes = [
            ("hidden_size", self.hidden_size, 1 << 16),
            ("intermediate_size", self.intermediate_size, 1 << 18),
            ("num_hidden_layers", self.num_layers, 1024),
            ("num_attention_heads", self.num_heads, 1024),
            ("num_key_value_heads", self.num_kv_heads, 1024),
            ("head_dim", self.head_dim, 1024),
            ("vocab_size", self.vocab_size, 1 << 22),
            ("max_position_embeddings", self.max_positions, 1 << 24),
        ];
        for (name, value, limit) in sizes {
            if value == 0 || value > limit {
                return Err(format!("{name} is {value}, expected 1 to {limit}"));
            }
        }
        if !self.num_heads.is_multiple_of(self.num_kv_heads) {
            return Err(format!("{} query heads cannot share {} key-value heads", self.num_heads, self.num_kv_heads));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(format!("head_dim is {}, rotary embedding needs an even one", self.head_dim));
        }
        if let Some(id) = self.eos_tokens.iter().chain(&self.bos_token).find(|id| **id as usize >= self.vocab_size) {
            return Err(format!("token {id} lies outside the vocabulary of {}", self.vocab_size));
        }
        Ok(())
    }

    /// The config.json of this model, as transformers reads it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let (architecture, model_type) = match self.family {
            Family::Llama => ("LlamaForCausalLM", "llama"),
            Family::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
            Family::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
        };
        json!({
            "architectures": [architecture],
            "model_type": model_type,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab_size,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "max_position_embeddings": self.max_positions,
            "tie_word_embeddings": self.is_tied,
            "attention_bias": self.has_qkv_bias,
            "hidden_act": "silu",
            "bos_token_id": self.bos_token,
            "eos_token_id": self.eos_tokens,
            "torch_dtype": "float32",
        })
    }

    /// Width of all query heads together.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    #[must_use]
    pub fn kv_width(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }
}

fn token_id(value: &Value) -> Result<u32, String> {
    value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| format!("eos_token_id holds {value}, expected a token id"))
}
