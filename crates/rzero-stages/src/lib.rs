//! The stage binaries: what is typed, where a stage works, how it runs and how it ends.
//!
//! A stage is a process: tables in, tables out, manifest last. [`args`] is what was typed, [`context`] what follows from it,
//! [`frame`] the one way a stage runs, [`exit`] and [`console`] how it ends and what it says. Each stage is one file of [`stages`];
//! its binary in `src/bin` only names it.

pub mod answers;
pub mod args;
#[cfg(feature = "model")]
pub mod backend;
pub mod checkpoints;
pub mod console;
pub mod context;
#[cfg(feature = "model")]
mod curricula;
pub mod device;
#[cfg(feature = "fetch")]
pub mod endpoint;
pub mod exit;
pub mod frame;
#[cfg(feature = "fetch")]
mod hub;
pub mod inputs;
pub mod interrupt;
mod judged;
pub mod markdown;
pub mod outputs;
#[cfg(feature = "model")]
pub mod policy;
#[cfg(feature = "model")]
pub mod prompt;
mod questions;
#[cfg(all(feature = "model", feature = "fetch"))]
mod remote;
mod reuse;
pub mod run_dir;
pub mod run_record;
pub mod scores;
pub mod stages;
#[cfg(feature = "model")]
mod tables;
pub mod template;
#[cfg(feature = "fetch")]
mod transport;
pub mod units;

/// The allocator of every binary.
pub use mimalloc::MiMalloc;
