//! `ablate`: see [`rzero_stages::stages::ablate`].

use rzero_stages::stages::ablate;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

fn main() -> ExitCode {
    rzero_stages::exit::main_with(ablate::run)
}
