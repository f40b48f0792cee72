//! `vote-label`: see [`rzero_stages::stages::vote_label`].

use rzero_stages::stages::vote_label;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

fn main() -> ExitCode {
    rzero_stages::exit::main_with(vote_label::run)
}
