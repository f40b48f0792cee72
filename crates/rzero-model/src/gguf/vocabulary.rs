//! The vocabulary in a GGUF header, and the tokenizer files of a Hugging Face folder that say the same.
//!
//! Only byte-level BPE is served (`tokenizer.ggml.model` = `gpt2`). How text is cut before merging is not in the file: it holds the
//! name of a rule that readers know. A name that is not known here is an error, for a wrong rule gives wrong tokens and no other sign.
//! Control tokens become special tokens, user-defined ones added tokens that are not special. Of several chat templates the
//! default one is kept. No space is put before a text.

use super::header::Header;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Token types of the format that are served; the others are bytes (6) and undefined (0).
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const SERVED_TYPES: std::ops::RangeInclusive<i64> = 1..=5;

/// How text is cut into the pieces within which merging happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Every digit alone, then as GPT-2.
    SmolLm,
    /// Contractions, letters, digits, other signs; each with the space before it.
    Gpt2,
    /// Every digit alone; text is composed (NFC) first.
    Qwen2,
    /// Up to three digits together; a piece that is a token is one, whatever the merges say.
    Llama3,
    /// What llama.cpp does for files that say `default`.
    Default,
}

const GPT2_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
const QWEN2_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEFAULT_STEPS: [&str; 4] = [r"[\p{P}\$\+<=>\^~\|]+", GPT2_WORDS, r"\p{N}+", "[0-9][0-9][0-9]"];

impl Cut {
    /// The rule of a name; several names stand for one rule, as in llama.cpp.
    fn named(name: &str) -> Result<Self, String> {
        Ok(match name {
            "smollm" => Self::SmolLm,
            "gpt-2" | "gpt2" | "phi-2" | "gigachat" | "a.x-4.0" | "mellum" => Self::Gpt2,
            "qwen2" | "deepseek-r1-qwen" | "kormo" | "f2llmv2" => Self::Qwen2,
            "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "pixtral" | "midm-2.0" => Self::Llama3,
            "default" => Self::Default,
            other => {
                return Err(format!(
                    "metadata `tokenizer.ggml.pre` is `{other}`, expected smollm, gpt-2, qwen2, llama-bpe, default or a name for one of them"
                ));
            }
        })
    }

    fn pre_tokenizer(self) -> Value {
        let byte_level = |trim_offsets: bool, use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": trim_offsets, "use_regex": use_regex});
        let split = |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        let sequence = |steps: Vec<Value>| json!({"type": "Sequence", "pretokenizers": steps});
        match self {
            Self::SmolLm => sequence(vec![json!({"type": "Digits", "individual_digits": true}), byte_level(true, true)]),
            Self::Gpt2 => byte_level(true, true),
            Self::Qwen2 => sequence(vec![split(QWEN2_WORDS), byte_level(false, false)]),
            Self::Llama3 => sequence(vec![split(LLAMA3_WORDS), byte_level(true, false)]),
            Self::Default => sequence(DEFAULT_STEPS.iter().map(|regex| split(regex)).chain([byte_level(true, false)]).collect()),
        }
    }
}

/// Tokens, merges and what each special token is for.
#[derive(Debug)]
pub(super) struct Vocabulary {
    tokens: Vec<String>,
    types: Vec<i64>,
    merges: Vec<[String; 2]>,
    cut: Cut,
    begin: Option<u32>,
    ends: Vec<u32>,
    padding: Option<u32>,
    unknown: Option<u32>,
    adds_begin: bool,
    adds_end: bool,
    chat_template: Option<String>,
}

impl Vocabulary {
    /// Takes the vocabulary out of a header.
    pub(super) fn take(header: &mut Header) -> Result<Self, String> {
        let model = Header::require(header.text("tokenizer.ggml.model")?, "tokenizer.ggml.model")?;
        if model != "gpt2" {
            return Err(format!("metadata `tokenizer.ggml.model` is `{model}`, only gpt2 (byte-level BPE) is read"));
        }
        let cut = Cut::named(Header::require(header.text("tokenizer.ggml.pre")?, "tokenizer.ggml.pre")?)?;
        let tokens = Header::require(header.take_texts("tokenizer.ggml.tokens")?, "tokenizer.ggml.tokens")?;
        let types = Header::require(header.take_integers("tokenizer.ggml.token_type")?, "tokenizer.ggml.token_type")?;
        let merges = Header::require(header.take_texts("tokenizer.ggml.merges")?, "tokenizer.ggml.merges")?;
        check_tokens(&tokens, &types)?;
        let merges = split_merges(merges, &tokens)?;
        let token = |key: &str| -> Result<Option<u32>, String> {
            match header.unsigned(key)? {
                None => Ok(None),
                Some(id) if id < tokens.len() as u64 => Ok(Some(id as u32)),
                Some(id) => Err(format!("metadata `{key}` is {id}, outside the vocabulary of {}", tokens.len())),
            }
        };
        let begin = token("tokenizer.ggml.bos_token_id")?;
        let mut ends = Vec::new();
        for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
            // Files name the same token for the end of a text and that of a turn.
            ends.extend(token(key)?.filter(|id| !ends.contains(id)));
        }
        let padding = token("tokenizer.ggml.padding_token_id")?;
        let unknown = token("tokenizer.ggml.unknown_token_id")?;
        let adds_begin = header.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(cut == Cut::Llama3);
        let adds_end = header.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
        let chat_template = header.text("tokenizer.chat_template")?.map(str::to_owned);
        if adds_begin && begin.is_none() {
            return Err("metadata `tokenizer.ggml.bos_token_id` is missing, although every text is to begin with it".to_owned());
        }
        if adds_end && ends.is_empty() {
            return Err("metadata `tokenizer.ggml.eos_token_id` is missing, although every text is to end with it".to_owned());
        }
        Ok(Self { tokens, types, merges, cut, begin, ends, padding, unknown, adds_begin, adds_end, chat_template })
    }

    /// Tokens of the vocabulary.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// tokenizer.json.
    pub(super) fn tokenizer_json(&self) -> Value {
        let added: Vec<Value> = (self.tokens.iter().zip(&self.types).enumerate())
            .filter(|(_, (_, kind))| matches!(**kind, CONTROL | USER_DEFINED))
            .map(|(id, (token, kind))| {
                json!({
                    "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                    "special": *kind == CONTROL,
                })
            })
            .collect();
        let vocabulary: Map<String, Value> =
            self.tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": (self.cut == Cut::Qwen2).then(|| json!({"type": "NFC"})),
            "pre_tokenizer": self.cut.pre_tokenizer(),
            "post_processor": self.post_processor(),
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": false, "byte_fallback": false, "ignore_merges": self.cut == Cut::Llama3,
                "vocab": vocabulary, "merges": self.merges,
            },
        })
    }

    /// What puts the first and last token around a text when a reader asks for special tokens.
    fn post_processor(&self) -> Value {
        let first = self.begin.filter(|_| self.adds_begin);
        let last = self.ends.first().copied().filter(|_| self.adds_end);
        if first.is_none() && last.is_none() {
            return Value::Null;
        }
        let special = |id: Option<u32>, type_id: u32| {
            id.map(|id| json!({"SpecialToken": {"id": self.text(id), "type_id": type_id}})).into_iter()
        };
        let around = |name: &str, type_id: u32| {
            let text = json!({"Sequence": {"id": name, "type_id": type_id}});
            special(first, type_id).chain([text]).chain(special(last, type_id))
        };
        let single: Vec<Value> = around("A", 0).collect();
        let pair: Vec<Value> = around("A", 0).chain(around("B", 1)).collect();
        let used: Map<String, Value> = (first.into_iter().chain(last))
            .map(|id| (self.text(id).to_owned(), json!({"id": self.text(id), "ids": [id], "tokens": [self.text(id)]})))
            .collect();
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": used})
    }

    /// tokenizer_config.json.
    pub(super) fn tokenizer_config_json(&self, max_positions: u64) -> Value {
        let mut config = Map::new();
        config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
        config.insert("model_max_length".to_owned(), json!(max_positions));
        config.insert("add_prefix_space".to_owned(), json!(false));
        config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
        config.insert("add_bos_token".to_owned(), json!(self.adds_begin));
        config.insert("add_eos_token".to_owned(), json!(self.adds_end));
        let named = [
            ("bos_token", self.begin),
            ("eos_token", self.ends.first().copied()),
            ("pad_token", self.padding),
            ("unk_token", self.unknown),
        ];
        for (name, id) in named {
            if let Some(id) = id {
                config.insert(name.to_owned(), json!(self.text(id)));
            }
        }
        if let Some(template) = &self.chat_template {
            config.insert("chat_template".to_owned(), json!(template));
        }
        Value::Object(config)
    }

    /// The ids of special tokens as config.json and generation_config.json have them: one end is a number, several are a list.
    pub(super) fn add_token_ids(&self, config: &mut Value) {
        if let Some(id) = self.begin {
            config["bos_token_id"] = json!(id);
        }
        match self.ends.as_slice() {
            [] => {}
            [id] => config["eos_token_id"] = json!(id),
            ids => config["eos_token_id"] = json!(ids),
        }
        if let Some(id) = self.padding {
            config["pad_token_id"] = json!(id);
        }
    }

    fn text(&self, id: u32) -> &str {
        &self.tokens[id as usize]
    }
}

fn check_tokens(tokens: &[String], types: &[i64]) -> Result<(), String> {
    if tokens.is_empty() {
        return Err("metadata `tokenizer.ggml.tokens` is empty".to_owned());
    }
    if tokens.len() != types.len() {
        return Err(format!("metadata `tokenizer.ggml.token_type` has {} items for {} tokens", types.len(), tokens.len()));
    }
    let mut seen = BTreeSet::new();
    for (id, (token, kind)) in tokens.iter().zip(types).enumerate() {
        if !SERVED_TYPES.contains(kind) {
            return Err(format!("metadata `tokenizer.ggml.token_type` has type {kind} for token {id}, expected 1 to 5"));
        }
        if token.is_empty() {
            return Err(format!("metadata `tokenizer.ggml.tokens` has no text for token {id}"));
        }
        if !seen.insert(token) {
            return Err(format!("metadata `tokenizer.ggml.tokens` has the text of token {id} twice"));
        }
    }
    Ok(())
}

/// Cuts each merge at its space; a token may itself begin with one.
fn split_merges(merges: Vec<String>, tokens: &[String]) -> Result<Vec<[String; 2]>, String> {
    let known: BTreeSet<&str> = tokens.iter().map(String::as_str).collect();
    let mut split = Vec::with_capacity(merges.len());
    for (index, merge) in merges.iter().enumerate() {
        let parts =
            merge.char_indices().skip(1).find(|(_, character)| *character == ' ').map(|(at, _)| (&merge[..at], &merge[at + 1..]));
        let is_known = |(left, right): &(&str, &str)| {
            known.contains(left) && known.contains(right) && known.contains(format!("{left}{right}").as_str())
        };
        let (left, right) = parts.filter(is_known).ok_or_else(|| {
            format!("metadata `tokenizer.ggml.merges` has entry {index}, which does not join two tokens into a third")
        })?;
        split.push([left.to_owned(), right.to_owned()]);
    }
    Ok(split)
}
