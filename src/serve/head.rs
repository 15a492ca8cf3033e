//! One reading of a request's head.
//!
//! hyper's parser is lenient where a proxy in front may read otherwise: it takes a bare LF for a line's end, `chunked`
//! for the winner over a `Content-Length`, equal lengths sent twice for one, and a missing `Host` for fine. Whoever
//! gets two parties to see different ends of a request can smuggle one past the first of them. So the raw bytes pass a
//! [`Gate`] on their way to hyper, and a head that could be read in two ways is answered with 400, whatever hyper made
//! of it, and is the last on its connection.
//!
//! Invariants:
//! - A head that is let through ends, for hyper's parser, at the same byte as for the gate (property-tested).
//! - The gate needs to know where a body ends: after `Content-Length` bytes. It does not follow chunks: a chunked
//!   request is the last on its connection, so that nothing behind it is ever read as a request.
//! - It keeps at most one unfinished line, of at most [`MAX_HEAD`] bytes.

use std::borrow::Cow;

use memchr::{memchr, memmem};

/// Largest head, in bytes: 431 over it. It is hyper that enforces it.
pub(super) const MAX_HEAD: usize = 32 * 1024;

/// How much of a request line is kept, for the log.
const MAX_KEPT: usize = 256;

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A line ended by a bare LF, a folded line, white space before the colon, no colon.
    Line,
    /// `Content-Length` twice, not plain digits, or together with `Transfer-Encoding`.
    Length,
    /// A `Transfer-Encoding` that isn't one `chunked`.
    Coding,
    /// No `Host` in an HTTP/1.1 request (RFC 9112, 3.2), or more than one in any.
    Host,
}

/// Follows one connection's incoming bytes: where heads begin and end, and the first fault.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: State,
    /// What came of a line that is not complete yet.
    line: Vec<u8>,
    /// The beginning of the last request line.
    request_line: Vec<u8>,
    /// Of the head that is being read.
    facts: Facts,
    /// Complete heads so far.
    heads: u64,
    /// The first fault and the number of the request (from 0) that has it.
    fault: Option<(u64, Fault)>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between requests; empty lines may come (RFC 9112, 2.2).
    #[default]
    Between,
    /// After a request line.
    Head,
    /// This many bytes of a body are still to come.
    Body(u64),
    /// Behind a fault or the head of a chunked request: whatever comes is no request.
    Last,
}

#[derive(Debug, Default, Clone, Copy)]
struct Facts {
    /// The version is 1.0, which knows no `Host`.
    is_1_0: bool,
    host: bool,
    length: Option<u64>,
    chunked: bool,
}

impl Gate {
    /// Reads on. Call it with every byte that comes in, in order, in pieces of any size.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.state {
                State::Last => return,
                State::Body(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = &bytes[here..];
                    self.state = match left - here as u64 {
                        0 => State::Between,
                        left => State::Body(left),
                    };
                }
                State::Between | State::Head => {
                    let Some(end) = memchr(b'\n', bytes) else {
                        self.keep(bytes);
                        return;
                    };
                    let (piece, rest) = (&bytes[..end], &bytes[end + 1..]);
                    bytes = rest;
                    if self.line.is_empty() {
                        self.ended(piece);
                    } else {
                        let mut line = std::mem::take(&mut self.line);
                        line.extend_from_slice(piece);
                        self.ended(&line);
                    }
                }
            }
        }
    }

    /// Whether a head has begun and isn't complete.
    pub(super) fn in_head(&self) -> bool {
        self.state == State::Head || !self.line.is_empty()
    }

    /// Whether what is still to come is no request: the rest of a body, or whatever follows the last request.
    pub(super) fn in_body(&self) -> bool {
        matches!(self.state, State::Body(_) | State::Last)
    }

    /// The first fault and the number of the request (from 0) that has it.
    pub(super) fn fault(&self) -> Option<(u64, Fault)> {
        self.fault
    }

    /// The path of the request that is being read, or was the last one, as it came: without its query, maybe cut short, and
    /// empty where no request line could be made out.
    pub(super) fn path(&self) -> Cow<'_, str> {
        let unfinished = self.state == State::Between && !self.line.is_empty();
        let line = if unfinished { &self.line } else { &self.request_line };
        let target = line.split(|byte| matches!(byte, b' ' | b'\r')).filter(|word| !word.is_empty()).nth(1);
        let path =
            target.and_then(|target| target.split(|byte| matches!(byte, b'?' | b'#')).next()).unwrap_or_default();
        // Before the path of an absolute target stand a scheme and a host, and maybe a password.
        let path = match memmem::find(path, b"://") {
            Some(at) => memchr(b'/', &path[at + 3..]).map_or(&b""[..], |slash| &path[at + 3 + slash..]),
            None => path,
        };
        String::from_utf8_lossy(path)
    }

    fn keep_request_line(&mut self, line: &[u8]) {
        self.request_line.clear();
        self.request_line.extend_from_slice(&line[..line.len().min(MAX_KEPT)]);
    }

    /// Keeps the beginning of a line. A longer one than a head may be ends the reading: hyper refuses that head.
    fn keep(&mut self, bytes: &[u8]) {
        if self.line.len() + bytes.len() > MAX_HEAD {
            let line = std::mem::take(&mut self.line);
            if self.state == State::Between {
                self.keep_request_line(&[&line, bytes].concat());
            }
            self.state = State::Last;
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    /// A line, up to its LF.
    fn ended(&mut self, line: &[u8]) {
        if self.state == State::Between && !matches!(line, b"" | b"\r") {
            self.keep_request_line(line);
        }
        let Some(line) = line.strip_suffix(b"\r") else {
            return self.refuse(Fault::Line);
        };
        let result = match (self.state, line.is_empty()) {
            (State::Head, true) => self.complete(),
            (State::Head, false) => self.facts.add(line),
            (_, true) => Ok(()),
            (_, false) => {
                self.state = State::Head;
                self.facts = Facts { is_1_0: line.ends_with(b" HTTP/1.0"), ..Facts::default() };
                Ok(())
            }
        };
        if let Err(fault) = result {
            self.refuse(fault);
        }
    }

    /// The empty line at the end of a head.
    fn complete(&mut self) -> Result<(), Fault> {
        let Facts { is_1_0, host, length, chunked } = self.facts;
        if !host && !is_1_0 {
            return Err(Fault::Host);
        }
        if chunked && length.is_some() {
            return Err(Fault::Length);
        }
        self.heads += 1;
        self.state = match length {
            _ if chunked => State::Last,
            None | Some(0) => State::Between,
            Some(length) => State::Body(length),
        };
        Ok(())
    }

    fn refuse(&mut self, fault: Fault) {
        self.fault = Some((self.heads, fault));
        self.state = State::Last;
    }
}

impl Facts {
    /// A header line without its CRLF.
    fn add(&mut self, line: &[u8]) -> Result<(), Fault> {
        let colon = memchr(b':', line).ok_or(Fault::Line)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        match (name.first(), name.last()) {
            (None, _) | (Some(b' ' | b'\t'), _) | (_, Some(b' ' | b'\t')) => return Err(Fault::Line),
            _ => {}
        }
        if name.eq_ignore_ascii_case(b"host") {
            if std::mem::replace(&mut self.host, true) {
                return Err(Fault::Host);
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let length = digits(trim(value)).ok_or(Fault::Length)?;
            if self.length.replace(length).is_some() {
                return Err(Fault::Length);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding")
            && (std::mem::replace(&mut self.chunked, true) || !trim(value).eq_ignore_ascii_case(b"chunked"))
        {
            return Err(Fault::Coding);
        }
        Ok(())
    }
}

/// Without the optional white space around a header's value (RFC 9110, 5.6.3: space and tab only).
fn trim(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let from = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let to = value.iter().rposition(|byte| !blank(byte)).map_or(from, |last| last + 1);
    &value[from..to]
}

/// A number of decimal digits and nothing else; `None` also when it is too large to be a length.
fn digits(value: &[u8]) -> Option<u64> {
    // Nineteen digits always fit.
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests;
