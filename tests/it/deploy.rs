//! What is in `deploy/` fits the program, and passes the checks of those who read it.

mod kubernetes;
mod prometheus;
mod proxies;
mod systemd;

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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
    let tools = std::env::var("TEST_TOOLS").expect("TEST_TOOLS is set by tests/run, which installs them");
    run(Command::new(Path::new(&tools).join("python/bin/python")).args(["-c", program]).arg(file))
}

/// A server of others; killed when it is dropped.
struct Server(Child);

impl Server {
    /// Starts it; what it says goes to `log`.
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}: tests/run installs it")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails when it is over already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One that nobody listens at, for a server that can't say which port the system gave it.
fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}
