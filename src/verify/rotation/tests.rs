//! Rotation with real files, look by look, and once with the clock.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;

use super::{Look, MAX_FILE_BYTES, Problem, Watcher, parse, read, watch_every};
use crate::verify::{Keyring, Signature, sign};

const OLD: &str = "the old signing secret";
const NEW: &str = "the new signing secret";

struct Fixture {
    dir: TempDir,
    path: PathBuf,
    keyring: Arc<Keyring>,
    watcher: Watcher,
}

impl Fixture {
    /// A watcher that has not looked yet, of a file that is not there yet.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets");
        let keyring = Arc::new(Keyring::new(&[]));
        let watcher = Watcher::new(path.clone(), Arc::clone(&keyring));
        Self { dir, path, keyring, watcher }
    }

    /// A watcher that took the old secret.
    async fn with_old() -> Self {
        let mut fixture = Self::new();
        fixture.write(OLD);
        assert_eq!(fixture.look_twice().await, Look::Taken { secrets: 1, short: 0 });
        fixture
    }

    fn write(&self, content: impl AsRef<[u8]>) {
        fs::write(&self.path, content).unwrap();
    }

    async fn look(&mut self) -> Look {
        self.watcher.look().await
    }

    async fn look_twice(&mut self) -> Look {
        assert_eq!(self.look().await, Look::Nothing, "the first look at something new takes nothing");
        self.look().await
    }

    /// Which of the old and the new secret verify.
    fn verifying(&self) -> (bool, bool) {
        (verifies(&self.keyring, OLD), verifies(&self.keyring, NEW))
    }
}

fn verifies(keyring: &Keyring, secret: &str) -> bool {
    let signature = Signature::parse(sign(&secret.into(), b"{}").as_bytes()).unwrap();
    keyring.verify(&signature, Bytes::from_static(b"{}")).is_ok()
}

#[tokio::test]
async fn a_file_rewritten_in_place_takes_effect_and_the_old_secret_works_while_it_is_listed() {
    let mut it = Fixture::with_old().await;
    assert_eq!(it.verifying(), (true, false));
    it.write(format!("{NEW}\n{OLD}\n"));
    assert_eq!(it.look_twice().await, Look::Taken { secrets: 2, short: 0 });
    assert_eq!(it.verifying(), (true, true));
    it.write(format!("{NEW}\n"));
    assert_eq!(it.look_twice().await, Look::Taken { secrets: 1, short: 0 });
    assert_eq!(it.verifying(), (false, true));
    assert_eq!(it.look().await, Look::Nothing, "what is unchanged is not taken again");
}

#[tokio::test]
async fn a_file_renamed_over_the_former_one_takes_effect() {
    let mut it = Fixture::with_old().await;
    let next = it.dir.path().join("next");
    fs::write(&next, NEW).unwrap();
    fs::rename(&next, &it.path).unwrap();
    assert_eq!(it.look_twice().await, Look::Taken { secrets: 1, short: 0 });
    assert_eq!(it.verifying(), (false, true));
}

/// Kubernetes links the file through `..data`, a link to a directory, and renames a new link over that.
#[tokio::test]
async fn a_symbolic_link_swapped_as_kubernetes_does_takes_effect() {
    let mut it = Fixture::new();
    let at = |name: &str| it.dir.path().join(name);
    for (version, secret) in [("..v1", OLD), ("..v2", NEW)] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("secrets"), secret).unwrap();
    }
    let (data, next) = (at("..data"), at("..data_tmp"));
    symlink("..v1", &data).unwrap();
    symlink("..data/secrets", &it.path).unwrap();
    assert_eq!(it.look_twice().await, Look::Taken { secrets: 1, short: 0 });
    assert_eq!(it.verifying(), (true, false));
    symlink("..v2", &next).unwrap();
    fs::rename(&next, &data).unwrap();
    assert_eq!(it.look_twice().await, Look::Taken { secrets: 1, short: 0 });
    assert_eq!(it.verifying(), (false, true));
}

#[tokio::test]
async fn a_half_written_file_is_not_taken() {
    let mut it = Fixture::with_old().await;
    let mut file = fs::File::create(&it.path).unwrap();
    for part in NEW.as_bytes().chunks(5) {
        assert_eq!(it.look().await, Look::Nothing);
        assert_eq!(it.verifying(), (true, false));
        file.write_all(part).unwrap();
    }
    assert_eq!(it.look_twice().await, Look::Taken { secrets: 1, short: 0 });
    assert_eq!(it.verifying(), (false, true));
}

#[tokio::test]
async fn an_empty_file_keeps_the_last_good_secrets_and_says_so_once() {
    let mut it = Fixture::with_old().await;
    for content in ["", "\n", " \r\n\n"] {
        it.write(content);
        assert_eq!(it.look_twice().await, Look::Refused { problem: Problem::Empty, in_use: 1 }, "{content:?}");
        assert_eq!(it.look().await, Look::Nothing, "{content:?} is reported again");
        assert_eq!(it.verifying(), (true, false));
    }
}

#[tokio::test]
async fn an_endpoint_without_a_secret_yet_waits_quietly_until_the_file_is_filled() {
    let mut it = Fixture::new();
    for _ in 0..3 {
        assert_eq!(it.look().await, Look::Nothing, "while the file is missing");
    }
    it.write("");
    for _ in 0..3 {
        assert_eq!(it.look().await, Look::Nothing, "while the file is empty");
    }
    assert!(it.keyring.is_empty());
    it.write(NEW);
    assert_eq!(it.look_twice().await, Look::Taken { secrets: 1, short: 0 });
    assert_eq!(it.verifying(), (false, true));
}

#[tokio::test]
async fn a_broken_file_keeps_the_last_good_secrets_and_is_reported_once_per_change() {
    let mut it = Fixture::with_old().await;
    let large = "x".repeat(MAX_FILE_BYTES + 1);
    let broken: [(&[u8], Problem); 8] = [
        (b"\xff\xfea\0", Problem::NotUtf8),
        (b"a secret\n\nanother\n", Problem::EmptyLine(2)),
        (b"\na secret\n", Problem::EmptyLine(1)),
        (b"a secret\n  \nanother", Problem::EmptyLine(2)),
        (b"a\0 \0s\0", Problem::NotText(1)),
        (b"a secret\nwith\ttab", Problem::NotText(2)),
        ("\u{feff}a secret".as_bytes(), Problem::NotText(1)),
        (large.as_bytes(), Problem::TooLarge),
    ];
    for (content, problem) in broken {
        it.write(content);
        assert_eq!(it.look_twice().await, Look::Refused { problem, in_use: 1 });
        assert_eq!(it.look().await, Look::Nothing);
        assert_eq!(it.verifying(), (true, false));
    }
    it.write(NEW);
    assert_eq!(it.look_twice().await, Look::Taken { secrets: 1, short: 0 });
    assert_eq!(it.verifying(), (false, true));
}

#[tokio::test]
async fn a_file_that_goes_away_keeps_the_last_good_secrets_and_takes_effect_when_it_is_back() {
    let mut it = Fixture::with_old().await;
    fs::remove_file(&it.path).unwrap();
    let problem = Problem::Unreadable(io::ErrorKind::NotFound);
    assert_eq!(it.look_twice().await, Look::Refused { problem, in_use: 1 });
    assert_eq!(it.look().await, Look::Nothing);
    fs::create_dir(&it.path).unwrap();
    assert_eq!(it.look_twice().await, Look::Refused { problem: Problem::NotAFile, in_use: 1 });
    assert_eq!(it.verifying(), (true, false));
    fs::remove_dir(&it.path).unwrap();
    it.write(NEW);
    assert_eq!(it.look_twice().await, Look::Taken { secrets: 1, short: 0 });
    assert_eq!(it.verifying(), (false, true));
}

#[tokio::test]
async fn a_file_missing_for_one_look_only_is_no_news() {
    let mut it = Fixture::with_old().await;
    fs::remove_file(&it.path).unwrap();
    assert_eq!(it.look().await, Look::Nothing);
    it.write(OLD);
    assert_eq!(it.look().await, Look::Nothing);
    assert_eq!(it.look().await, Look::Nothing);
}

#[tokio::test]
async fn short_secrets_are_taken_and_counted() {
    let mut it = Fixture::new();
    it.write(format!("fifteen bytes..\nsixteen bytes...\n{OLD}"));
    assert_eq!(it.look_twice().await, Look::Taken { secrets: 3, short: 1 });
    assert!(verifies(&it.keyring, "fifteen bytes.."));
}

#[tokio::test]
async fn the_watch_itself_takes_a_change_without_being_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secrets");
    fs::write(&path, OLD).unwrap();
    let keyring = Arc::new(Keyring::new(&[]));
    let period = Duration::from_millis(2);
    let watch = tokio::spawn(watch_every(period, path.clone(), Arc::clone(&keyring), "fin".into()));
    for secret in [OLD, NEW] {
        fs::write(&path, secret).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !verifies(&keyring, secret) {
            assert!(Instant::now() < deadline, "the change was not taken");
            tokio::time::sleep(period).await;
        }
    }
    watch.abort();
    assert!(watch.await.unwrap_err().is_cancelled());
}

#[test]
fn line_ends_are_not_part_of_a_secret_and_all_else_is() {
    use secrecy::ExposeSecret as _;
    let secrets = |content: &str| -> Vec<String> {
        parse(content.as_bytes()).unwrap().iter().map(|it| it.expose_secret().to_owned()).collect()
    };
    assert_eq!(secrets("one"), ["one"]);
    assert_eq!(secrets("one\n"), ["one"]);
    assert_eq!(secrets("one\r\n\n"), ["one"]);
    assert_eq!(secrets("one\r\ntwo\r\n"), ["one", "two"]);
    assert_eq!(secrets(" one \n#two\nthrée"), [" one ", "#two", "thrée"]);
}

#[test]
fn a_file_of_the_largest_size_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secrets");
    fs::write(&path, "x".repeat(MAX_FILE_BYTES)).unwrap();
    assert_eq!(read(&path).unwrap().len(), 1);
    assert_eq!(read(&dir.path().join("none")).err(), Some(Problem::Unreadable(io::ErrorKind::NotFound)));
}
