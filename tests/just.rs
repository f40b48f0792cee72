//! `just`, with the binaries under test and nothing of the caller's environment.

use std::path::Path;
use std::process::Command;

/// `just`, as the recipe that started the tests names it.
pub(crate) fn just() -> Command {
    let program = std::env::var_os("RZERO_JUST").unwrap_or_else(|| "just".into());
    let mut command = Command::new(program);
    let binaries = Path::new(env!("CARGO_BIN_EXE_profile-get")).parent().expect("a binary lies in a folder");
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).arg(format!("bin={}", binaries.display()));
    let ours = [
        "RZERO_RUN",
        "RZERO_PROFILE",
        "RZERO_SET",
        "RZERO_THREADS",
        "RZERO_ROOT",
        "RZERO_MIRRORS",
        "RZERO_REUSE",
        "RZERO_LOG",
        "RZERO_INDEX_BASE",
    ];
    for variable in ours.into_iter().chain([
        "RZERO_DEVICE",
        "RZERO_BACKEND",
        "RZERO_URL",
        "RZERO_SERVED_MODEL",
        "SHARD_INDEX",
        "NUM_SHARDS",
        "RUST_LOG",
    ]) {
        command.env_remove(variable);
    }
    command
}
