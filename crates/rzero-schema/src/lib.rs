//! What flows between stages, as types: vocabularies, ids, tables, the profile and the manifest.
//!
//! This crate sees no file and no clock. It says what a row, a number of the profile and a manifest *are*;
//! `rzero-io` moves them, the stages fill them. `schemas/` is generated from here.

pub mod ablation;
pub mod cluster_profile;
mod domain_profile;
pub mod evaluation_profile;
pub mod ids;
pub mod manifest;
pub mod pretrain_profile;
pub mod profile;
mod seen_profile;
pub mod stability_profile;
pub mod table;
pub mod tables;
pub mod verifier_profile;
pub mod vocab;
