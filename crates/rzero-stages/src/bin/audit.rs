//! `audit`: see [`rzero_stages::stages::audit`].

use rzero_stages::stages::audit;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

fn main() -> ExitCode {
    rzero_stages::exit::main_with(audit::run)
}
