//! Servers of others, which `tests/run` installs.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where `tests/run` puts what it only unpacks.
pub fn tools() -> PathBuf {
    std::env::var("TEST_TOOLS").expect("TEST_TOOLS is set by tests/run, which installs them").into()
}

/// A running one; killed when it is dropped.
#[derive(Debug)]
pub struct Server(Child);

impl Server {
    /// Starts it; what it says goes to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
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
pub fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}
