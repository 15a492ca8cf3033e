//! `finhook completions` and `finhook man`: for the shell and the manual, from the same definitions as the help texts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_complete::Shell;

use super::{Failure, command, print};

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  finhook completions bash > ~/.local/share/bash-completion/completions/finhook
  finhook completions zsh > \"${fpath[1]}/_finhook\"
  finhook completions fish > ~/.config/fish/completions/finhook.fish")]
pub(super) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

/// Print the manual page, or write those of all commands to a folder.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  finhook man | man -l -
  finhook man ~/.local/share/man/man1")]
pub(super) struct ManArgs {
    /// Where to write finhook.1, finhook-serve.1 and so on; made if it isn't there
    dir: Option<PathBuf>,
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "finhook", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn man(args: &ManArgs) -> Result<ExitCode, Failure> {
    if let Some(dir) = &args.dir {
        let failed = |error| Failure::new(format!("can't write the manual to {}: {error}", dir.display()));
        write_pages(dir).map_err(failed)?;
    } else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command()).render(&mut page)?;
        print(&String::from_utf8_lossy(&page))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_pages(dir: &Path) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(command(), dir)
}
