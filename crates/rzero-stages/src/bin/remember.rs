//! `remember`: see [`rzero_stages::stages::remember`].

use rzero_stages::stages::remember;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

fn main() -> ExitCode {
    rzero_stages::exit::main_with(remember::run)
}
