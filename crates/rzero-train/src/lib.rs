//! One update of a policy: GRPO on rollouts, or next-token training on documents.
//!
//! Samples are packed into micro-batches ([`batch`]), run forward and backward side by side ([`gradient`]) or on a
//! device ([`device_gradient`]), their token losses
//! come from [`loss`], and [`optim`] moves the flat weights. This crate knows no tables, no prompts and no clock but the one that
//! measures its own phases.

pub mod batch;
pub mod checkpoint;
pub mod device_gradient;
pub mod dual;
pub mod error;
pub mod gradient;
pub mod grpo;
pub mod loss;
pub mod optim;
pub mod pretrain;

pub use error::TrainError;
