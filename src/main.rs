//! The `finhook` command.

use std::process::ExitCode;

/// Events are allocated by the threads that receive them and freed by the journal's: what mimalloc is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    finhook::cli::main()
}
