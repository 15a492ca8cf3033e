//! The `finhook` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    finhook::cli::main()
}
