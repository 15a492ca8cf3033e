//! What is in `deploy/` fits the program, and passes the checks of those who read it.

mod kubernetes;
mod prometheus;
mod proxies;
mod systemd;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::server::tools;

/// A file or folder in `deploy/`.
fn deploy(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "deploy", name].iter().collect()
}

/// Runs a tool that `tests/run` installs, and returns what it printed. Panics when it isn't there or complains.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: tests/run installs it"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}{stderr}", output.status);
    stdout.into_owned() + &stderr
}

/// Runs a program text by the Python that `tests/run` gives packages of others, with a file as its argument.
fn python(program: &str, file: &Path) -> String {
    run(Command::new(tools().join("python/bin/python")).args(["-c", program]).arg(file))
}
