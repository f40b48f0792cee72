//! `fetch-model`: see [`rzero_stages::stages::fetch_model`].

use rzero_stages::stages::fetch_model;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

fn main() -> ExitCode {
    rzero_stages::exit::main_with(fetch_model::run)
}
