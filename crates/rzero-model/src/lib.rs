//! Tokens to logits to rollouts: a decoder-only transformer of the Llama, Qwen2 and Qwen3 families.
//!
//! One flat buffer of weights ([`weights::Weights`]) and two ways through it: [`training`] keeps what the backward pass needs,
//! [`engine`] decodes many sequences over a preallocated cache. [`reference`] is the slow twin of both in plain candle ops.
//! [`device`] does the work of both on a candle device, such as a CUDA accelerator. [`gguf`] reads models of that format. This crate reads
//! and writes model folders; it knows nothing of tables, votes or rewards.

pub mod chat_template;
pub mod config;
mod decode_attention;
pub mod decoder;
pub mod device;
pub mod engine;
pub mod error;
pub mod gguf;
pub mod kernels;
pub mod kv_cache;
pub mod matmul;
pub mod panels;
mod product;
pub mod reference;
pub mod rope;
pub mod sampler;
pub mod strips;
pub mod team;
pub mod tensor_file;
pub mod tokenizer;
pub mod training;
pub mod weights;

pub use config::ModelConfig;
pub use error::ModelError;
pub use weights::Weights;
