//! Text to tokens and back. The one module of this crate that knows text.

use crate::error::ModelError;
use serde_json::json;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer as Inner;

/// The tokenizer of a model folder.
#[derive(Debug)]
pub struct Tokenizer {
    inner: Inner,
    path: PathBuf,
    specials: Vec<String>,
}

/// Tokens as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The text; bytes that are no UTF-8 stand as U+FFFD.
    pub text: String,
    /// False where the text holds U+FFFD: its bytes were not valid, or could not be told from such.
    pub is_valid_utf8: bool,
}

impl Tokenizer {
    /// Reads `folder/tokenizer.json`.
    ///
    /// # Errors
    /// When the file is missing or not a tokenizer.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("tokenizer.json");
        let text = std::fs::read_to_string(&path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
        Self::from_json(&text, path)
    }

    /// Reads the text of a tokenizer.json; `path` names it in errors.
    ///
    /// # Errors
    /// When the text is no tokenizer.
    pub fn from_json(text: &str, path: PathBuf) -> Result<Self, ModelError> {
        match Inner::from_bytes(text) {
            Ok(inner) => {
                let mut specials: Vec<String> = inner
                    .get_added_tokens_decoder()
                    .into_values()
                    .filter(|token| token.special)
                    .map(|token| token.content)
                    .collect();
                specials.sort_unstable();
                Ok(Self { inner, path, specials })
            }
            Err(error) => Err(ModelError::Tokenizer { path, problem: error.to_string() }),
        }
    }

    /// Tokens of a text; special tokens stand in the text, none are added.
    ///
    /// # Errors
    /// When the text holds something the vocabulary cannot express.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self
            .inner
            .encode(text, false)
            .map_err(|error| ModelError::Tokenizer { path: self.path.clone(), problem: error.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of tokens, special ones included, so that nothing a model wrote is hidden. Unknown ids are skipped.
    #[must_use]
    pub fn decode(&self, tokens: &[u32]) -> Decoded {
        let text = self.inner.decode(tokens, false).unwrap_or_else(|_| char::REPLACEMENT_CHARACTER.to_string());
        let is_valid_utf8 = !text.contains(char::REPLACEMENT_CHARACTER);
        Decoded { text, is_valid_utf8 }
    }

    /// Whether a text spells out a special token. In a prompt it would become that token, and whoever wrote it would
    /// have written a part of the prompt.
    #[must_use]
    pub fn holds_special_token(&self, text: &str) -> bool {
        self.specials.iter().any(|special| text.contains(special.as_str()))
    }
}

/// Special tokens of the embedded model; their ids are their places here.
pub const CHARACTER_SPECIALS: [&str; 9] =
    ["<pad>", "<bos>", "<eos>", "<challenger>", "<solver>", "<question>", "</question>", "\\boxed{", "}"];

/// Single characters of the embedded model's vocabulary, after the special tokens.
pub const CHARACTERS: &str = "0123456789+-*()= ;,.?:/%abcdefghijklmnopqrstuvwxyz";

/// The tokenizer.json of the embedded model: nine special tokens, one token a character, `<unk>` for all else, padded to 64.
#[must_use]
pub fn character_tokenizer_json() -> serde_json::Value {
    let mut words: Vec<String> = CHARACTER_SPECIALS.iter().map(|&word| word.to_owned()).collect();
    words.extend(CHARACTERS.chars().map(String::from));
    words.push("<unk>".to_owned());
    while words.len() < 64 {
        words.push(format!("<reserved{}>", words.len()));
    }
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        words.iter().enumerate().map(|(id, word)| (word.clone(), json!(id))).collect();
    let added: Vec<serde_json::Value> = words
        .iter()
        .enumerate()
        .filter(|(_, word)| word.chars().count() > 1)
        .map(|(id, word)| {
            let is_special = word.starts_with('<') && !word.contains("question");
            json!({"id": id, "content": word, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": is_special})
        })
        .collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocabulary, "merges": [],
        },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn characters_and_tags_are_single_tokens_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), character_tokenizer_json().to_string()).unwrap();
        let tokenizer = Tokenizer::read(folder.path()).unwrap();
        let text = "<bos><solver><question>12+(3*4)</question>=12+12=24\\boxed{24}";
        let tokens = tokenizer.encode(text).unwrap();
        assert_eq!(tokens[..6], [1, 4, 5, 10, 11, 19]);
        assert_eq!(tokens.len(), 3 + 8 + 1 + 9 + 1 + 2 + 1);
        assert_eq!(tokenizer.decode(&tokens), Decoded { text: text.to_owned(), is_valid_utf8: true });
        assert!(tokenizer.holds_special_token("1+<eos>2") && !tokenizer.holds_special_token("<question>\\boxed{2}</question>"));
    }

    #[test]
    fn bytes_that_are_no_utf8_are_told_and_replaced() {
        // A byte-level vocabulary writes byte 0xC3, the first half of a two-byte character, as the letter U+00C3.
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "vocab": {"a": 0, "\u{c3}": 1, "\u{a9}": 2}, "merges": []},
        });
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
        let tokenizer = Tokenizer::read(folder.path()).unwrap();
        assert_eq!(tokenizer.decode(&[0, 1, 2]), Decoded { text: "a\u{e9}".to_owned(), is_valid_utf8: true });
        assert_eq!(tokenizer.decode(&[0, 1]), Decoded { text: "a\u{fffd}".to_owned(), is_valid_utf8: false });
        assert_eq!(tokenizer.decode(&[999]).text, "");
    }

    #[test]
    fn a_missing_tokenizer_is_named() {
        let error = Tokenizer::read(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/tokenizer.json"), "{error}");
    }
}
