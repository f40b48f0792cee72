//! `import-benchmark`: see [`rzero_stages::stages::import_benchmark`].

use rzero_stages::stages::import_benchmark;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

fn main() -> ExitCode {
    rzero_stages::exit::main_with(import_benchmark::run)
}
