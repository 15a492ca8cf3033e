//! What this machine may refuse or give away: paths that can't be written, and secrets that others can read.
//!
//! Rights are looked at; nothing is opened or created.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::across::absolute;
use super::error::one_line;
use super::tree::{BUILT_IN, Field, VARIABLE};
use super::{Config, SinkKind};

/// The last parts of the names of keys that are secrets, beside those of headers.
const SECRETS: [&str; 8] =
    ["token", "reader_token", "signing_secrets", "client_secret", "api_key", "signing_secret", "tls_key", "client_key"];

/// A file that holds a secret: of `key_file`, or the configuration file in which `key` is set.
#[derive(Debug, Clone)]
pub(super) struct Secret {
    key: String,
    origin: String,
    file: PathBuf,
}

impl Secret {
    pub(super) fn of(field: &Field) -> Option<Self> {
        let (key, origin) = (field.key.clone(), field.origin.clone());
        let last = key.rsplit('.').next().unwrap_or_default();
        let file = if SECRETS.contains(&last) || key.contains(".headers.") {
            let in_a_file = !field.is_empty() && origin != BUILT_IN && !origin.starts_with(VARIABLE);
            origin.rsplit_once(", line ").filter(|_| in_a_file)?.0
        } else if last.strip_suffix("_file").is_some_and(|twin| SECRETS.contains(&twin)) {
            field.text().ok().filter(|file| !file.is_empty())?
        } else {
            return None;
        };
        Some(Self { file: file.into(), key, origin })
    }
}

/// One line for each path that can't be written, and for each file through which others can read a secret.
pub(super) fn warnings(config: &Config, secrets: &[Secret]) -> Vec<String> {
    let sinks = config.sinks.iter().filter_map(|(name, sink)| match &sink.kind {
        SinkKind::File(file) => Some((format!("sinks.{name}.path"), &file.path)),
        _ => None,
    });
    let written = std::iter::once(("journal.path".to_owned(), &config.journal.path)).chain(sinks);
    let unwritable = written.filter_map(|(key, path)| Some(format!("{key}: {}", why_not_writable(path)?)));
    let mut open: Vec<&Secret> = secrets.iter().filter(|secret| others_can_read(&secret.file)).collect();
    open.sort_by(|a, b| a.file.cmp(&b.file));
    open.dedup_by(|a, b| a.file == b.file);
    let readable = open.into_iter().map(|Secret { key, origin, file }| {
        let file = file.display();
        format!("{key} ({origin}): every user of this machine can read the secret in {file}; run: chmod o-r {file}")
    });
    unwritable.chain(readable).map(|line| one_line(&line)).collect()
}

/// Why a file can't be written, or made together with the folders that are missing.
fn why_not_writable(file: &Path) -> Option<String> {
    let file = absolute(file);
    if file.is_dir() {
        return Some(format!("{} is a folder; name a file", file.display()));
    }
    // Other files come to stand beside it.
    let folder = file.ancestors().skip(1).find(|folder| std::fs::metadata(folder).is_ok())?;
    if !folder.is_dir() {
        return Some(format!("{} is not a folder; name another path", folder.display()));
    }
    let rights = [(&*file, Access::WRITE_OK), (folder, Access::WRITE_OK | Access::EXEC_OK)];
    let mut there = rights.into_iter().filter(|(at, _)| at.exists());
    let (at, why) = there.find_map(|(at, access)| Some((at, rustix::fs::access(at, access).err()?)))?;
    let (at, why) = (at.display(), std::io::Error::from(why));
    Some(format!("{at} can't be written by this user: {why}; change its rights, or name another path"))
}

/// Whether any user may read the file, and enter every folder on the way to it.
fn others_can_read(file: &Path) -> bool {
    let allowed = |path: &Path, bit| std::fs::metadata(path).is_ok_and(|data| data.permissions().mode() & bit != 0);
    let file = std::fs::canonicalize(file).unwrap_or_else(|_| absolute(file));
    allowed(&file, 0o004) && file.ancestors().skip(1).all(|folder| allowed(folder, 0o001))
}
