//! The weights of a model as one flat f32 buffer, and the names and places of its parameters in it.
//!
//! One buffer means one gradient buffer, one optimiser loop and one digest. Names and shapes are those of Hugging Face folders:
//! every matrix is [out, in], so that a layer computes `x W^T`.

use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::tensor_file::{self, Tensor, TensorFile};
use rzero_schema::vocab::FloatType;
use serde_json::{Map, Value};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The weights of a folder that holds them in one file.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// Which file of a folder holds which tensor, where there are several.
pub const WEIGHTS_INDEX: &str = "model.safetensors.index.json";

/// Most files of one model.
const MAX_FILES: usize = 1024;

/// One named parameter within the flat buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Hugging Face name.
    pub name: String,
    /// Shape; matrices are [out, in].
    pub shape: Vec<usize>,
    /// Where it lies in the flat buffer.
    pub range: Range<usize>,
}

impl Parameter {
    /// Whether it is a matrix: weight decay and orthogonalised updates apply to matrices only.
    #[must_use]
    pub fn is_matrix(&self) -> bool {
        self.shape.len() == 2
    }
}

/// Places of one layer's parameters.
#[derive(Debug, Clone)]
pub struct LayerLayout {
    /// Norm before attention, [hidden].
    pub attention_norm: Range<usize>,
    /// Query, key, value projections, [heads x head_dim, hidden].
    pub query: Range<usize>,
    /// Key projection.
    pub key: Range<usize>,
    /// Value projection.
    pub value: Range<usize>,
    /// Biases of q, k, v where the family has them.
    pub qkv_bias: Option<[Range<usize>; 3]>,
    /// Norms of each head of q and k where the family has them, [head_dim].
    pub qk_norm: Option<[Range<usize>; 2]>,
    /// Output projection of attention, [hidden, heads x head_dim].
    pub output: Range<usize>,
    /// Its bias where the model has one, [hidden].
    pub output_bias: Option<Range<usize>>,
    /// Norm before the feed-forward, [hidden].
    pub feed_forward_norm: Range<usize>,
    /// Gate projection, [intermediate, hidden].
    pub gate: Range<usize>,
    /// Up projection, [intermediate, hidden].
    pub up: Range<usize>,
    /// Down projection, [hidden, intermediate].
    pub down: Range<usize>,
}

impl LayerLayout {
    /// Query, key and value projections, which lie side by side: one matrix, [(heads + 2 kv heads) x head_dim, hidden].
    #[must_use]
    pub fn query_key_value(&self) -> Range<usize> {
        self.query.start..self.value.end
    }

    /// Gate and up projections, which lie side by side: one matrix, [2 x intermediate, hidden].
    #[must_use]
    pub fn gate_up(&self) -> Range<usize> {
        self.gate.start..self.up.end
    }

    /// The whole layer: its parameters lie side by side.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.attention_norm.start..self.down.end
    }
}

/// Places of all parameters.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Embedding, [vocabulary, hidden].
    pub embedding: Range<usize>,
    /// Layers in order.
    pub layers: Vec<LayerLayout>,
    /// Final norm, [hidden].
    pub final_norm: Range<usize>,
    /// Output projection, [vocabulary, hidden]; the embedding's range where tied.
    pub head: Range<usize>,
    /// All parameters by name, in buffer order.
    pub parameters: Vec<Parameter>,
}

impl Layout {
    /// Lays out the parameters of a configuration.
    #[must_use]
    pub fn new(config: &ModelConfig) -> Self {
        let mut parameters = Vec::new();
        let mut end = 0usize;
        let mut place = |name: String, shape: &[usize]| -> Range<usize> {
            let range = end..end + shape.iter().product::<usize>();
            end = range.end;
            parameters.push(Parameter { name, shape: shape.to_vec(), range: range.clone() });
            range
        };
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (q_width, kv_width) = (config.query_width(), config.kv_width());
        let embedding = place("model.embed_tokens.weight".to_owned(), &[config.vocab_size, hidden]);
        let mut layers = Vec::with_capacity(config.num_layers);
        for index in 0..config.num_layers {
            let at = |name: &str| format!("model.layers.{index}.{name}");
            layers.push(LayerLayout {
                attention_norm: place(at("input_layernorm.weight"), &[hidden]),
                query: place(at("self_attn.q_proj.weight"), &[q_width, hidden]),
                key: place(at("self_attn.k_proj.weight"), &[kv_width, hidden]),
                value: place(at("self_attn.v_proj.weight"), &[kv_width, hidden]),
                qkv_bias: config.has_qkv_bias.then(|| {
                    [
                        place(at("self_attn.q_proj.bias"), &[q_width]),
                        place(at("self_attn.k_proj.bias"), &[kv_width]),
                        place(at("self_attn.v_proj.bias"), &[kv_width]),
                    ]
                }),
                qk_norm: config.has_qk_norm.then(|| {
                    [
                        place(at("self_attn.q_norm.weight"), &[config.head_dim]),
                        place(at("self_attn.k_norm.weight"), &[config.head_dim]),
                    ]
                }),
                output: place(at("self_attn.o_proj.weight"), &[hidden, q_width]),
                output_bias: config.has_output_bias.then(|| place(at("self_attn.o_proj.bias"), &[hidden])),
                feed_forward_norm: place(at("post_attention_layernorm.weight"), &[hidden]),
                gate: place(at("mlp.gate_proj.weight"), &[inner, hidden]),
                up: place(at("mlp.up_proj.weight"), &[inner, hidden]),
                down: place(at("mlp.down_proj.weight"), &[hidden, inner]),
            });
        }
        let final_norm = place("model.norm.weight".to_owned(), &[hidden]);
        let head =
            if config.is_tied { embedding.clone() } else { place("lm_head.weight".to_owned(), &[config.vocab_size, hidden]) };
        Self { embedding, layers, final_norm, head, parameters }
    }

    /// Numbers in the flat buffer.
    #[must_use]
    pub fn num_parameters(&self) -> usize {
        self.parameters.last().map_or(0, |parameter| parameter.range.end)
    }
}

/// A model: configuration, layout and numbers.
#[derive(Debug, Clone)]
pub struct Weights {
    /// Sizes and switches.
    pub config: ModelConfig,
    /// Where each parameter lies.
    pub layout: Layout,
    /// All parameters, in layout order.
    pub values: Vec<f32>,
}

impl Weights {
    /// A model of zeros, to be filled.
    #[must_use]
    pub fn zeros(config: ModelConfig) -> Self {
        let layout = Layout::new(&config);
        let values = vec![0.0; layout.num_parameters()];
        Self { config, layout, values }
    }

    /// Reads config.json and the weights of a folder: model.safetensors, or the files that model.safetensors.index.json names.
    ///
    /// # Errors
    /// When a file is missing or broken, or a tensor is missing, has another shape or an unsupported type.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let config = ModelConfig::read(folder)?;
        let mut files = weights_files(folder)?.iter().map(|path| TensorFile::open(path)).collect::<Result<Vec<_>, _>>()?;
        let layout = Layout::new(&config);
        let holder = |name: &str| files.iter().position(|file| file.contains(name));
        let holders: Vec<Option<usize>> = layout.parameters.iter().map(|parameter| holder(&parameter.name)).collect();
        // A configuration may claim any size; memory is taken for what the files can hold only.
        let (asked, held) = (layout.num_parameters(), files.iter().map(TensorFile::data_bytes).sum::<usize>());
        if asked > held / 2 {
            let problem = format!("the configuration asks for {asked} parameters, there are {held} bytes");
            return Err(ModelError::Weights { path: files[0].path().to_path_buf(), problem });
        }
        for (parameter, holder) in layout.parameters.iter().zip(&holders) {
            files[holder.unwrap_or(0)].expect(&parameter.name, &parameter.shape)?;
        }
        let mut values = vec![0.0; asked];
        for (parameter, holder) in layout.parameters.iter().zip(holders) {
            files[holder.unwrap_or(0)].read(&parameter.name, &parameter.shape, &mut values[parameter.range.clone()])?;
        }
        Ok(Self { config, layout, values })
    }

    /// Writes a model.safetensors with these weights, rounded to `float`, parameters in the order of their names.
    ///
    /// # Errors
    /// When writing fails.
    pub fn write_safetensors(&self, out: &mut dyn Write, float: FloatType) -> io::Result<()> {
        let tensors = tensors(&self.layout.parameters, &self.values);
        tensor_file::write(out, &tensors, float, &[("format", "pt".to_owned())])
    }

    /// The bytes of a model.safetensors in f32.
    #[must_use]
    pub fn to_safetensors(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_safetensors(&mut bytes, FloatType::F32).expect("memory takes what is written");
        bytes
    }

    /// The values of one range.
    #[must_use]
    pub fn at(&self, range: &Range<usize>) -> &[f32] {
        &self.values[range.clone()]
    }
}

/// The parameters of a flat buffer as the tensors of a file.
#[must_use]
pub fn tensors<'a>(parameters: &'a [Parameter], values: &'a [f32]) -> Vec<Tensor<'a>> {
    let tensor = |parameter: &'a Parameter| Tensor {
        name: &parameter.name,
        shape: &parameter.shape,
        values: &values[parameter.range.clone()],
    };
    parameters.iter().map(tensor).collect()
}

/// The files that hold the weights of a folder, in the order of their names.
///
/// # Errors
/// When there are none, or the index is broken or names files outside the folder.
pub fn weights_files(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let (single, index) = (folder.join(WEIGHTS_FILE), folder.join(WEIGHTS_INDEX));
    // Where both are there transformers takes the single file.
    if single.exists() || !index.exists() {
        return Ok(vec![single]);
    }
    let refuse = |problem: String| ModelError::Weights { path: index.clone(), problem };
    let text = std::fs::read_to_string(&index).map_err(|source| ModelError::Io { path: index.clone(), source })?;
    let json: Map<String, Value> = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
    let map = json.get("weight_map").and_then(Value::as_object).ok_or_else(|| refuse("it has no `weight_map`".to_owned()))?;
    let mut names: Vec<&str> = Vec::new();
    for file in map.values() {
        let name = file.as_str().unwrap_or_default();
        if name.is_empty() || name.contains(['/', '\\']) || !name.ends_with(".safetensors") {
            return Err(refuse(format!("it names {file}, expected a .safetensors file beside it")));
        }
        names.push(name);
    }
    names.sort_unstable();
    names.dedup();
    if names.is_empty() || names.len() > MAX_FILES {
        return Err(refuse(format!("it names {} files, expected 1 to {MAX_FILES}", names.len())));
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}
