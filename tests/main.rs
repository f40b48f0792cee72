//! The tests of the whole: binaries, recipes and the tree. What concerns one function stands beside it, in its crate.
//!
//! | where | what goes there |
//! | --- | --- |
//! | `tidy.rs` | rules of the tree: floors of the crates, sizes of files, words that must not stay, profiles that must parse |
//! | `dag.rs` | the order of the stages, as `just plan` prints it |
//! | `whole_run.rs` | laws of a whole run: killed, sharded, threaded, run twice |
//! | `ablate.rs` | a matrix of settings and seeds, and its table |
//! | `stability.rs` | what is to keep the loop from collapsing, and labelled training, by what stands in the rows |
//! | `verifier.rs` | the third role: what it is shown, says, learns from and decides |
//! | `domains.rs` | domains as folders: programs that an interpreter labels, texts that the Verifier judges |
//! | `remote.rs` | completions by a server: rows, retries, resuming, hostile replies |
//! | `schedulers.rs` | jobs for Kubernetes, AWS Batch, PBS and LSF, as `just render-job` prints them |
//! | `shared_step.rs` | a training step shared among processes: the same bytes, and what becomes of missing or foreign parts |
//! | `stores.rs` | runs in object stores: the same bytes, two writers, machines that are lost |
//! | `audit.rs` | `audit` on runs that were broken on purpose |
//! | `bad_input.rs` | everything that can be wrong with what a stage is given, in one list |
//! | `dataset.rs` | `publish-dataset`, `explain` and `look`: what they say is what the tables hold |
//! | `prune.rs` | `prune`: what goes, what stays, and that nobody misses it |
//! | `report.rs` | `report`: it stands alone and says what the tables say |
//! | `at_size.rs` | what large models need: adapters, 16-bit checkpoints, less memory and how much of it |
//! | `accelerator.rs` | the path of an accelerator, on the CPU, against the CPU's own |
//! | `hostile_model.rs` | what becomes of a model that writes nonsense |
//! | `conversation.rs` | prompts that are conversations, written by a model's chat template |
//! | `benchmarks.rs` | made-up benchmarks through the real `eval`, its comparison and the summary |
//! | `bench.rs` | what `just bench` makes of its raw runs |
//! | `just.rs` | how the others call `just` |
//!
//! `slurm/` holds what `just test-slurm` and `just test-kills` do on a real cluster. `fixtures/` holds inputs and says where they come from, `snapshots/` what commands are expected to print.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod ablate;
mod accelerator;
mod at_size;
mod audit;
mod bad_input;
mod bench;
mod benchmarks;
mod conversation;
mod dag;
mod dataset;
mod domains;
mod hostile_model;
mod just;
mod prune;
#[cfg(feature = "fetch")]
mod remote;
mod report;
mod schedulers;
mod shared_step;
mod stability;
#[cfg(feature = "stores")]
mod stores;
mod tidy;
mod verifier;
mod whole_run;
