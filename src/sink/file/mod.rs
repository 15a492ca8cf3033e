//! The `file` sink: one CloudEvents JSON object a line (see [`super::cloudevent`]), appended to a file that is rotated.
//!
//! `events.ndjson` is the newest file, `events.ndjson.1` the one before, up to `.N`. A file never grows beyond
//! `rotate_bytes`, unless it holds a single line that is longer; no line is split between two files.
//!
//! Invariants:
//! - When [`Batch::write`] returns `Ok`, its lines are on disk: the data synced, and the directory too if a file was
//!   created or renamed.
//! - When it returns an error, the file ends where it ended before, or where it was last rotated. What had been rotated
//!   is on disk and is not written again when the same deliveries come back.
//! - A crash can leave a torn end. It is cut off when the file is opened: its events come again, as their cursor had
//!   not moved. See [`mend`].
//! - The file may be moved, deleted or truncated by others between two batches; a new one is begun then.
//!
//! Files are created with mode 0600: bodies are customers' data.

pub mod mend;
mod rotate;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use super::cloudevent::append_json;
use super::{Batch, Delivery};
use crate::config::FileSink;

/// Bytes gathered before they are written; a batch that is longer takes several writes, and one sync.
const GATHER: usize = 4 << 20;

/// Appends events to a file and rotates it.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    rotate_bytes: u64,
    keep: u32,
    open: Option<Open>,
    lines: Vec<u8>,
    line: Vec<u8>,
    /// What of a batch that then failed is in a rotated file already.
    rotated: Vec<(u64, Option<Arc<str>>)>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Where the lines end that are on disk.
    len: u64,
    /// Bytes written behind that, and not yet synced.
    unsynced: u64,
    device: u64,
    inode: u64,
}

impl Archive {
    /// Opens the file, or creates it and the directories above it, and mends its end.
    ///
    /// # Errors
    /// What is wrong with the path, and what to do about it.
    pub fn open(config: &FileSink) -> Result<Self, String> {
        let mut archive = Self {
            path: config.path.clone(),
            rotate_bytes: config.rotate_bytes,
            keep: config.keep,
            open: None,
            lines: Vec::new(),
            line: Vec::new(),
            rotated: Vec::new(),
        };
        match archive.reopen() {
            Ok(_) => Ok(archive),
            Err(e) => Err(archive.describe("open", &e)),
        }
    }

    /// Makes sure that `self.open` is the file that `path` names, and that it ends where the last batch did; returns its
    /// length.
    fn reopen(&mut self) -> io::Result<u64> {
        if let Some(open) = &self.open {
            let unchanged = match fs::metadata(&self.path) {
                Ok(found) => (found.dev(), found.ino(), found.len()) == (open.device, open.inode, open.len),
                Err(e) if e.kind() == io::ErrorKind::NotFound => false,
                Err(e) => return Err(e),
            };
            if !unchanged {
                self.open = None;
            }
        }
        match &mut self.open {
            Some(open) => Ok(open.len),
            closed => Ok(closed.insert(open(&self.path)?).len),
        }
    }

    /// Appends `self.lines`, and if asked to syncs all since the last sync. After an error the file is as long as it was
    /// then, or closed.
    fn append(&mut self, sync: bool) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Err(io::Error::other("the file is not open")) };
        let mut written = open.file.write_all(&self.lines);
        open.unsynced += self.lines.len() as u64;
        self.lines.clear();
        if sync && open.unsynced > 0 {
            written = written.and_then(|()| open.file.sync_data());
        }
        if written.is_err() {
            // All of it is written anew later, so that even after a failed sync the pages are dirty again.
            open.unsynced = 0;
            if open.file.set_len(open.len).is_err() {
                self.open = None;
            }
        } else if sync {
            open.len += std::mem::take(&mut open.unsynced);
        }
        written
    }

    fn write_all(&mut self, deliveries: &[Delivery]) -> io::Result<()> {
        self.lines.clear();
        let mut len = self.reopen()?;
        let earlier = self.rotated.len();
        let mut first_unwritten = 0;
        for (i, delivery) in deliveries.iter().enumerate() {
            if self.rotated[..earlier].contains(&key(delivery)) {
                continue;
            }
            self.line.clear();
            append_json(&mut self.line, &delivery.stored.event);
            self.line.push(b'\n');
            let line_len = self.line.len() as u64;
            if len > 0 && len.saturating_add(line_len) > self.rotate_bytes {
                self.append(true)?;
                self.rotated.extend(deliveries[first_unwritten..i].iter().map(key));
                first_unwritten = i;
                self.open = None;
                rotate::rotate(&self.path, self.keep)?;
                len = self.reopen()?;
            }
            if self.lines.len() + self.line.len() > GATHER {
                self.append(false)?;
            }
            self.lines.extend_from_slice(&self.line);
            len += line_len;
        }
        self.append(true)?;
        self.rotated.clear();
        Ok(())
    }

    fn describe(&self, action: &str, error: &io::Error) -> String {
        let fix = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free space, it goes on by itself",
            io::ErrorKind::FileTooLarge => "; raise the limit on file sizes (ulimit -f), or lower rotate_bytes",
            io::ErrorKind::PermissionDenied => "; let this user write the file and its directory",
            io::ErrorKind::ReadOnlyFilesystem => "; choose a path on a writable volume",
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::InvalidData => {
                "; choose another path"
            }
            _ => "",
        };
        format!("cannot {action} {}: {error}{fix}", self.path.display())
    }
}

impl Batch for Archive {
    fn write(&mut self, deliveries: &[Delivery]) -> Result<(), String> {
        self.write_all(deliveries).map_err(|e| self.describe("write", &e))
    }
}

fn key(delivery: &Delivery) -> (u64, Option<Arc<str>>) {
    (delivery.stored.seq, delivery.replay.clone())
}

/// Opens or creates the file, with its directories, and cuts a torn end off.
fn open(path: &Path) -> io::Result<Open> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
    }
    let directory = rotate::directory(path);
    create_directories(directory)?;
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    // Also when it was there before: a crash may have come between its creation and this.
    rotate::sync_directory(directory)?;

    let found = file.metadata()?;
    let len = mend::sound_len(&mut file, found.len())?;
    if len < found.len() {
        warn!(
            path = %path.display(),
            cut_bytes = found.len() - len,
            "the file ended in the middle of a line, as after a crash: cut back to its last complete line; \
             what was cut is delivered again"
        );
        file.set_len(len)?;
        file.sync_data()?;
    }
    Ok(Open { file, len, unsynced: 0, device: found.dev(), inode: found.ino() })
}

/// Creates what is missing of `directory`, each step durably.
fn create_directories(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = rotate::directory(directory);
    create_directories(parent)?;
    match fs::create_dir(directory) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => rotate::sync_directory(parent),
    }
}

#[cfg(test)]
mod tests;
