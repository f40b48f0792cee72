//! One module a stage: its flags and its `run`.

pub mod filter;
pub mod schemas;
pub mod vote_label;
