//! `solve-sample`: see [`rzero_stages::stages::solve_sample`].

use rzero_stages::stages::solve_sample;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

fn main() -> ExitCode {
    rzero_stages::exit::main_with(solve_sample::run)
}
