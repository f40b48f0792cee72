//! `challenge-gen`: see [`rzero_stages::stages::challenge_gen`].

use rzero_stages::stages::challenge_gen;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

fn main() -> ExitCode {
    rzero_stages::exit::main_with(challenge_gen::run)
}
