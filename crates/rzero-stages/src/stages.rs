//! One module a stage: its flags and its `run`.

pub mod base_profile;
#[cfg(feature = "model")]
pub mod challenge_gen;
#[cfg(feature = "model")]
pub mod eval;
#[cfg(feature = "fetch")]
pub mod fetch_model;
pub mod filter;
pub mod grade;
#[cfg(feature = "model")]
pub mod grpo_step;
pub mod import_benchmark;
#[cfg(feature = "model")]
pub mod import_model;
#[cfg(feature = "fetch")]
pub mod judge;
pub mod label_probe;
pub mod make_ladder;
#[cfg(feature = "model")]
pub mod pretrain;
pub mod schemas;
#[cfg(feature = "model")]
pub mod solve_sample;
pub mod summary;
pub mod vote_label;
