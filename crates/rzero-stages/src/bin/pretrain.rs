//! `pretrain`: see [`rzero_stages::stages::pretrain`].

use rzero_stages::stages::pretrain;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

fn main() -> ExitCode {
    rzero_stages::exit::main_with(pretrain::run)
}
