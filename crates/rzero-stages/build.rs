//! Records which commit the binaries are built from. Outside a checkout of this project the commit is `unknown`; nothing fails.

use std::path::Path;
use std::process::Command;

fn main() {
    let (commit, is_dirty) = checkout().unwrap_or_else(|| ("unknown".to_owned(), false));
    println!("cargo::rustc-env=RZERO_COMMIT={commit}");
    println!("cargo::rustc-env=RZERO_IS_DIRTY={is_dirty}");
    // The crates decide whether the checkout is dirty, the log of HEAD tells of a new commit; only what exists may be watched,
    // for a missing file would make every build run this script again.
    println!("cargo::rerun-if-changed=..");
    for watched in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", watched]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// Commit and dirtiness, if the workspace is itself the root of a checkout (not a folder inside someone else's).
fn checkout() -> Option<(String, bool)> {
    let root = Path::new("../..").canonicalize().ok()?;
    let top = Path::new(&git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if top != root {
        return None;
    }
    let changes = git(&["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"])?;
    Some((git(&["rev-parse", "HEAD"])?, !changes.is_empty()))
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
