//! `grpo-gradient`: see [`rzero_stages::stages::grpo_gradient`].

use rzero_stages::stages::grpo_gradient;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

fn main() -> ExitCode {
    rzero_stages::exit::main_with(grpo_gradient::run)
}
