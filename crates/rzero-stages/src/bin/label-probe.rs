//! `label-probe`: see [`rzero_stages::stages::label_probe`].

use rzero_stages::stages::label_probe;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

fn main() -> ExitCode {
    rzero_stages::exit::main_with(label_probe::run)
}
