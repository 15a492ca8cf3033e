//! The real program, serving in a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;

use super::command::Sandbox;
use super::raw::Raw;

/// The signing secret of its endpoint `fin`.
pub const SECRET: &str = "a signing secret for tests";

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    /// The public listener's address.
    pub addr: SocketAddr,
    /// The admin listener's address.
    pub admin: SocketAddr,
    /// What it logs.
    pub log: Arc<Mutex<Vec<String>>>,
    _sandbox: Sandbox,
}

impl Program {
    /// Starts it with additional variables, and at most `open_files` file descriptors if given.
    pub async fn start(vars: &[(&str, &str)], open_files: Option<u32>) -> Self {
        let mut sandbox = Sandbox::new()
            .var("FINHOOK__SERVER__BIND", "127.0.0.1:0")
            .var("FINHOOK__ADMIN__BIND", "127.0.0.1:0")
            .var("FINHOOK__ENDPOINTS__FIN__PATH", "/fin")
            .var("FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS", SECRET)
            .var("FINHOOK__SINKS__STDOUT__ENABLED", "false")
            .var("FINHOOK__LOG__FORMAT", "json");
        for (name, value) in vars {
            sandbox = sandbox.var(name, value);
        }
        let mut command = sandbox.command(["serve"]);
        if let Some(limit) = open_files {
            // The limit is the shell's, which the program takes the place of.
            let program = command.get_program().to_owned();
            let envs: Vec<_> =
                command.get_envs().map(|(name, value)| (name.to_owned(), value.map(Into::into))).collect();
            let mut shell = std::process::Command::new("/bin/sh");
            shell.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" serve")]).arg(program).env_clear();
            shell.current_dir(sandbox.path(""));
            shell.envs(
                envs.into_iter().filter_map(|(name, value): (_, Option<std::ffi::OsString>)| Some((name, value?))),
            );
            command = shell;
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (found, address) = oneshot::channel();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut found = Some(found);
            for line in lines.map_while(Result::ok) {
                if let Some(addresses) = addresses(&line)
                    && let Some(found) = found.take()
                {
                    found.send(addresses).unwrap();
                }
                kept.lock().unwrap().push(line);
            }
        });
        let address = tokio::time::timeout(Duration::from_secs(60), address).await;
        let Ok(Ok((addr, admin))) = address else { panic!("it does not start: {:?}", log.lock().unwrap()) };
        Self { child, addr, admin, log, _sandbox: sandbox }
    }

    /// A new connection to the public listener.
    pub async fn connect(&self) -> Raw {
        Raw::connect(self.addr).await
    }

    /// Resident memory, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both addresses, from the line that says where it listens.
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").unwrap_or(&line);
    let address = |name: &str| fields.get(name)?.as_str()?.parse().ok();
    Some((address("public")?, address("admin")?))
}
