//! Where a chat template comes from: the files of a model folder, read within bounds, and what is done to its text before it is parsed.

use super::{MAX_CONFIG_BYTES, refuse};
use crate::error::ModelError;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// Special tokens that have a name of their own in `transformers`.
const SPECIAL_TOKENS: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The text of a file of at most so many bytes; `None` where there is no such file.
pub(super) fn read_bounded(path: &Path, max_bytes: u64) -> Result<Option<String>, ModelError> {
    let failed = |source| ModelError::Io { path: path.to_owned(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let mut text = String::new();
    file.take(max_bytes + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > max_bytes {
        return Err(refuse(path, format!("it has more than {max_bytes} bytes")));
    }
    Ok(Some(text))
}

/// tokenizer_config.json; empty where there is none.
pub(super) fn read_config(path: &Path) -> Result<Map<String, Value>, ModelError> {
    let Some(text) = read_bounded(path, MAX_CONFIG_BYTES)? else { return Ok(Map::new()) };
    match serde_json::from_str(&text) {
        Ok(Value::Object(config)) => Ok(config),
        Ok(_) => Err(refuse(path, "it is no JSON object")),
        Err(error) => Err(refuse(path, format!("it is no JSON: {error}"))),
    }
}

/// The template that tokenizer_config.json holds.
pub(super) fn configured_template(config: &Map<String, Value>, path: &Path) -> Result<Option<String>, ModelError> {
    let named = match config.get("chat_template") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => return Ok(Some(text.clone())),
        Some(Value::Array(named)) => named,
        Some(_) => return Err(refuse(path, "chat_template is neither a text nor a list of named texts")),
    };
    let texts: Vec<(&str, &str)> =
        named.iter().filter_map(|entry| Some((entry.get("name")?.as_str()?, entry.get("template")?.as_str()?))).collect();
    match texts.iter().find(|(name, _)| *name == "default") {
        Some((_, text)) => Ok(Some((*text).to_owned())),
        None => {
            let names: Vec<&str> = texts.iter().take(8).map(|(name, _)| *name).collect();
            Err(refuse(path, format!("none of its chat templates is called `default`: {names:?}")))
        }
    }
}

/// The special tokens of tokenizer_config.json by the names that templates know; each a text, or an object with its `content`.
pub(super) fn special_tokens(config: &Map<String, Value>) -> Vec<(String, Value)> {
    let mut tokens: Vec<(String, Value)> = Vec::new();
    for name in SPECIAL_TOKENS {
        tokens.extend(config.get(name).and_then(content).map(|token| (name.to_owned(), token)));
    }
    if let Some(Value::Array(others)) = config.get("additional_special_tokens") {
        tokens.push(("additional_special_tokens".to_owned(), others.iter().filter_map(content).collect()));
    }
    if let Some(Value::Object(named)) = config.get("extra_special_tokens") {
        tokens.extend(named.iter().filter_map(|(name, token)| Some((name.clone(), content(token)?))));
    }
    tokens
}

fn content(token: &Value) -> Option<Value> {
    token.as_str().or_else(|| token.get("content")?.as_str()).map(Value::from)
}

/// The template as this engine parses it: lines end with `\n`, and `{% generation %}`, which `transformers` uses to find the model's
/// own words in training, is the scope that it is there.
pub(super) fn as_jinja(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut jinja = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        let word_at = tag.len() - tag.trim_start_matches(['-', '+']).trim_start().len();
        let length = tag[word_at..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(tag.len() - word_at);
        let word = &tag[word_at..word_at + length];
        jinja.push_str(before);
        jinja.push_str(&tag[..word_at]);
        jinja.push_str(match word {
            "generation" => "with",
            "endgeneration" => "endwith",
            other => other,
        });
        rest = &tag[word_at + length..];
    }
    jinja.push_str(rest);
    jinja
}
