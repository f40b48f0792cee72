//! `verify`: see [`rzero_stages::stages::verify`].

use rzero_stages::stages::verify;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

fn main() -> ExitCode {
    rzero_stages::exit::main_with(verify::run)
}
