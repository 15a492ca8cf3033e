//! What `strace` recorded of a run: its writes and syncs of the journal's files, and its answers.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::Command;

use crate::support::process::{Finhook, Place};
use crate::support::wait::until;

/// One step of the run, in the order in which they were done.
#[derive(Debug)]
pub(super) enum Step {
    /// The file was created; its name is durable after a sync of its folder.
    Create(String),
    Write {
        file: String,
        at: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: String,
        len: usize,
    },
    /// Of a file, covering what was done before the step of that number.
    Sync {
        file: String,
        began: usize,
    },
    /// An answer 200 was sent: the id in it.
    Ack(String),
}

/// Starts a finhook whose calls are recorded in `trace`.
pub(super) fn start(place: &Place, trace: &Path) -> Finhook {
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-q", "-y", "-s", "200000", "-o"]).arg(trace);
    strace.args(["-e", "trace=openat,lseek,write,pwrite64,ftruncate,fdatasync,fsync,sendto,writev"]);
    place.start_under(strace).unwrap()
}

/// Kills it, and returns what was recorded.
pub(super) fn kill(finhook: Finhook, trace: &Path) -> Vec<u8> {
    let id = finhook.id().to_string();
    finhook.kill();
    until("the end of the trace", || ends_with_the_end_of(trace, &id));
    fs::read(trace).unwrap()
}

/// Whether the last lines of the trace tell of the end of that process. Its calls are all there then.
fn ends_with_the_end_of(trace: &Path, process: &str) -> bool {
    let mut file = File::open(trace).unwrap();
    let len = file.metadata().unwrap().len();
    file.seek(SeekFrom::Start(len.saturating_sub(4096))).unwrap();
    let mut tail = String::new();
    file.read_to_string(&mut tail).unwrap();
    let end =
        |line: &str| line.split_whitespace().next() == Some(process) && line.ends_with("+++ killed by SIGKILL +++");
    tail.lines().any(end)
}

/// The calls in a trace, each on one line with its result; and how many calls were done before it began.
fn calls(trace: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut unfinished: HashMap<&[u8], (usize, Vec<u8>)> = HashMap::new();
    let mut calls: Vec<(usize, Vec<u8>)> = Vec::new();
    for line in trace.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii_start();
        let Some(space) = line.iter().position(|byte| *byte == b' ') else { continue };
        let (pid, rest) = (&line[..space], line[space..].trim_ascii_start());
        if let Some(begun) = rest.strip_suffix(b" <unfinished ...>") {
            unfinished.insert(pid, (calls.len(), begun.to_vec()));
        } else if rest.starts_with(b"<... ") {
            let Some((began, mut call)) = unfinished.remove(pid) else { continue };
            let end = find(rest, b"resumed>").unwrap() + b"resumed>".len();
            call.extend_from_slice(&rest[end..]);
            calls.push((began, call));
        } else if rest.starts_with(b"+++ ") {
            // Killed within a call that was done already, e.g. the answer to the last event.
            calls.extend(unfinished.remove(pid));
        } else if !rest.starts_with(b"---") {
            calls.push((calls.len(), rest.to_vec()));
        }
    }
    calls
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// What a string of `strace` stands for: as in C, with octal digits.
fn bytes(text: &[u8]) -> Vec<u8> {
    let (mut bytes, mut at) = (Vec::with_capacity(text.len()), 0);
    while at < text.len() {
        if text[at] != b'\\' {
            bytes.push(text[at]);
            at += 1;
            continue;
        }
        let digits = text[at + 1..].iter().take(3).take_while(|digit| (b'0'..b'8').contains(digit)).count();
        if digits > 0 {
            let digits = &text[at + 1..at + 1 + digits];
            bytes.push(digits.iter().fold(0, |byte: u8, digit| byte.wrapping_shl(3) | (digit - b'0')));
            at += 1 + digits.len();
            continue;
        }
        bytes.push(match text[at + 1] {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'f' => 0x0c,
            b'v' => 0x0b,
            plain => plain,
        });
        at += 2;
    }
    bytes
}

/// The steps in a trace of a finhook whose journal is in `folder`; file names are relative to it, "" is the folder itself.
pub(super) fn steps(trace: &[u8], folder: &Path) -> Vec<Step> {
    let mut steps = Vec::new();
    // Steps before the call of each number.
    let mut steps_before = Vec::new();
    let mut positions: HashMap<String, usize> = HashMap::new();
    for (began, call) in calls(trace) {
        steps_before.push(steps.len());
        // Behind the first string there are only numbers and names of files.
        let quote = call.iter().position(|byte| *byte == b'"').unwrap_or(call.len());
        let end = call.iter().rposition(|byte| *byte == b'"').map_or(call.len(), |at| at + 1);
        let (head, data, tail) = (&call[..quote], &call[quote..end], &call[end..]);
        let (head, tail) = (str::from_utf8(head).unwrap(), str::from_utf8(tail).unwrap());
        let Some((name, before)) = head.split_once('(') else { continue };
        if matches!(name, "sendto" | "writev" | "write") && data.starts_with(b"\"HTTP/1.1 200") {
            let id = find(data, br#"{\"id\":\""#).map(|at| &data[at + 10..at + 46]).expect("head and body in one");
            steps.push(Step::Ack(String::from_utf8(id.to_vec()).unwrap()));
            continue;
        }
        let Some((after, outcome)) = (if data.is_empty() { before } else { tail }).rsplit_once(" = ") else { continue };
        let result: i64 = outcome.split(['<', ' ']).next().unwrap().parse().unwrap_or(-1);
        let Ok(done) = usize::try_from(result) else { continue };
        let relative = |path: &str| {
            let file = Path::new(path).strip_prefix(folder).ok()?.to_str()?.to_owned();
            ["", "finhook.db", "finhook.db-wal"].contains(&file.as_str()).then_some(file)
        };
        if name == "openat" {
            let Some((descriptor, path)) = outcome.split_once('<') else { continue };
            let Some(file) = relative(path.trim_end_matches('>')) else { continue };
            if after.contains("O_CREAT") && !file.is_empty() {
                steps.push(Step::Create(file));
            }
            positions.insert(descriptor.to_owned(), 0);
            continue;
        }
        let Some((descriptor, rest)) = before.split_once('<') else { continue };
        let Some(file) = rest.split_once('>').and_then(|(path, _)| relative(path)) else { continue };
        let number = |place: usize| -> usize {
            after.split(", ").nth(place).unwrap().trim_end_matches([')', ' ']).parse().unwrap()
        };
        let written = || {
            let bytes = bytes(&data[1..data.len() - 1]);
            assert_eq!(bytes.len(), done, "the trace must have all bytes");
            bytes
        };
        match name {
            "lseek" => drop(positions.insert(descriptor.to_owned(), done)),
            "write" => {
                let position = positions.entry(descriptor.to_owned()).or_default();
                steps.push(Step::Write { file, at: *position, bytes: written() });
                *position += done;
            }
            "pwrite64" => steps.push(Step::Write { file, at: number(2), bytes: written() }),
            "ftruncate" => steps.push(Step::Truncate { file, len: number(1) }),
            "fdatasync" | "fsync" => steps.push(Step::Sync { file, began: steps_before[began] }),
            _ => {}
        }
    }
    steps
}
