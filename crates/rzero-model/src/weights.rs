//! The weights of a model as one flat f32 buffer, and the names and places of its parameters in it.
//!
//! One buffer means one gradient buffer, one optimiser loop and one digest. Names and shapes are those of Hugging Face folders:
//! every matrix is [out, in], so that a layer computes `x W^T`.

use crate::config::ModelConfig;
use crate::error::ModelError;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

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
    /// Norm before the feed-forward, [hidden].
    pub feed_forward_norm: Range<usize>,
    /// Gate projection, [intermediate, hidden].
    pub gate: Range<usize>,
    /// Up projection, [intermediate, hidden].
    pub up: Range<usize>,
    /// Down projection, [hidden, intermediate].
    pub down: Range<usize>,
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

    /// Reads config.json and model.safetensors of a folder.
    ///
    /// # Errors
    /// When a file is missing or broken, or a tensor is missing, has another shape or an unsupported type.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let config = ModelConfig::read(folder)?;
        let path = folder.join("model.safetensors");
        let bytes = std::fs::read(&path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
        // A configuration may claim any size; memory is taken for what the file can hold only.
        let asked = Layout::new(&config).num_parameters();
        if asked > bytes.len() / 4 {
            let problem = format!("its configuration asks for {asked} parameters, the file has {} bytes", bytes.len());
            return Err(ModelError::Weights { path, problem });
        }
        let mut model = Self::zeros(config);
        model.fill(&bytes).map_err(|problem| ModelError::Weights { path, problem })?;
        Ok(model)
    }

    fn fill(&mut self, bytes: &[u8]) -> Result<(), String> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        for parameter in &self.layout.parameters {
            let tensor = file.tensor(&parameter.name).map_err(|_| format!("tensor `{}` is missing", parameter.name))?;
            if tensor.shape() != parameter.shape {
                return Err(format!(
                    "tensor `{}` has shape {:?}, expected {:?}",
                    parameter.name,
                    tensor.shape(),
                    parameter.shape
                ));
            }
            if tensor.dtype() != Dtype::F32 {
                return Err(format!("tensor `{}` is of type {:?}, expected F32", parameter.name, tensor.dtype()));
            }
            let target = &mut self.values[parameter.range.clone()];
            for (value, raw) in target.iter_mut().zip(tensor.data().as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*raw);
            }
        }
        if let Some(parameter) = self
            .layout
            .parameters
            .iter()
            .find(|parameter| self.values[parameter.range.clone()].iter().any(|value| !value.is_finite()))
        {
            return Err(format!("tensor `{}` holds a value that is not finite", parameter.name));
        }
        Ok(())
    }

    /// The bytes of a model.safetensors with these weights, parameters in name order.
    #[must_use]
    pub fn to_safetensors(&self) -> Vec<u8> {
        let bytes: Vec<u8> = self.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let views: BTreeMap<&str, TensorView<'_>> = self
            .layout
            .parameters
            .iter()
            .map(|parameter| {
                let data = &bytes[4 * parameter.range.start..4 * parameter.range.end];
                let view =
                    TensorView::new(Dtype::F32, parameter.shape.clone(), data).expect("the layout's shape and range agree");
                (parameter.name.as_str(), view)
            })
            .collect();
        let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
        safetensors::serialize(views, metadata).expect("views of a valid layout can be serialised")
    }

    /// The values of one range.
    #[must_use]
    pub fn at(&self, range: &Range<usize>) -> &[f32] {
        &self.values[range.clone()]
    }
}
