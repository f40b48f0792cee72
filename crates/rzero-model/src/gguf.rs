//! A GGUF file as a Hugging Face model folder: its weights dequantised, its tokenizer rebuilt, its metadata as config.json.
//!
//! [`Gguf::open`] reads the header and checks all of it; after that only the bytes of tensors can be wrong. Architectures `llama`,
//! `qwen2` and `qwen3` are served, versions 2 and 3 of the format, and every block type that candle dequantises. The file is
//! material of unknown origin: time and memory are bounded, and an error names the field. Nothing is written here: the caller
//! gets the texts of the small files, and the weights piece by piece.

mod header;
mod sizes;
mod vocabulary;
mod weights;

use crate::error::ModelError;
use crate::tokenizer::Tokenizer;
use header::Header;
use rzero_schema::vocab::FloatType;
use serde_json::{Value, json};
use sizes::Sizes;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use vocabulary::Vocabulary;
use weights::{Plan, Problem};

/// An opened GGUF file whose header was found usable.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    file: File,
    header: Header,
    sizes: Sizes,
    vocabulary: Vocabulary,
    plan: Plan,
}

impl Gguf {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// When the file cannot be read, or its header is damaged, asks for something that is not served, or does not fit its tensors.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        let gguf = |problem| ModelError::Gguf { path: path.to_owned(), problem };
        let mut file = File::open(path).map_err(io)?;
        let num_bytes = file.metadata().map_err(io)?.len();
        let mut header = Header::read(&mut file, num_bytes).map_err(io)?.map_err(gguf)?;
        let mut sizes = Sizes::read(&header).map_err(gguf)?;
        let vocabulary = Vocabulary::take(&mut header).map_err(gguf)?;
        let plan = Plan::new(&header, &sizes, vocabulary.len()).map_err(gguf)?;
        if let Some(place) = &plan.rope_factors {
            let factors = weights::read_all(&mut file, place).map_err(|problem| error_of(path, problem))?;
            sizes.divide_frequencies(&factors).map_err(gguf)?;
        }
        Ok(Self { path: path.to_owned(), file, header, sizes, vocabulary, plan })
    }

    /// Version of the format.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// A text of the metadata, such as that of `general.name`; `None` where there is none.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.header.text(key).ok().flatten()
    }

    /// Parameters of the model.
    #[must_use]
    pub fn num_parameters(&self) -> u64 {
        self.plan.num_parameters()
    }

    /// How many tensors are stored in blocks of which type, such as 210 of `Q4_1`.
    #[must_use]
    pub fn type_counts(&self) -> BTreeMap<String, u64> {
        self.plan.type_counts()
    }

    /// config.json, in the form that transformers of every version reads.
    #[must_use]
    pub fn config_json(&self, dtype: FloatType) -> Value {
        let mut config = self.sizes.config_json(dtype, self.plan.is_tied, self.vocabulary.len());
        self.vocabulary.add_token_ids(&mut config);
        config
    }

    /// generation_config.json: the tokens that begin, end and pad a text.
    #[must_use]
    pub fn generation_config_json(&self) -> Value {
        let mut config = json!({});
        self.vocabulary.add_token_ids(&mut config);
        config
    }

    /// tokenizer_config.json: the special tokens as text, and the chat template.
    #[must_use]
    pub fn tokenizer_config_json(&self) -> Value {
        self.vocabulary.tokenizer_config_json(self.sizes.max_positions)
    }

    /// tokenizer.json, after it was tried.
    ///
    /// # Errors
    /// When it cannot be used, which the header did not show.
    pub fn tokenizer_json(&self) -> Result<String, ModelError> {
        let text = self.vocabulary.tokenizer_json().to_string();
        Tokenizer::from_json(&text, self.path.clone())?;
        Ok(text)
    }

    /// Hands the bytes of model.safetensors to `sink`, in order and a piece at a time: first the header, then tensor by tensor.
    ///
    /// # Errors
    /// What `sink` returns; or that a tensor cannot be read, or holds a value that is not finite or that `dtype` cannot express.
    pub fn write_safetensors<E: From<ModelError>>(
        &mut self,
        dtype: FloatType,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        sink(&self.plan.safetensors_header(dtype))?;
        let path = &self.path;
        self.plan.write_data(&mut self.file, dtype, |problem| E::from(error_of(path, problem)), &mut sink)
    }
}

fn error_of(path: &Path, problem: Problem) -> ModelError {
    match problem {
        Problem::Io(source) => ModelError::Io { path: path.to_owned(), source },
        Problem::Content(problem) => ModelError::Gguf { path: path.to_owned(), problem },
    }
}
