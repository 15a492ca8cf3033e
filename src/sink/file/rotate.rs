//! Rotation: `events.ndjson` becomes `.1`, `.1` becomes `.2`, and so on up to `.N`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Moves `path` out of the way and drops what is beyond the newest `keep` rotated files. The new file's creation,
/// which follows, makes both durable.
///
/// A crash or an error in between leaves a gap in the numbers and loses nothing: the next rotation fills it.
pub(super) fn rotate(path: &Path, keep: u32) -> io::Result<()> {
    // Files move up only as far as the first free number; if there is none, the oldest is replaced.
    let mut last = 1;
    while last < keep && exists(&numbered(path, last))? {
        last += 1;
    }
    for number in (1..last).rev() {
        fs::rename(numbered(path, number), numbered(path, number + 1))?;
    }
    match fs::rename(path, numbered(path, 1)) {
        // Someone else took it away: there is nothing to rotate.
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    // After `keep` was made smaller there are more.
    let mut beyond = keep.saturating_add(1);
    while exists(&numbered(path, beyond))? {
        fs::remove_file(numbered(path, beyond))?;
        beyond = beyond.saturating_add(1);
    }
    Ok(())
}

/// Makes creations, renames and removals in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The directory that `path` is in.
pub(super) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// `events.ndjson.1` for `events.ndjson` and 1.
pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn exists(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}
