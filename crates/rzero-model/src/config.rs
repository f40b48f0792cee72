//! config.json of a Hugging Face model folder, read into the switches that this project's transformer has.
//!
//! Llama: no q/k norm; biases on q, k, v and the output where `attention_bias` says so. Qwen2: biases on q, k and v. Qwen3: RMS norm on each
//! head of q and k, `head_dim` of its own. Both ways in which transformers writes rotary settings are read (`rope_theta` beside `rope_scaling`, and
//! `rope_parameters`); where `rope_theta` is left out it is 10000, as transformers has it. generation_config.json, where there is one, says which
//! tokens end a completion. An architecture or option that is not served is an error that names it.

use crate::error::ModelError;
use crate::rope::{RopeScaling, RotaryFrequencies};
use serde::Deserialize;
use serde_json::{Map, Value, json};
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
    /// How they are stretched, where they are.
    pub rope_scaling: Option<RopeScaling>,
    /// Longest sequence.
    pub max_positions: usize,
    /// Whether the output projection is the embedding.
    pub is_tied: bool,
    /// Whether q, k and v have biases.
    pub has_qkv_bias: bool,
    /// Whether attention's output projection has one.
    pub has_output_bias: bool,
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
    #[serde(default)]
    layer_types: Option<Vec<String>>,
    partial_rotary_factor: Option<f64>,
    quantization_config: Option<Value>,
    hidden_act: Option<String>,
    bos_token_id: Option<Value>,
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
        let mut config = Self::from_json(&text).map_err(|problem| ModelError::Config { path, problem })?;
        let path = folder.join("generation_config.json");
        if path.exists() {
            let text = std::fs::read_to_string(&path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
            config.apply_generation_config(&text).map_err(|problem| ModelError::Config { path, problem })?;
        }
        Ok(config)
    }

    /// Takes the end tokens of a generation_config.json, where it names any: transformers stops at these.
    ///
    /// # Errors
    /// When the text is no JSON object or names no tokens of the vocabulary.
    pub fn apply_generation_config(&mut self, text: &str) -> Result<(), String> {
        let section: Map<String, Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let eos_tokens = token_ids(section.get("eos_token_id"), "eos_token_id")?;
        if !eos_tokens.is_empty() {
            self.eos_tokens = eos_tokens;
        }
        self.check()
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
        let is_sliding = raw.layer_types.iter().flatten().any(|kind| kind != "full_attention");
        let refusals = [
            (raw.mlp_bias, "mlp_bias"),
            (raw.use_sliding_window || is_sliding, "use_sliding_window (attention to a part of the past)"),
            (raw.partial_rotary_factor.is_some_and(|factor| factor != 1.0), "partial_rotary_factor"),
            (raw.quantization_config.as_ref().is_some_and(|value| !value.is_null()), "quantization_config (quantised weights)"),
            (raw.hidden_act.as_deref().is_some_and(|name| name != "silu"), "a hidden_act other than silu"),
        ];
        if let Some((_, option)) = refusals.iter().find(|(is_refused, _)| *is_refused) {
            return Err(format!("{option} is not supported"));
        }
        let rope = Rope::new(&raw)?;
        let has_bias = raw.attention_bias && family != Family::Qwen2;
        let eos_tokens = token_ids(raw.eos_token_id.as_ref(), "eos_token_id")?;
        let bos_token = token_ids(raw.bos_token_id.as_ref(), "bos_token_id")?.first().copied();
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
            rope_theta: rope.theta,
            rope_scaling: rope.scaling,
            max_positions: raw.max_position_embeddings,
            is_tied: raw.tie_word_embeddings,
            has_qkv_bias: has_bias || family == Family::Qwen2,
            has_output_bias: has_bias,
            has_qk_norm: family == Family::Qwen3,
            bos_token,
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
        for (name, value) in [("rope_theta", self.rope_theta), ("rms_norm_eps", self.rms_norm_eps)] {
            if !value.is_finite() || value <= 0.0 {
                return Err(format!("{name} is {value}, expected a number above 0"));
            }
        }
        if let Some(id) = self.eos_tokens.iter().chain(&self.bos_token).find(|id| **id as usize >= self.vocab_size) {
            return Err(format!("token {id} lies outside the vocabulary of {}", self.vocab_size));
        }
        Ok(())
    }

    /// The config.json of this model, as transformers reads it; `dtype` is that of the weights beside it, such as `float32`.
    #[must_use]
    pub fn to_json(&self, dtype: &str) -> Value {
        let (architecture, model_type) = match self.family {
            Family::Llama => ("LlamaForCausalLM", "llama"),
            Family::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
            Family::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
        };
        let mut config = json!({
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
            "torch_dtype": dtype,
        });
        if let Some(scaling) = &self.rope_scaling {
            config["rope_scaling"] = scaling.to_json();
        }
        config
    }

    /// Rotary frequencies of this model.
    #[must_use]
    pub fn rotary_frequencies(&self) -> RotaryFrequencies {
        RotaryFrequencies::new(self.head_dim, self.rope_theta, self.rope_scaling.as_ref())
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

/// Rotary settings, from either place where a config.json may hold them.
struct Rope {
    theta: f64,
    scaling: Option<RopeScaling>,
}

impl Rope {
    fn new(raw: &RawConfig) -> Result<Self, String> {
        let mut theta = raw.rope_theta;
        let mut scaling = None;
        for (name, section) in [("rope_scaling", &raw.rope_scaling), ("rope_parameters", &raw.rope_parameters)] {
            let section = match section {
                None | Some(Value::Null) => continue,
                Some(Value::Object(section)) => section,
                Some(other) => return Err(format!("{name} is {other}, expected an object")),
            };
            if section.values().any(Value::is_object) {
                return Err(format!("{name} with settings by kind of layer is not supported"));
            }
            if section.get("partial_rotary_factor").and_then(Value::as_f64).is_some_and(|factor| factor != 1.0) {
                return Err(format!("{name} with partial_rotary_factor is not supported"));
            }
            theta = section.get("rope_theta").and_then(Value::as_f64).or(theta);
            scaling = RopeScaling::from_json(section, raw.max_position_embeddings)?.or(scaling);
        }
        Ok(Self { theta: theta.unwrap_or(10_000.0), scaling })
    }
}

/// One token id, several, or none.
fn token_ids(value: Option<&Value>, key: &str) -> Result<Vec<u32>, String> {
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| format!("{key} holds {value}, expected a token id"))
    };
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(ids)) => ids.iter().map(id).collect(),
        Some(single) => Ok(vec![id(single)?]),
    }
}
