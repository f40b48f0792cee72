//! The tests of the whole: binaries, recipes and the tree. What concerns one function stands beside it, in its crate.
//!
//! | where | what goes there |
//! | --- | --- |
//! | `tidy.rs` | rules of the tree: floors of the crates, sizes of files, words that must not stay, profiles that must parse |
//! | `dag.rs` | the order of the stages, as `just plan` prints it |
//!
//! `fixtures/` holds inputs with the script that made them, `snapshots/` what commands are expected to print.

mod dag;
mod tidy;
