//! `look`: see [`rzero_stages::stages::look`].

use rzero_stages::stages::look;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

fn main() -> ExitCode {
    rzero_stages::exit::main_with(look::run)
}
