//! Runs the real `finhook` in a directory of its own, with no environment but what the test gives it.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

/// A directory and an environment.
#[derive(Debug)]
pub struct Sandbox {
    dir: PathBuf,
    vars: Vec<(String, String)>,
    /// Removed with the last that lives in it; none when the directory is another's.
    own: Option<Arc<TempDir>>,
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Sandbox {
    pub fn new() -> Self {
        // Nobody else comes in: there are secrets.
        let mut private = tempfile::Builder::new();
        private.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let own = private.tempdir().unwrap();
        Self { dir: own.path().to_owned(), vars: Vec::new(), own: Some(Arc::new(own)) }
    }

    /// In a directory that stays.
    pub fn within(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), vars: Vec::new(), own: None }
    }

    /// Keeps the directory for as long as it is held.
    pub fn held(&self) -> Option<Arc<TempDir>> {
        self.own.clone()
    }

    /// With a file `finhook.toml`, which is in force.
    pub fn with_config(toml: &str) -> Self {
        Self::new().file("finhook.toml", toml).var("FINHOOK_CONFIG", "finhook.toml")
    }

    pub fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.push((name.into(), value.into()));
        self
    }

    pub fn file(self, name: &str, contents: impl AsRef<[u8]>) -> Self {
        let file = self.path(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, contents).unwrap();
        self
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// Everything in the directory, sorted.
    pub fn listing(&self) -> Vec<PathBuf> {
        listing(&self.dir)
    }

    /// The command, not yet started.
    pub fn command<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_finhook"));
        self.enter(command.args(args));
        command
    }

    /// Gives a command of the test's own the directory, and nothing but its environment: what a developer has set for
    /// another finhook is not for this one.
    pub fn enter(&self, command: &mut Command) {
        command.current_dir(&self.dir).env_clear().envs(self.vars.iter().map(|(name, value)| (name, value)));
    }

    pub fn run(&self, args: &[&str]) -> Done {
        self.run_with(args, b"")
    }

    /// Runs the command to its end with these bytes on stdin.
    pub fn run_with(&self, args: &[&str], stdin: &[u8]) -> Done {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that does not read its stdin may be gone by now.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        let output = child.wait_with_output().unwrap();
        Done {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Everything in a folder and the folders in it, sorted.
pub fn listing(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}
