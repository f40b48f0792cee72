//! `export-manuals`: manual pages and shell completions of every binary, from its flags.

use crate::console::{Verbosity, print_product, start_log};
use crate::stages;
use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use rzero_io::atomic::write_bytes;
use std::path::PathBuf;

/// Write manual pages (man1/) and completions for bash, zsh and fish (completions/).
#[derive(Debug, clap::Parser)]
#[command(name = "export-manuals", version)]
pub struct Args {
    /// Folder to write to
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Every command of the project that this build has, but those that only serve the project itself.
#[must_use]
pub fn commands() -> Vec<Command> {
    #[allow(unused_mut, reason = "a build without models or network has fewer")]
    let mut commands = vec![
        stages::filter::Args::command(),
        stages::grade::Args::command(),
        stages::import_benchmark::Args::command(),
        stages::label_probe::Args::command(),
        stages::prune::Args::command(),
        stages::publish_dataset::Args::command(),
        stages::remember::Args::command(),
        stages::report::Args::command(),
        stages::summary::Args::command(),
        stages::vote_label::Args::command(),
    ];
    #[cfg(feature = "model")]
    commands.extend([
        stages::ablate::Args::command(),
        stages::audit::Args::command(),
        stages::challenge_gen::Args::command(),
        stages::eval::Args::command(),
        stages::explain::Args::command(),
        stages::grpo_gradient::Args::command(),
        stages::grpo_step::Args::command(),
        stages::import_model::Args::command(),
        stages::look::Args::command(),
        stages::pretrain::Args::command(),
        stages::solve_sample::Args::command(),
        stages::verify::Args::command(),
    ]);
    #[cfg(feature = "fetch")]
    commands.extend([stages::fetch_model::Args::command(), stages::judge::Args::command()]);
    commands
}

/// Writes them.
///
/// # Errors
/// When a file cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    start_log(Verbosity::Normal);
    for mut command in commands() {
        let name = command.get_name().to_owned();
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone()).render(&mut page).context("cannot write a manual page")?;
        let path = args.folder.join("man1").join(format!("{name}.1"));
        write_bytes(&path, &page)?;
        print_product(path.display());
        for (shell, file) in
            [(Shell::Bash, format!("{name}.bash")), (Shell::Zsh, format!("_{name}")), (Shell::Fish, format!("{name}.fish"))]
        {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, &name, &mut script);
            let path = args.folder.join("completions").join(shell.to_string()).join(file);
            write_bytes(&path, &script)?;
            print_product(path.display());
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_completions() {
        let folder = tempfile::tempdir().unwrap();
        run(&Args { folder: folder.path().to_owned() }).unwrap();
        for command in commands() {
            let name = command.get_name();
            let page = std::fs::read_to_string(folder.path().join(format!("man1/{name}.1"))).unwrap();
            assert!(page.contains(".SH NAME") && page.contains(".SH OPTIONS"), "{name}");
            for file in [format!("bash/{name}.bash"), format!("zsh/_{name}"), format!("fish/{name}.fish")] {
                let script = std::fs::read_to_string(folder.path().join("completions").join(file)).unwrap();
                assert!(script.contains("--help") || script.contains("-l help"), "{name}");
            }
        }
    }
}
