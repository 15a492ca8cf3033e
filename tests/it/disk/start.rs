//! What can't be opened is refused at the start, in one message that names the path and the fix.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::ARCHIVE;
use crate::sinks::{in_child, in_own_mounts};
use crate::support::process::Place;

/// It ends at once with exit code 1 and one message with all of `words` in it.
fn assert_refused(place: &Place, by: Command, words: &[&str]) {
    let ended = place.start_under(by).expect_err("it serves");
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let errors = ended.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    for word in words {
        assert!(errors[0].contains(word), "no {word:?} in {errors:?}");
    }
}

/// `exec`s what follows.
fn plainly() -> Command {
    Command::new("env")
}

/// As a user who owns nothing. Who is not root is such a user already.
fn as_nobody() -> Command {
    if !rustix::process::geteuid().is_root() {
        return plainly();
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command
}

#[test]
fn a_read_only_data_directory_is_refused_with_the_fix() {
    let directory = tempfile::tempdir().unwrap();
    let name = "disk::start::a_read_only_data_directory_is_refused_with_the_fix";
    let script =
        "cd \"$FINHOOK_TEST_CHILD\" && mkdir data && mount --bind data data && mount -o remount,bind,ro data && cd /";
    let Some(folder) = in_child(name, directory.path(), in_own_mounts(script)) else { return };
    let place = Place::new(&folder, ARCHIVE);
    let fix = "journal.path must name a file in a folder that finhook may write to";
    assert_refused(&place, plainly(), &["data/finhook.db", "Read-only file system", fix]);
    let place =
        Place::new(&folder, "[journal]\npath = \"finhook.db\"\n[sinks.archive]\ntype = \"file\"\npath = \"data/a\"\n");
    assert_refused(&place, plainly(), &["sinks.archive", "data/a", "choose a path on a writable volume"]);
}

#[test]
fn missing_rights_are_refused_with_the_fix() {
    let folder = tempfile::tempdir().unwrap();
    let mode =
        |path: &str, mode| fs::set_permissions(folder.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
    mode("", 0o755);
    fs::create_dir(folder.path().join("data")).unwrap();
    mode("data", 0o555);
    let place = Place::new(folder.path(), ARCHIVE);
    mode("finhook.toml", 0o644);
    let fix = "journal.path must name a file in a folder that finhook may write to";
    assert_refused(&place, as_nobody(), &["data/finhook.db", "Permission denied", fix]);

    fs::create_dir(folder.path().join("open")).unwrap();
    mode("open", 0o777);
    let place = Place::new(
        folder.path(),
        "[journal]\npath = \"open/finhook.db\"\n[sinks.archive]\ntype = \"file\"\npath = \"data/events.ndjson\"\n",
    );
    mode("finhook.toml", 0o644);
    let fix = "let this user write the file and its directory";
    assert_refused(&place, as_nobody(), &["sinks.archive", "data/events.ndjson", "Permission denied", fix]);
}

#[test]
fn a_directory_where_a_file_should_be_is_refused_with_the_fix() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path(), ARCHIVE);
    fs::create_dir_all(place.path("data/finhook.db")).unwrap();
    assert_refused(&place, plainly(), &["data/finhook.db", "is a directory", "journal.path must name a file"]);
    fs::remove_dir(place.path("data/finhook.db")).unwrap();
    fs::create_dir_all(place.path("archive/events.ndjson")).unwrap();
    assert_refused(&place, plainly(), &["sinks.archive", "archive/events.ndjson", "choose another path"]);
    // And a file where a directory should be.
    fs::remove_dir_all(place.path("archive")).unwrap();
    fs::write(place.path("archive"), "").unwrap();
    assert_refused(&place, plainly(), &["sinks.archive", "archive", "choose another path"]);
}

#[test]
fn a_file_that_is_no_journal_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path(), ARCHIVE);
    fs::create_dir(place.path("data")).unwrap();
    let theirs = "some other program's file, which is long enough to be read as a header".repeat(20);
    fs::write(place.path("data/finhook.db"), &theirs).unwrap();
    assert_refused(&place, plainly(), &["data/finhook.db is not a finhook journal", "point journal.path elsewhere"]);
    assert_eq!(fs::read_to_string(place.path("data/finhook.db")).unwrap(), theirs);
}
