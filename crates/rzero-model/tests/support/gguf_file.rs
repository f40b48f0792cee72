//! Small GGUF files for tests, written byte by byte from the format's description and without the code under test.
//!
//! Weights are whole numbers over 64, which every type used here holds exactly: F32, F16, Q8_0, Q4_1.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;

/// One metadata value: the number of its type, and its bytes.
#[derive(Debug, Clone)]
pub(crate) struct Entry(pub(crate) u32, pub(crate) Vec<u8>);

pub(crate) fn number(value: u32) -> Entry {
    Entry(4, value.to_le_bytes().to_vec())
}

pub(crate) fn decimal(value: f32) -> Entry {
    Entry(6, value.to_le_bytes().to_vec())
}

pub(crate) fn flag(value: bool) -> Entry {
    Entry(7, vec![u8::from(value)])
}

pub(crate) fn text(value: &str) -> Entry {
    Entry(8, text_bytes(value))
}

pub(crate) fn texts(values: &[String]) -> Entry {
    let items = values.iter().flat_map(|value| text_bytes(value));
    Entry(9, array_head(8, values.len()).into_iter().chain(items).collect())
}

pub(crate) fn integers(values: &[i32]) -> Entry {
    let items = values.iter().flat_map(|value| value.to_le_bytes());
    Entry(9, array_head(5, values.len()).into_iter().chain(items).collect())
}

fn array_head(kind: u32, count: usize) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &(count as u64).to_le_bytes()[..]].concat()
}

fn text_bytes(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

/// How a tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    F32,
    F16,
    Q8_0,
    Q4_1,
}

/// A tensor as listed in the header.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    /// As in the file: the innermost dimension first.
    pub(crate) dimensions: Vec<u64>,
    pub(crate) kind: u32,
    /// Set where the offset is not to be the next free place.
    pub(crate) offset: Option<u64>,
    pub(crate) data: Vec<u8>,
}

/// A file in parts.
#[derive(Debug, Clone)]
pub(crate) struct GgufFile {
    pub(crate) version: u32,
    pub(crate) metadata: Vec<(String, Entry)>,
    pub(crate) tensors: Vec<Tensor>,
}

impl GgufFile {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, Entry(kind, value)) in &self.metadata {
            bytes.extend(text_bytes(key));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(value);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            bytes.extend(text_bytes(&tensor.name));
            bytes.extend((tensor.dimensions.len() as u32).to_le_bytes());
            bytes.extend(tensor.dimensions.iter().flat_map(|size| size.to_le_bytes()));
            bytes.extend(tensor.kind.to_le_bytes());
            bytes.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(data);
        bytes
    }

    /// Replaces a metadata value, or adds it.
    pub(crate) fn set(&mut self, key: &str, entry: Entry) {
        self.metadata.retain(|(known, _)| known != key);
        self.metadata.push((key.to_owned(), entry));
    }

    pub(crate) fn remove(&mut self, key: &str) {
        let before = self.metadata.len();
        self.metadata.retain(|(known, _)| known != key);
        assert!(self.metadata.len() < before, "{key}");
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap_or_else(|| panic!("{name}"))
    }
}

pub(crate) const HIDDEN: usize = 32;
pub(crate) const INNER: usize = 64;
pub(crate) const LAYERS: usize = 2;
pub(crate) const HEADS: usize = 4;
pub(crate) const KV_HEADS: usize = 2;

/// What an import must give: values by Hugging Face name, and the shapes.
pub(crate) type Expected = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A model of some architecture in a file, and the tensors that its import must give. A head of qwen3 is wider than hidden / heads.
pub(crate) fn model(architecture: &str, pre: &str) -> (GgufFile, Expected) {
    let head_dim = if architecture == "qwen3" { 16 } else { HIDDEN / HEADS };
    let mut file = GgufFile { version: 3, metadata: Vec::new(), tensors: Vec::new() };
    let at = |name: &str| format!("{architecture}.{name}");
    file.set("general.architecture", text(architecture));
    file.set("general.name", text("Tiny"));
    for (name, value) in [
        ("block_count", LAYERS),
        ("context_length", 128),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", INNER),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV_HEADS),
        ("attention.key_length", head_dim),
        ("attention.value_length", head_dim),
    ] {
        file.set(&at(name), number(value as u32));
    }
    file.set(&at("rope.freq_base"), decimal(100_000.0));
    file.set(&at("attention.layer_norm_rms_epsilon"), decimal(1e-5));
    let num_tokens = add_vocabulary(&mut file, pre);
    let mut expected = Expected::new();
    let (query, key) = (HEADS * head_dim, KV_HEADS * head_dim);
    let mut add = |gguf: String, name: String, shape: &[usize], stored: Stored, heads: Option<usize>| {
        let values = values_of(&name, shape.iter().product(), stored);
        let in_file = match heads {
            Some(heads) => in_llama_cpp_order(&values, heads, head_dim, shape[1]),
            None => values.clone(),
        };
        let (kind, data) = encode(&in_file, stored);
        let dimensions = shape.iter().rev().map(|size| *size as u64).collect();
        file.tensors.push(Tensor { name: gguf, dimensions, kind, offset: None, data });
        expected.insert(name, (shape.to_vec(), values));
    };
    let permuted = |heads: usize| (architecture == "llama").then_some(heads);
    add("token_embd.weight".into(), "model.embed_tokens.weight".into(), &[num_tokens, HIDDEN], Stored::Q8_0, None);
    add("output_norm.weight".into(), "model.norm.weight".into(), &[HIDDEN], Stored::F32, None);
    if architecture == "qwen2" {
        add("output.weight".into(), "lm_head.weight".into(), &[num_tokens, HIDDEN], Stored::F16, None);
    }
    for layer in 0..LAYERS {
        let mut add = |gguf: &str, name: &str, shape: &[usize], stored: Stored, heads: Option<usize>| {
            add(format!("blk.{layer}.{gguf}"), format!("model.layers.{layer}.{name}"), shape, stored, heads);
        };
        add("attn_norm.weight", "input_layernorm.weight", &[HIDDEN], Stored::F32, None);
        add("attn_q.weight", "self_attn.q_proj.weight", &[query, HIDDEN], Stored::Q4_1, permuted(HEADS));
        add("attn_k.weight", "self_attn.k_proj.weight", &[key, HIDDEN], Stored::Q8_0, permuted(KV_HEADS));
        add("attn_v.weight", "self_attn.v_proj.weight", &[key, HIDDEN], Stored::F16, None);
        add("attn_output.weight", "self_attn.o_proj.weight", &[HIDDEN, query], Stored::F32, None);
        add("ffn_norm.weight", "post_attention_layernorm.weight", &[HIDDEN], Stored::F32, None);
        add("ffn_gate.weight", "mlp.gate_proj.weight", &[INNER, HIDDEN], Stored::Q4_1, None);
        add("ffn_up.weight", "mlp.up_proj.weight", &[INNER, HIDDEN], Stored::Q8_0, None);
        add("ffn_down.weight", "mlp.down_proj.weight", &[HIDDEN, INNER], Stored::Q4_1, None);
        if architecture == "qwen2" {
            add("attn_q.bias", "self_attn.q_proj.bias", &[query], Stored::F32, None);
            add("attn_k.bias", "self_attn.k_proj.bias", &[key], Stored::F32, None);
            add("attn_v.bias", "self_attn.v_proj.bias", &[key], Stored::F32, None);
        }
        if architecture == "qwen3" {
            add("attn_q_norm.weight", "self_attn.q_norm.weight", &[head_dim], Stored::F32, None);
            add("attn_k_norm.weight", "self_attn.k_norm.weight", &[head_dim], Stored::F32, None);
        }
    }
    (file, expected)
}

/// Tokens before the 256 letters that stand for bytes.
pub(crate) const SPECIALS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
/// Tokens after the letters; the last two are user-defined and unused.
pub(crate) const WORDS: [&str; 8] = ["He", "ll", "Hell", "Hello", "12", "\u{120}H", "<tool>", "[PAD]"];
const MERGES: [&str; 6] = ["H e", "l l", "He ll", "Hell o", "1 2", "\u{120} H"];

/// Writes a byte-level vocabulary; returns the number of its tokens.
fn add_vocabulary(file: &mut GgufFile, pre: &str) -> usize {
    let letters = (0..=255u8).map(|byte| letter(byte).to_string());
    let tokens: Vec<String> = SPECIALS
        .iter()
        .map(|token| (*token).to_owned())
        .chain(letters)
        .chain(WORDS.iter().map(|word| (*word).to_owned()))
        .collect();
    let mut kinds = vec![1; tokens.len()];
    kinds[..3].fill(3);
    kinds[tokens.len() - 2] = 4;
    kinds[tokens.len() - 1] = 5;
    file.set("tokenizer.ggml.model", text("gpt2"));
    file.set("tokenizer.ggml.pre", text(pre));
    file.set("tokenizer.ggml.tokens", texts(&tokens));
    file.set("tokenizer.ggml.token_type", integers(&kinds));
    file.set("tokenizer.ggml.merges", texts(&MERGES.map(str::to_owned)));
    file.set("tokenizer.ggml.bos_token_id", number(1));
    file.set("tokenizer.ggml.eos_token_id", number(2));
    file.set("tokenizer.ggml.padding_token_id", number(2));
    file.set("tokenizer.ggml.add_bos_token", flag(false));
    file.set("tokenizer.chat_template", text("{{ messages[0].content }}"));
    tokens.len()
}

/// The letter that stands for a byte in byte-level BPE: printable Latin-1 for itself, the others from U+0100 on.
pub(crate) fn letter(byte: u8) -> char {
    let stands_for_itself = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if stands_for_itself(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !stands_for_itself(*byte)).count() as u32;
    char::from_u32(256 + before).unwrap()
}

/// The id of a token of the small vocabulary.
pub(crate) fn id(token: &str) -> u32 {
    let mut letters = token.chars();
    match (SPECIALS.iter().position(|known| *known == token), WORDS.iter().position(|known| *known == token), letters.next()) {
        (Some(place), ..) => place as u32,
        (_, Some(place), _) => 3 + 256 + place as u32,
        (_, _, Some(first)) if letters.next().is_none() => 3 + (0..=255u8).position(|byte| letter(byte) == first).unwrap() as u32,
        _ => panic!("{token}"),
    }
}

/// Values that a type holds exactly, different for every tensor and place.
fn values_of(name: &str, count: usize, stored: Stored) -> Vec<f32> {
    let range = if stored == Stored::Q4_1 { 16 } else { 255 };
    let mut state = name.bytes().fold(7u32, |state, byte| state.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % range
    };
    (0..count).map(|_| (next() as f32 - (range / 2) as f32) / 64.0).collect()
}

/// Rows as llama.cpp's converter leaves them: (heads, 2, half) becomes (heads, half, 2).
fn in_llama_cpp_order(values: &[f32], heads: usize, head_dim: usize, width: usize) -> Vec<f32> {
    let half = head_dim / 2;
    let mut ordered = Vec::new();
    for head in 0..heads {
        for pair in 0..half {
            for side in 0..2 {
                let row = head * head_dim + side * half + pair;
                ordered.extend_from_slice(&values[row * width..(row + 1) * width]);
            }
        }
    }
    ordered
}

/// The number of a type, and values in it.
pub(crate) fn encode(values: &[f32], stored: Stored) -> (u32, Vec<u8>) {
    let sixty_fourth = half_bits(1.0 / 64.0).to_le_bytes();
    let as_integer = |value: f32| (value * 64.0) as i32;
    match stored {
        Stored::F32 => (0, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Stored::F16 => (1, values.iter().flat_map(|value| half_bits(*value).to_le_bytes()).collect()),
        Stored::Q8_0 => {
            let block = |block: &[f32]| -> Vec<u8> {
                sixty_fourth.into_iter().chain(block.iter().map(|value| as_integer(*value) as i8 as u8)).collect()
            };
            (8, values.chunks_exact(32).flat_map(block).collect())
        }
        Stored::Q4_1 => {
            let block = |block: &[f32]| -> Vec<u8> {
                let nibble = |value: f32| (as_integer(value) + 8) as u8;
                let pairs = (0..16).map(|place| nibble(block[place]) | (nibble(block[place + 16]) << 4));
                sixty_fourth.into_iter().chain(half_bits(-8.0 / 64.0).to_le_bytes()).chain(pairs).collect()
            };
            (3, values.chunks_exact(32).flat_map(block).collect())
        }
    }
}

/// Half precision of a number that it holds exactly and that is not subnormal.
fn half_bits(value: f32) -> u16 {
    if value == 0.0 {
        return 0;
    }
    let bits = value.to_bits();
    let exponent = ((bits >> 23) & 0xff) as i32 - 127 + 15;
    assert!((1..31).contains(&exponent) && bits & 0x1fff == 0, "{value}");
    ((bits >> 16) & 0x8000) as u16 | ((exponent as u16) << 10) | ((bits >> 13) & 0x3ff) as u16
}
