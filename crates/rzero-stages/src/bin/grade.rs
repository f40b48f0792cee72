//! `grade`: see [`rzero_stages::stages::grade`].

use rzero_stages::stages::grade;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

fn main() -> ExitCode {
    rzero_stages::exit::main_with(grade::run)
}
