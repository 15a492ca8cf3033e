//! The real program as a process of its own, in a folder of its own: started, spoken to over sockets, killed.
//!
//! Blocking on purpose: what happens here is a sequence of steps. Everything it waits for has a deadline.

use std::collections::HashSet;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::SystemTime;

use finhook::verify::sign;
use serde_json::Value;
use tempfile::TempDir;

use super::SECRET;
use super::command::Sandbox;
use super::raw::Raw;
use super::wait::{PATIENCE, until};

/// A folder with a configuration, in which finhook runs.
#[derive(Debug)]
pub struct Place(Sandbox);

impl Place {
    /// In an existing folder; the journal is `data/finhook.db` in it unless `settings` (TOML) say otherwise. Listeners get any
    /// port, and there is no sink but those in `settings`.
    pub fn new(folder: &Path, settings: &str) -> Self {
        Self::set_up(Sandbox::within(folder), settings)
    }

    /// The same in a folder of its own.
    pub fn temporary(settings: &str) -> Self {
        Self::set_up(Sandbox::new(), settings)
    }

    fn set_up(sandbox: Sandbox, settings: &str) -> Self {
        let journal = if settings.contains("[journal]") { "" } else { "[journal]\npath = \"data/finhook.db\"\n" };
        let toml = format!(
            "[server]\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n[endpoints.fin]\npath = \"/fin\"\n\
             signing_secrets = [\"{SECRET}\"]\n[sinks.stdout]\nenabled = false\n{journal}{settings}"
        );
        Self(sandbox.file("finhook.toml", toml).var("FINHOOK_CONFIG", "finhook.toml"))
    }

    /// Sets the variable `FINHOOK__NAME`, which goes over the configuration.
    pub fn var(self, name: &str, value: &str) -> Self {
        Self(self.0.var(&format!("FINHOOK__{name}"), value))
    }

    /// The folder, and the environment with the configuration.
    pub fn sandbox(&self) -> &Sandbox {
        &self.0
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// Starts it and waits until it listens.
    pub fn start(&self) -> Finhook {
        self.start_by(Command::new(env!("CARGO_BIN_EXE_finhook"))).unwrap_or_else(|ended| panic!("{ended:?}"))
    }

    /// The same by way of another program, which must become finhook (`exec`): it gets finhook's path as an argument.
    pub fn start_under(&self, mut wrapper: Command) -> Result<Finhook, Ended> {
        wrapper.arg(env!("CARGO_BIN_EXE_finhook"));
        self.start_by(wrapper)
    }

    /// Runs another command of finhook's with the same configuration: what it printed.
    pub fn run(&self, arguments: &[&str]) -> String {
        let done = self.0.run(arguments);
        assert_eq!(done.code, 0, "{arguments:?}: {}", done.stderr);
        done.stdout
    }

    fn start_by(&self, mut command: Command) -> Result<Finhook, Ended> {
        self.0.enter(command.arg("serve"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut finhook = Finhook {
            printed: Output::of(child.stdout.take().unwrap()),
            log: Output::of(child.stderr.take().unwrap()),
            child,
            public: nowhere,
            admin: nowhere,
            _folder: self.0.held(),
        };
        let (mut listening, mut over) = (None, None);
        until("finhook listens", || {
            listening = finhook.logged("\"listening\"");
            over = finhook.child.try_wait().unwrap();
            listening.is_some() || over.is_some()
        });
        let Some(line) = listening else { return Err(finhook.ended(over.unwrap())) };
        let line: Value = serde_json::from_str(&line).unwrap();
        let address = |name: &str| line[name].as_str().unwrap().parse().unwrap();
        (finhook.public, finhook.admin) = (address("public"), address("admin"));
        Ok(finhook)
    }
}

/// A process that is over.
#[derive(Debug)]
pub struct Ended {
    /// How it ended; `code()` is `None` after a signal.
    pub status: ExitStatus,
    /// What it printed on stdout.
    pub printed: Vec<String>,
    /// Its log.
    pub log: Vec<String>,
}

impl Ended {
    /// The texts of its errors, from `error!` lines and from lines that are no JSON.
    pub fn errors(&self) -> Vec<String> {
        let error = |line: &String| match serde_json::from_str::<Value>(line) {
            Ok(json) if json["level"] == "ERROR" => Some(line.clone()),
            Ok(_) => None,
            Err(_) => Some(line.clone()),
        };
        self.log.iter().filter_map(error).collect()
    }
}

/// A running finhook; killed when it is dropped.
#[derive(Debug)]
pub struct Finhook {
    child: Child,
    printed: Output,
    log: Output,
    /// Its public listener.
    pub public: SocketAddr,
    /// Its admin listener.
    pub admin: SocketAddr,
    _folder: Option<Arc<TempDir>>,
}

impl Finhook {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// The first line of its log so far that has this in it.
    pub fn logged(&self, text: &str) -> Option<String> {
        self.log().into_iter().find(|line| line.contains(text))
    }

    /// A new connection to its public listener, for any bytes.
    pub async fn connect(&self) -> Raw {
        Raw::connect(self.public).await
    }

    /// Resident memory, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it with SIGTERM.
    pub fn stop(self) -> Ended {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let mut status = None;
        until("the process's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        self.ended(status.unwrap())
    }

    fn ended(&mut self, status: ExitStatus) -> Ended {
        Ended { status, printed: self.printed.all(), log: self.log.all() }
    }

    /// Asks the admin listener.
    pub fn admin_get(&self, target: &str) -> Answer {
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        Client::new(self.admin).request(&head, &[]).unwrap()
    }

    /// What `/readyz` answers.
    pub fn ready(&self) -> u16 {
        self.admin_get("/readyz").status
    }

    /// Posts an event on a connection of its own.
    pub fn post(&self, body: &str) -> io::Result<Answer> {
        Client::new(self.public).post(body)
    }
}

impl Drop for Finhook {
    fn drop(&mut self) {
        // Fails when it is over already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines that a process writes, read as they come.
#[derive(Debug)]
struct Output {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn of(pipe: impl io::Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                kept.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Self { lines, reader: Some(reader) }
    }

    /// So far.
    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// To its end.
    fn all(&mut self) -> Vec<String> {
        self.reader.take().unwrap().join().unwrap();
        self.lines()
    }
}

/// Event `number` of a conversation, made now; `padding` bytes longer than need be.
pub fn body(conversation: &str, number: u64, padding: usize) -> String {
    let now = humantime::format_rfc3339_millis(SystemTime::now());
    let text = "x".repeat(padding);
    format!(
        r#"{{"event_name":"fin_replied","conversation_id":"{conversation}","user_id":"{number}","status":"complete","created_at_ms":"{now}","message":{{"id":"{conversation}-{number}","author":"fin","body":"<p>{text}</p>","timestamp_ms":"{now}"}}}}"#
    )
}

/// An HTTP/1.1 client on one connection, which is made anew when it was lost.
#[derive(Debug)]
pub struct Client {
    addr: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The id of the event that it acknowledges.
    pub fn id(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        let json: Value = serde_json::from_str(&self.body).unwrap();
        assert!(["accepted", "duplicate"].contains(&json["outcome"].as_str().unwrap()), "{self:?}");
        json["id"].as_str().unwrap().to_owned()
    }

    /// Checks that it is a refusal for now: 503 that says when to come again.
    pub fn assert_unavailable(&self) {
        assert_eq!(self.status, 503, "{self:?}");
        assert!(self.head.to_ascii_lowercase().contains("\r\nretry-after: "), "{self:?}");
    }
}

impl Client {
    /// Connects with the first request.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, stream: None }
    }

    /// Posts a signed event, or any other bytes.
    pub fn post(&mut self, body: impl AsRef<[u8]>) -> io::Result<Answer> {
        let body = body.as_ref();
        let signature = sign(&SECRET.into(), body);
        let head = format!(
            "POST /fin HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             X-Fin-Agent-API-Webhook-Signature: {signature}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.request(&head, body)
    }

    /// Sends a request and reads its answer.
    pub fn request(&mut self, head: &str, body: &[u8]) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect_timeout(&self.addr, PATIENCE)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                BufReader::new(stream)
            }
        };
        stream.get_mut().write_all(head.as_bytes())?;
        stream.get_mut().write_all(body)?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body)?;
        if !lower.contains("\r\nconnection: close") {
            self.stream = Some(stream);
        }
        let status = head[9..12].parse().unwrap();
        Ok(Answer { status, head, body: String::from_utf8(body).unwrap() })
    }
}

/// The events in an archive, the oldest first: (conversation, id). Panics when a line is torn or no JSON.
pub fn archived(newest: &Path) -> Vec<(String, String)> {
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", newest.display()));
    let count = (1..).find(|number| !numbered(*number).exists()).unwrap() - 1;
    let files = (1..=count).rev().map(numbered).chain([newest.to_owned()]);
    let mut events = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{} ends with a torn line", file.display());
        for line in text.lines() {
            let json: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("a torn line: {error}: {line}"));
            let field = |name: &str| json[name].as_str().unwrap().to_owned();
            events.push((field("subject"), field("id")));
        }
    }
    events
}

/// Waits until all of `ids` stand in an archive, and returns it. A line may be half written at any moment before.
pub fn wait_for_archive(newest: &Path, ids: &[String]) -> Vec<(String, String)> {
    until("every acknowledged event in the archive", || {
        let text = fs::read_to_string(newest).unwrap_or_default();
        // The first "id" in a line is the event's own.
        let id = |line: &'_ str| Some(line.split_once("\"id\":\"")?.1.get(..36)?.to_owned());
        let there: HashSet<String> = text.lines().filter_map(id).collect();
        there.is_empty() == ids.is_empty() && ids.iter().all(|id| there.contains(id))
    });
    archived(newest)
}
