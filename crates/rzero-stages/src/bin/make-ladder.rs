//! `make-ladder`: see [`rzero_stages::stages::make_ladder`].

use rzero_stages::stages::make_ladder;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

fn main() -> ExitCode {
    rzero_stages::exit::main_with(make_ladder::run)
}
