//! `publish-dataset`: see [`rzero_stages::stages::publish_dataset`].

use rzero_stages::stages::publish_dataset;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

fn main() -> ExitCode {
    rzero_stages::exit::main_with(publish_dataset::run)
}
