//! What no section can see alone: paths, files and addresses that two of them would use.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

use super::tree::Field;
use super::{Endpoint, Error};

/// What was seen so far, each with its key and origin.
#[derive(Default)]
pub(super) struct Seen {
    listeners: Vec<(SocketAddr, String)>,
    public_paths: BTreeMap<String, String>,
    journal: Option<(PathBuf, String)>,
    sink_files: Vec<(PathBuf, u32, String)>,
}

impl Seen {
    /// Refuses an address that another listener takes. Port 0 is never the same.
    pub(super) fn listener(&mut self, bind: &Field) -> Result<(), Error> {
        let address = bind.address()?;
        for (other, named) in &self.listeners {
            let overlap = address.ip() == other.ip() || address.ip().is_unspecified() || other.ip().is_unspecified();
            if address.port() != 0 && address.port() == other.port() && overlap {
                return Err(bind.error(format!("{address} is taken by {named}"), "use another port"));
            }
        }
        self.listeners.push((address, named(&bind.key, &bind.origin)));
        Ok(())
    }

    /// Refuses a path of the public listener that an endpoint or `server.ready_path` has.
    pub(super) fn public_path(&mut self, path: &str, key: &str, origin: &str) -> Result<(), Error> {
        match self.public_paths.insert(path.to_owned(), named(key, origin)) {
            None => Ok(()),
            Some(other) => {
                let problem = format!("is taken by {other}");
                Err(Error::new(key, origin, problem, "give each a path of its own"))
            }
        }
    }

    pub(super) fn journal(&mut self, path: &Field) -> Result<(), Error> {
        let fix = "name the file that events are stored in";
        if path.text()?.is_empty() {
            return Err(path.error("is empty", fix));
        }
        self.journal = Some((absolute(Path::new(path.text()?)), named(&path.key, &path.origin)));
        Ok(())
    }

    /// Refuses a file that the journal or another sink writes, its rotated files included.
    pub(super) fn sink_file(&mut self, path: &Field, keep: u32) -> Result<(), Error> {
        let file = absolute(Path::new(path.text()?));
        let clash = |other: &str| {
            let problem = format!("would write a file that belongs to {other}");
            Err(path.error(problem, "give each sink a file of its own"))
        };
        if let Some((journal, named)) = &self.journal {
            // The store keeps more files beside its own, all of whose names begin with it.
            let beside = file.to_string_lossy().starts_with(&*journal.to_string_lossy());
            if beside || is_rotated(journal, &file, keep) {
                return clash(named);
            }
        }
        for (other, other_keep, named) in &self.sink_files {
            if &file == other || is_rotated(&file, other, *other_keep) || is_rotated(other, &file, keep) {
                return clash(named);
            }
        }
        self.sink_files.push((file, keep, named(&path.key, &path.origin)));
        Ok(())
    }
}

/// The fix for a name that is no endpoint's.
pub(super) fn use_one_of(endpoints: &BTreeMap<String, Endpoint>) -> String {
    let names: Vec<_> = endpoints.keys().map(String::as_str).collect();
    format!("use one of: {}", names.join(", "))
}

fn named(key: &str, origin: &str) -> String {
    format!("{key} ({origin})")
}

/// Whether `file` is one of the rotated files `of.1` … `of.keep`.
fn is_rotated(file: &Path, of: &Path, keep: u32) -> bool {
    let (file, of) = (file.to_string_lossy(), of.to_string_lossy());
    let number = file.strip_prefix(&*of).and_then(|rest| rest.strip_prefix('.'));
    number.and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| (1..=keep).contains(&n))
}

/// The path from the root, with `.` and `..` resolved by name alone: files need not be there yet.
pub(super) fn absolute(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ways_of_writing_a_path_are_one_file() {
        let cwd = absolute(Path::new("."));
        assert_eq!(absolute(Path::new("a/../b/./c")), cwd.join("b/c"));
        assert_eq!(absolute(Path::new("/a//b/../../c")), Path::new("/c"));
        assert_eq!(absolute(Path::new("/../..")), Path::new("/"));
    }

    #[test]
    fn rotated_files_are_those_up_to_keep() {
        let of = Path::new("/d/e.ndjson");
        assert!(is_rotated(Path::new("/d/e.ndjson.1"), of, 10));
        assert!(is_rotated(Path::new("/d/e.ndjson.10"), of, 10));
        for other in ["/d/e.ndjson", "/d/e.ndjson.0", "/d/e.ndjson.11", "/d/e.ndjson.x", "/d/e.ndjson1"] {
            assert!(!is_rotated(Path::new(other), of, 10), "{other}");
        }
    }
}
