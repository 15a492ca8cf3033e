//! Keeps a keyring up to date with its `signing_secrets_file`.
//!
//! The file holds one secret a line, in UTF-8, the current one first. Line ends (LF or CR LF) are not part of a secret, all
//! else is; how many there are at the end does not matter.
//! Docker and Kubernetes mount secrets as files, and operators edit them in place, rename a new file over them, or, as
//! Kubernetes does, swap a symbolic link somewhere on the path. So the file is not watched for notifications: its
//! content is read every second, by its path, and compared.
//!
//! Invariants:
//! - A content counts only when two reads a second apart gave the same: one that is being written is not taken.
//! - What can't be read or makes no sense leaves the secrets in use as they are. It is reported once, until it changes.
//! - An empty or missing file never takes secrets away. While there are none yet, the endpoint waits for it quietly.

use std::convert::Infallible;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::{Keyring, SHORT_SECRET};

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 64 * 1024;

/// Time between two reads.
const PERIOD: Duration = Duration::from_secs(1);

/// What is wrong with a file of signing secrets, and what to do. Holds nothing of its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It can't be read.
    #[error("it cannot be read ({0}): make it readable for the user that finhook runs as")]
    Unreadable(io::ErrorKind),
    /// It is a directory, a pipe or a device.
    #[error("it is not a regular file: name a file with one secret a line")]
    NotAFile,
    /// It is larger than [`MAX_FILE_BYTES`].
    #[error("it is larger than 64 KiB: put nothing but secrets into it, one a line")]
    TooLarge,
    /// It is not UTF-8.
    #[error("it is not UTF-8: write the secrets as plain text, one a line")]
    NotUtf8,
    /// It holds a byte order mark or a control character other than a line's end.
    #[error("line {0} holds a character that is not text: write the secrets as plain text, without a byte order mark")]
    NotText(usize),
    /// It has an empty line among others.
    #[error("line {0} is empty: remove it, each line must hold a secret")]
    EmptyLine(usize),
    /// It holds nothing at all.
    #[error("it is empty: write the endpoint's signing secret into it")]
    Empty,
}

impl Problem {
    /// Whether it only means that nobody has written the secret yet: Fin shows it once the callback URL is saved.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        matches!(self, Self::Empty | Self::Unreadable(io::ErrorKind::NotFound))
    }
}

/// Keeps the keyring up to date with the file, for ever; dropping the future ends it. Logs what it takes and refuses.
pub async fn watch(path: PathBuf, keyring: Arc<Keyring>, endpoint: Arc<str>) -> Infallible {
    watch_every(PERIOD, path, keyring, endpoint).await
}

/// Reads the secrets of a file once, with blocking I/O.
///
/// # Errors
/// What is wrong with the file.
pub fn read(path: &Path) -> Result<Vec<SecretString>, Problem> {
    parse(&content(path)?)
}

async fn watch_every(period: Duration, path: PathBuf, keyring: Arc<Keyring>, endpoint: Arc<str>) -> Infallible {
    let mut watcher = Watcher::new(path, keyring);
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let look = watcher.look().await;
        report(&endpoint, &watcher.path, look);
    }
}

fn report(endpoint: &str, path: &Path, look: Look) {
    let path = path.display();
    match look {
        Look::Nothing => {}
        Look::Taken { secrets, short } => {
            info!(endpoint, %path, secrets, "signing secrets read from the file are in use");
            if short > 0 {
                warn!(endpoint, %path, short, "signing secrets under {SHORT_SECRET} bytes are easy to guess: use longer ones");
            }
        }
        Look::Refused { problem, in_use: 0 } => {
            warn!(endpoint, %path, %problem, "the endpoint still has no signing secret and answers 503: repair the file");
        }
        Look::Refused { problem, in_use } => {
            warn!(endpoint, %path, %problem, in_use, "the file was changed, but the former signing secrets stay in use: repair it");
        }
    }
}

/// What a look at the file led to.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// Nothing new, or nothing yet that was there twice.
    Nothing,
    /// The file's secrets are in use now.
    Taken { secrets: usize, short: usize },
    /// The secrets in use stay, as many as there are.
    Refused { problem: Problem, in_use: usize },
}

/// What was seen of the file: its content's hash, or why there is none.
type Seen = Result<[u8; 32], Problem>;

struct Watcher {
    path: PathBuf,
    keyring: Arc<Keyring>,
    last: Option<Seen>,
    settled: Option<Seen>,
}

impl Watcher {
    fn new(path: PathBuf, keyring: Arc<Keyring>) -> Self {
        Self { path, keyring, last: None, settled: None }
    }

    /// Reads the file once and takes its secrets if they are new and were there the last time, too.
    async fn look(&mut self) -> Look {
        let path = self.path.clone();
        let content = match tokio::task::spawn_blocking(move || content(&path)).await {
            Ok(content) => content,
            Err(_) => Err(Problem::Unreadable(io::ErrorKind::Other)),
        };
        let seen = content.as_deref().map(|bytes| Sha256::digest(bytes).into()).map_err(Problem::clone);
        let seen = Some(seen);
        if self.last != seen {
            self.last = seen;
            return Look::Nothing;
        }
        if self.settled == seen {
            return Look::Nothing;
        }
        self.settled = seen;
        match content.and_then(|bytes| parse(&bytes)) {
            Ok(secrets) => {
                self.keyring.replace(&secrets);
                let short = secrets.iter().filter(|it| it.expose_secret().len() < SHORT_SECRET).count();
                Look::Taken { secrets: secrets.len(), short }
            }
            Err(problem) if problem.is_waiting() && self.keyring.is_empty() => Look::Nothing,
            Err(problem) => Look::Refused { problem, in_use: self.keyring.len() },
        }
    }
}

/// The file's bytes, at most [`MAX_FILE_BYTES`] of them; wiped from memory after use.
fn content(path: &Path) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let unreadable = |error: io::Error| Problem::Unreadable(error.kind());
    // Before opening: to open a pipe would wait for a writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Problem::NotAFile);
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES + 1));
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > MAX_FILE_BYTES { Err(Problem::TooLarge) } else { Ok(bytes) }
}

/// The secrets in a file's content.
fn parse(content: &[u8]) -> Result<Vec<SecretString>, Problem> {
    let text = str::from_utf8(content).map_err(|_| Problem::NotUtf8)?.trim_end_matches(['\r', '\n']);
    if text.trim().is_empty() {
        return Err(Problem::Empty);
    }
    let secret = |(at, line): (usize, &str)| {
        if line.trim().is_empty() {
            Err(Problem::EmptyLine(at + 1))
        } else if line.contains(|char: char| char.is_control() || char == '\u{feff}') {
            Err(Problem::NotText(at + 1))
        } else {
            Ok(line.into())
        }
    };
    text.lines().enumerate().map(secret).collect()
}

#[cfg(test)]
mod tests;
