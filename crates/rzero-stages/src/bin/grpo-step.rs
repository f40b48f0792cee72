//! `grpo-step`: see [`rzero_stages::stages::grpo_step`].

use rzero_stages::stages::grpo_step;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

fn main() -> ExitCode {
    rzero_stages::exit::main_with(grpo_step::run)
}
