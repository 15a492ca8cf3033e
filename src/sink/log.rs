//! The `log` sink: one line an event on stdout; JSON in a pipe or a file, readable on a terminal.
//!
//! A line has always the same members: `timestamp` (when it was received), `id`, `endpoint`, `event`,
//! `conversation_id`, `user_id`, `status`, `reason`, `message_id`, `created_at`, `body_bytes`; what the event does not
//! have is `null`. If asked for, `body` comes last: the body's own bytes, with line breaks turned into spaces.
//!
//! Invariant: whatever strangers wrote into an event, a line is one line of valid JSON and steers no terminal: control
//! characters, C1 and DEL among them, and the line separators U+2028 and U+2029 are escaped, in the body too.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use serde::Serialize;
use uuid::Uuid;

use super::cloudevent::{append_data, append_object, reopen_object};
use super::{Batch, Delivery};
use crate::clock;
use crate::config::LogSink;
use crate::event::Event;
use crate::fin;
use crate::terminal::{self, Days, EventLine, Paint};

/// Writes events as JSON lines.
pub struct Log {
    out: Box<dyn Write + Send>,
    include_body: bool,
    /// On a terminal: how lines are shown to people there.
    people: Option<People>,
    lines: Vec<u8>,
    /// The rest of a line of which a failed write got out only the beginning.
    unfinished: Vec<u8>,
}

#[derive(Serialize)]
struct Line<'a> {
    timestamp: Option<String>,
    id: Uuid,
    endpoint: &'a str,
    event: Option<&'a str>,
    conversation_id: Option<&'a str>,
    user_id: Option<&'a str>,
    status: Option<&'a str>,
    reason: Option<&'a str>,
    message_id: Option<&'a str>,
    created_at: Option<&'a str>,
    body_bytes: usize,
}

impl Log {
    /// A sink that writes to this process's stdout.
    ///
    /// # Errors
    /// Stdout can't be used.
    pub fn stdout(config: &LogSink) -> Result<Self, String> {
        // A duplicate of the descriptor, because Rust's own handle looks for line breaks and copies what it is given.
        let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(|e| format!("cannot use stdout: {e}"))?;
        let people = io::stdout().is_terminal().then(|| People { days: Days::default(), paint: Paint::for_stdout() });
        Ok(Self { people, ..Self::new(config, Box::new(File::from(stdout))) })
    }

    /// A sink that writes JSON to `out`, with one call a batch as long as `out` takes all it is given.
    #[must_use]
    pub fn new(config: &LogSink, out: Box<dyn Write + Send>) -> Self {
        let include_body = config.include_body;
        Self { out, include_body, people: None, lines: Vec::new(), unfinished: Vec::new() }
    }

    /// Writes `self.lines`, and remembers what is missing of a line that got out only in part.
    fn write_lines(&mut self) -> io::Result<()> {
        let written = write_counted(&mut *self.out, &self.unfinished);
        self.unfinished.drain(..written.0);
        written.1?;

        let (count, result) = write_counted(&mut *self.out, &self.lines);
        if result.is_err() {
            let begun = count > 0 && self.lines[count - 1] != b'\n';
            let rest = &self.lines[count..];
            let end = rest.iter().position(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
            self.unfinished.extend_from_slice(if begun { &rest[..end] } else { &[] });
        }
        result?;
        self.out.flush()
    }
}

impl Batch for Log {
    fn write(&mut self, deliveries: &[Delivery]) -> Result<(), String> {
        self.lines.clear();
        for delivery in deliveries {
            let event = &delivery.stored.event;
            match &mut self.people {
                None => append_line(&mut self.lines, event, self.include_body),
                Some(people) => people.append(&mut self.lines, event, self.include_body),
            }
        }
        self.write_lines().map_err(|e| format!("cannot write to stdout: {e}; see where it leads"))
    }
}

/// Readers at a terminal.
struct People {
    days: Days,
    paint: Paint,
}

impl People {
    /// Appends a readable line, after one with the day when that has changed.
    fn append(&mut self, buf: &mut Vec<u8>, event: &Event, include_body: bool) {
        let fields = &event.fields;
        let received = clock::rfc3339(event.received_ms).unwrap_or_default();
        let says = if include_body { said(&event.body) } else { None };
        let line = EventLine {
            received: &received,
            endpoint: &event.endpoint,
            event: fields.event_name.as_deref().unwrap_or("-"),
            status: fields.status.as_deref(),
            conversation: fields.conversation_id.as_deref().unwrap_or("-"),
            text: says.as_deref().or(fields.reason.as_deref()).unwrap_or_default(),
        };
        for text in self.days.changed(&line, self.paint).into_iter().chain([line.shown(terminal::width(), self.paint)])
        {
            buf.extend_from_slice(text.as_bytes());
            buf.push(b'\n');
        }
    }
}

/// What a body says, as plain text.
fn said(body: &[u8]) -> Option<String> {
    let event: fin::Event = serde_json::from_slice(body).ok()?;
    event.message.map(|message| terminal::html(&message.body, 1000).join(" ")).or(event.chunk_text)
}

/// Appends an event's line, with its line break.
pub fn append_line(buf: &mut Vec<u8>, event: &Event, include_body: bool) {
    let start = buf.len();
    let fields = &event.fields;
    append_object(
        buf,
        &Line {
            timestamp: clock::rfc3339(event.received_ms),
            id: event.id,
            endpoint: &event.endpoint,
            event: fields.event_name.as_deref(),
            conversation_id: fields.conversation_id.as_deref(),
            user_id: fields.user_id.as_deref(),
            status: fields.status.as_deref(),
            reason: fields.reason.as_deref(),
            message_id: fields.message_id.as_deref(),
            created_at: fields.created_at.as_deref(),
            body_bytes: event.body.len(),
        },
    );
    if include_body {
        reopen_object(buf);
        buf.extend_from_slice(b",\"body\":");
        append_data(buf, &event.body);
        buf.push(b'}');
    }
    escape_from(buf, start);
    buf.push(b'\n');
}

/// Escapes, in the JSON text that begins at `start`, what JSON lets stand unescaped but a terminal or a reader of
/// lines might act on. Outside a JSON string none of it can occur, so the text keeps its meaning.
fn escape_from(buf: &mut Vec<u8>, start: usize) {
    let Some(first) = (start..buf.len()).find(|at| special(&buf[*at..]).is_some()) else { return };
    let rest = buf.split_off(first);
    let mut at = 0;
    while at < rest.len() {
        if let Some((escape, length)) = special(&rest[at..]) {
            // Into memory: this cannot fail.
            let _ = write!(buf, "\\u{escape:04x}");
            at += length;
        } else {
            buf.push(rest[at]);
            at += 1;
        }
    }
}

/// The code point at the start of `bytes` and its length in UTF-8, if it has to be escaped.
fn special(bytes: &[u8]) -> Option<(u16, usize)> {
    match bytes {
        [0x7f, ..] => Some((0x7f, 1)),
        [0xc2, c1 @ 0x80..=0x9f, ..] => Some((u16::from(*c1), 2)),
        [0xe2, 0x80, 0xa8, ..] => Some((0x2028, 3)),
        [0xe2, 0x80, 0xa9, ..] => Some((0x2029, 3)),
        _ => None,
    }
}

/// Like `write_all`, but tells how many bytes got out also when it fails.
fn write_counted(out: &mut dyn Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut count = 0;
    while count < bytes.len() {
        match out.write(&bytes[count..]) {
            Ok(0) => return (count, Err(io::ErrorKind::WriteZero.into())),
            Ok(n) => count += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (count, Err(e)),
        }
    }
    (count, Ok(()))
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
