//! One update of a policy: GRPO on rollouts, or next-token training on documents.
//!
//! Samples are packed into micro-batches ([`batch`]), run forward and backward ([`gradient`], on a device [`device_gradient`]), their token losses come from [`loss`], and
//! [`optim`] moves the flat weights, or adapters beside them ([`trainable`]). This crate knows no tables, no prompts and no clock but the one that
//! measures its own phases.

pub mod batch;
pub mod checkpoint;
pub mod device_gradient;
pub mod dual;
pub mod error;
pub mod gradient;
pub mod grpo;
pub mod lora;
pub mod loss;
pub mod memory;
pub mod optim;
pub mod pretrain;
pub mod trainable;

pub use error::TrainError;
