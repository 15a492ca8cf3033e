//! The real program: `finhook serve`, as released, with a configuration that a user could have.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Result;
use super::events::{PATH, SECRET};
use super::process::{Cores, Server};

/// The program that is measured: the one that `cargo bench` has just built, optimised like the image.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("FINHOOK").map_or_else(|| env!("CARGO_BIN_EXE_finhook").into(), PathBuf::from)
}

/// How to run it.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Holds the journal and the configuration.
    pub(crate) directory: PathBuf,
    /// `[journal]` keys besides the path.
    pub(crate) journal: String,
    /// `[sinks.…]` tables.
    pub(crate) sinks: String,
    /// The built-in `stdout` sink, on by default for users; its lines go to `/dev/null` here.
    pub(crate) stdout: bool,
}

impl Setup {
    /// No sinks, everything else as it comes.
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), journal: String::new(), sinks: String::new(), stdout: false }
    }

    /// With these `[sinks.…]` tables.
    pub(crate) fn sinks(mut self, tables: &str) -> Self {
        self.sinks = tables.to_owned();
        self
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(&self, cores: Cores) -> Result<Finhook> {
        self.start_and_time(cores).map(|(finhook, _)| finhook)
    }

    /// Starts it; says how long it took from the start of the process until `/readyz` answered 200.
    pub(crate) fn start_and_time(&self, cores: Cores) -> Result<(Finhook, Duration)> {
        let (bind, admin) = (free_port()?, free_port()?);
        let mut config = String::new();
        writeln!(config, "[server]\nbind = \"{bind}\"\n[admin]\nbind = \"{admin}\"")?;
        writeln!(config, "[endpoints.fin]\npath = \"{PATH}\"\nsigning_secrets = [\"{SECRET}\"]")?;
        let journal = self.directory.join("finhook.db");
        writeln!(config, "[journal]\npath = \"{}\"\n{}", journal.display(), self.journal)?;
        writeln!(config, "[sinks.stdout]\ntype = \"log\"\nenabled = {}\n{}", self.stdout, self.sinks)?;
        let path = self.directory.join("finhook.toml");
        fs::write(&path, config)?;
        let log = self.directory.join("finhook.log");
        let mut command = Command::new(program());
        command.arg("serve").arg("--config").arg(&path).stdin(Stdio::null()).stdout(Stdio::null());
        command.env_remove("FINHOOK_CONFIG").stderr(File::options().create(true).append(true).open(&log)?);
        let begun = Instant::now();
        let server = Server::new(cores.spawn(&mut command)?, bind);
        let mut finhook = Finhook { server, admin, log };
        while !finhook.ready() {
            if finhook.server.ended()? || begun.elapsed() > Duration::from_secs(60) {
                return Err(format!("finhook did not become ready; its log:\n{}", finhook.log_tail()).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok((finhook, begun.elapsed()))
    }
}

/// A running `finhook serve`.
pub(crate) struct Finhook {
    /// The process and the public listener's address.
    pub(crate) server: Server,
    admin: SocketAddr,
    log: PathBuf,
}

impl Finhook {
    /// Whether `/readyz` answers 200.
    pub(crate) fn ready(&self) -> bool {
        self.ask("GET", "/readyz").is_ok_and(|(status, _)| status == 200)
    }

    /// A sample of `/metrics`, e.g. `finhook_sink_lag_events{sink="archive"}`; 0 if it is not there.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let (_, text) = self.ask("GET", "/metrics")?;
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        Ok(line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0))
    }

    /// Pauses or resumes a sink.
    pub(crate) fn sink(&self, name: &str, action: &str) -> Result<()> {
        let (status, text) = self.ask("POST", &format!("/api/v1/sinks/{name}/{action}"))?;
        if (200..300).contains(&status) { Ok(()) } else { Err(format!("{action} {name}: {status} {text}").into()) }
    }

    /// Asks it to end and waits.
    pub(crate) fn stop(self) -> Result<()> {
        self.server.stop()
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// One request to the admin listener: status and body.
    pub(crate) fn ask(&self, method: &str, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.admin, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            self.admin
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer from the admin listener")?;
        Ok((super::http::status(head.as_bytes()), body.to_owned()))
    }
}

/// An `http` sink's table.
pub(crate) fn http_sink(name: &str, to: SocketAddr, concurrency: usize, more: &str) -> String {
    format!("[sinks.{name}]\ntype = \"http\"\nurl = \"http://{to}/fin\"\nconcurrency = {concurrency}\n{more}\n")
}

/// A `file` sink's table.
pub(crate) fn file_sink(name: &str, path: &Path, more: &str) -> String {
    format!("[sinks.{name}]\ntype = \"file\"\npath = \"{}\"\n{more}\n", path.display())
}

/// A loopback address that nobody listens on.
pub(crate) fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
