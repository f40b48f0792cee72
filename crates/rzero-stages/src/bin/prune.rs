//! `prune`: see [`rzero_stages::stages::prune`].

use rzero_stages::stages::prune;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

fn main() -> ExitCode {
    rzero_stages::exit::main_with(prune::run)
}
