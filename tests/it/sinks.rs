//! The sinks against real sockets and files. What they write is tested beside their code, byte for byte.

mod file;
mod http;
mod tls;

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use finhook::event::{Event, Kind, Stored};
use finhook::sink::Delivery;
use finhook::verify::{Keyring, Signature, sign};

/// What `$FINHOOK_TEST_CHILD` holds in a process that [`in_child`] started.
const CHILD: &str = "FINHOOK_TEST_CHILD";

/// An event as it comes in by webhook.
fn event(body: &str, content_type: Option<&str>) -> Event {
    let secret = "a signing secret of some length".into();
    let header = sign(&secret, body.as_bytes());
    let signature = Signature::parse(header.as_bytes()).unwrap();
    let verified = Keyring::new(&[secret]).verify(&signature, Bytes::copy_from_slice(body.as_bytes())).unwrap();
    let event = Event::receive(
        verified,
        "fin".into(),
        1_737_712_800_456,
        i64::MAX,
        content_type.map(Into::into),
        Some(header.into()),
    );
    assert_eq!(event.kind, Kind::Event);
    event
}

fn delivery(body: &str) -> Delivery {
    numbered(1, body)
}

fn numbered(seq: u64, body: &str) -> Delivery {
    Delivery {
        stored: Arc::new(Stored { seq, event: event(body, Some("application/json")) }),
        attempt: 1,
        replay: None,
    }
}

/// Runs the test of that name once more, in a process of its own begun by `command` (or by nothing), and returns
/// `None`; in that process, returns the directory it was given.
///
/// For what is a process's own: its environment, its mounts.
pub(crate) fn in_child(test: &str, directory: &std::path::Path, mut command: Command) -> Option<PathBuf> {
    if let Some(directory) = env::var_os(CHILD) {
        return Some(directory.into());
    }
    let output = command
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, directory)
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed:\n{text}");
    assert!(text.contains("1 passed"), "the test is not called {test}:\n{text}");
    None
}

/// For [`in_child`]: with mounts of its own, which `script` makes.
pub(crate) fn in_own_mounts(script: &str) -> Command {
    let id = Command::new("id").arg("-u").output().unwrap();
    let mut command = Command::new("unshare");
    if id.stdout != b"0\n" {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--", "sh", "-c", &format!("{script} && exec \"$@\""), "sh"]);
    command
}
