//! The tensors of a GGUF file under their Hugging Face names, dequantised a few rows at a time into the bytes of a safetensors file.
//!
//! For architecture `llama` the rows of q and k stand in the order that llama.cpp's rotary embedding wants, which turns neighbours
//! (2j, 2j+1) of a head. Hugging Face turns (j, j + head_dim/2), so row 2j + half of the file is row half * head_dim/2 + j of the
//! model. Qwen files keep Hugging Face's order. Nothing larger than a few rows is held at once.

use super::header::{Header, TensorPlace};
use super::sizes::{Architecture, Sizes};
use crate::tensor_file;
use candle_core::CpuStorage;
use half::f16;
use rzero_schema::vocab::FloatType;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// Values that are dequantised at once, if a row (or the rows of a head) does not need more.
const CHUNK_VALUES: usize = 1 << 19;

/// Factors of the rotary frequencies; no weight.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// One tensor to be written.
#[derive(Debug, Clone)]
pub(super) struct PlannedTensor {
    /// Name in the file.
    gguf_name: String,
    /// Rows of a head where they are to be put in Hugging Face's order.
    head_rows: Option<usize>,
    place: TensorPlace,
}

/// Every tensor of a model by its Hugging Face name.
#[derive(Debug)]
pub(super) struct Plan {
    tensors: BTreeMap<String, PlannedTensor>,
    /// Whether the output projection is the embedding.
    pub(super) is_tied: bool,
    /// Factors of the rotary frequencies, if the file has them.
    pub(super) rope_factors: Option<TensorPlace>,
}

impl Plan {
    /// Pairs the tensors that the sizes ask for with those of the file. Both sets must be the same, and every shape as expected.
    pub(super) fn new(header: &Header, sizes: &Sizes, vocab_size: usize) -> Result<Self, String> {
        let is_tied = !header.tensors.contains_key("output.weight");
        let mut remaining = header.tensors.clone();
        let mut tensors = BTreeMap::new();
        let rope_factors = remaining.remove(ROPE_FACTORS);
        for (gguf_name, name, shape, head_rows) in expected(sizes, vocab_size, is_tied) {
            let place = remaining.remove(&gguf_name).ok_or_else(|| format!("tensor `{gguf_name}` is missing"))?;
            if place.shape != shape {
                return Err(format!("tensor `{gguf_name}` has shape {:?}, expected {shape:?}", place.shape));
            }
            tensors.insert(name, PlannedTensor { gguf_name, head_rows, place });
        }
        if let Some(name) = remaining.keys().next() {
            return Err(format!("tensor `{name}` has no place in a model of this architecture"));
        }
        if rope_factors.as_ref().is_some_and(|place| place.shape != [sizes.head_dim / 2]) {
            return Err(format!(
                "tensor `{ROPE_FACTORS}` does not have one factor for each of {} frequencies",
                sizes.head_dim / 2
            ));
        }
        Ok(Self { tensors, is_tied, rope_factors })
    }

    /// Parameters of the model.
    pub(super) fn num_parameters(&self) -> u64 {
        self.tensors.values().map(|planned| num_values(&planned.place)).sum()
    }

    /// How many tensors are stored in blocks of which type.
    pub(super) fn type_counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for planned in self.tensors.values() {
            *counts.entry(format!("{:?}", planned.place.block_type)).or_default() += 1;
        }
        counts
    }

    /// The header of the safetensors file, its length before it.
    pub(super) fn safetensors_header(&self, dtype: FloatType) -> Vec<u8> {
        let tensors = self.tensors.iter().map(|(name, planned)| (name.clone(), planned.place.shape.clone()));
        tensor_file::header(tensors, dtype, &[("format", "pt".to_owned())]).expect("sizes were held against those of the file")
    }

    /// Hands over the data of all tensors, in the order of the header, a piece at a time.
    ///
    /// # Errors
    /// What the sink returns, or `problem` of what is wrong with a tensor.
    pub(super) fn write_data<E>(
        &self,
        file: &mut File,
        dtype: FloatType,
        problem: impl Fn(Problem) -> E,
        sink: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut bytes = Vec::new();
        for planned in self.tensors.values() {
            let place = &planned.place;
            let width = place.shape.last().copied().unwrap_or(1);
            let num_rows = num_values(place) as usize / width;
            let rows_at_once = planned.head_rows.unwrap_or_else(|| (CHUNK_VALUES / width).max(1));
            for first in (0..num_rows).step_by(rows_at_once) {
                let rows = rows_at_once.min(num_rows - first);
                let mut values = read_rows(file, place, width, first, rows).map_err(&problem)?;
                if values.iter().any(|value| !value.is_finite()) {
                    let text = format!("tensor `{}` holds a value that is not finite", planned.gguf_name);
                    return Err(problem(Problem::Content(text)));
                }
                if let Some(head_rows) = planned.head_rows {
                    values = in_hugging_face_order(&values, width, head_rows);
                }
                bytes.clear();
                if dtype == FloatType::F16 && values.iter().any(|value| f16::from_f32(*value).is_infinite()) {
                    let text = format!("tensor `{}` holds a value too large for {}", planned.gguf_name, dtype.torch_name());
                    return Err(problem(Problem::Content(text)));
                }
                tensor_file::write_values(&mut bytes, &values, dtype).expect("memory takes what is written");
                sink(&bytes)?;
            }
        }
        Ok(())
    }
}

/// What can go wrong with a tensor's bytes.
#[derive(Debug)]
pub(super) enum Problem {
    /// They cannot be read.
    Io(std::io::Error),
    /// They are not usable.
    Content(String),
}

/// Every tensor of a model: its name in the file and in Hugging Face's, its shape, and the rows of a head where they are reordered.
fn expected(sizes: &Sizes, vocab_size: usize, is_tied: bool) -> Vec<(String, String, Vec<usize>, Option<usize>)> {
    let (hidden, inner, head_dim) = (sizes.hidden_size, sizes.intermediate_size, sizes.head_dim);
    let (query, key) = (sizes.num_heads * head_dim, sizes.num_kv_heads * head_dim);
    let head_rows = (sizes.architecture == Architecture::Llama).then_some(head_dim);
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), "model.embed_tokens.weight".to_owned(), vec![vocab_size, hidden], None),
        ("output_norm.weight".to_owned(), "model.norm.weight".to_owned(), vec![hidden], None),
    ];
    if !is_tied {
        tensors.push(("output.weight".to_owned(), "lm_head.weight".to_owned(), vec![vocab_size, hidden], None));
    }
    let mut in_layer: Vec<(&str, &str, Vec<usize>, Option<usize>)> = vec![
        ("attn_norm.weight", "input_layernorm.weight", vec![hidden], None),
        ("attn_q.weight", "self_attn.q_proj.weight", vec![query, hidden], head_rows),
        ("attn_k.weight", "self_attn.k_proj.weight", vec![key, hidden], head_rows),
        ("attn_v.weight", "self_attn.v_proj.weight", vec![key, hidden], None),
        ("attn_output.weight", "self_attn.o_proj.weight", vec![hidden, query], None),
        ("ffn_norm.weight", "post_attention_layernorm.weight", vec![hidden], None),
        ("ffn_gate.weight", "mlp.gate_proj.weight", vec![inner, hidden], None),
        ("ffn_up.weight", "mlp.up_proj.weight", vec![inner, hidden], None),
        ("ffn_down.weight", "mlp.down_proj.weight", vec![hidden, inner], None),
    ];
    match sizes.architecture {
        Architecture::Llama => {}
        Architecture::Qwen2 => in_layer.extend([
            ("attn_q.bias", "self_attn.q_proj.bias", vec![query], None),
            ("attn_k.bias", "self_attn.k_proj.bias", vec![key], None),
            ("attn_v.bias", "self_attn.v_proj.bias", vec![key], None),
        ]),
        Architecture::Qwen3 => in_layer.extend([
            ("attn_q_norm.weight", "self_attn.q_norm.weight", vec![head_dim], None),
            ("attn_k_norm.weight", "self_attn.k_norm.weight", vec![head_dim], None),
        ]),
    }
    for layer in 0..sizes.num_layers {
        for (gguf_name, name, shape, head_rows) in &in_layer {
            tensors.push((format!("blk.{layer}.{gguf_name}"), format!("model.layers.{layer}.{name}"), shape.clone(), *head_rows));
        }
    }
    tensors
}

fn num_values(place: &TensorPlace) -> u64 {
    place.shape.iter().map(|size| *size as u64).product()
}

/// All values of a tensor.
pub(super) fn read_all(file: &mut File, place: &TensorPlace) -> Result<Vec<f32>, Problem> {
    let width = place.shape.last().copied().unwrap_or(1);
    read_rows(file, place, width, 0, num_values(place) as usize / width)
}

/// Dequantises some rows of a tensor. // (rows, width)
fn read_rows(file: &mut File, place: &TensorPlace, width: usize, first: usize, rows: usize) -> Result<Vec<f32>, Problem> {
    let block_type = place.block_type;
    let row_bytes = width / block_type.block_size() * block_type.type_size();
    let num_bytes = rows * row_bytes;
    // candle reads blocks in place and wants them aligned; a byte buffer alone does not promise that.
    let mut buffer = vec![0; num_bytes + BLOCK_ALIGNMENT];
    let skipped = buffer.as_ptr().align_offset(BLOCK_ALIGNMENT).min(BLOCK_ALIGNMENT);
    let bytes = &mut buffer[skipped..skipped + num_bytes];
    file.seek(SeekFrom::Start(place.start + (first * row_bytes) as u64)).map_err(Problem::Io)?;
    file.read_exact(bytes).map_err(Problem::Io)?;
    match block_type.from_data(Cow::Borrowed(bytes)).dequantize(rows * width) {
        Ok(CpuStorage::F32(values)) => Ok(values),
        Ok(_) => Err(Problem::Content("blocks did not become single-precision numbers".to_owned())),
        Err(error) => Err(Problem::Content(error.to_string())),
    }
}

/// The strictest alignment of any block type.
const BLOCK_ALIGNMENT: usize = align_of::<u64>();

/// Rows of one head, from llama.cpp's order to Hugging Face's. // (head_rows, width)
fn in_hugging_face_order(values: &[f32], width: usize, head_rows: usize) -> Vec<f32> {
    let mut ordered = Vec::with_capacity(values.len());
    for half in 0..2 {
        for pair in 0..head_rows / 2 {
            let row = 2 * pair + half;
            ordered.extend_from_slice(&values[row * width..(row + 1) * width]);
        }
    }
    ordered
}
