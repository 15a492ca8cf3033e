//! The answers that hyper gives by itself, before any service sees the request: to a head that it can't parse (400), that
//! is over its limits (431) or whose target is too long (414). They have no body; here they get the problem that every
//! other error of the listener has.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::http::StatusCode;
use memchr::memmem;
use tokio::io::AsyncWrite;

use super::Problem;

/// What tells them from answers of finhook's own, whose errors all have a body.
const EMPTY: &[u8] = b"\r\ncontent-length: 0\r\n";

/// How hyper's answer begins, its status, and what to say.
const ANSWERS: [(&[u8], StatusCode, &str); 3] = [
    (b"HTTP/1.1 400 ", StatusCode::BAD_REQUEST, "The request's head is malformed."),
    (b"HTTP/1.1 414 ", StatusCode::URI_TOO_LONG, "The request's target is too long."),
    (b"HTTP/1.1 431 ", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "The request's head is over the limits."),
];

/// One of them on its way out, with its problem.
#[derive(Debug)]
pub(super) struct Automatic {
    status: StatusCode,
    text: Vec<u8>,
    written: usize,
}

impl Automatic {
    /// For what hyper is about to write; `None` for everything but such an answer.
    pub(super) fn instead_of(written: &[u8]) -> Option<Self> {
        let (_, status, detail) = *ANSWERS.iter().find(|(start, ..)| written.starts_with(start))?;
        let at = memmem::find(written, EMPTY)?;
        let (before, after) = (&written[..at], &written[at + EMPTY.len()..]);
        let body = Problem::new(status, detail).to_json();
        let headers = format!("\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n", body.len());
        Some(Self { status, text: [before, headers.as_bytes(), after, body.as_bytes()].concat(), written: 0 })
    }

    /// Its status.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Writes what is left of it.
    pub(super) fn poll_write(
        &mut self,
        mut to: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.written < self.text.len() {
            match ready!(to.as_mut().poll_write(cx, &self.text[self.written..]))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                more => self.written += more,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_empty_error_gets_a_problem_and_keeps_its_other_headers() {
        for (start, status, detail) in ANSWERS {
            let body = Problem::new(status, detail).to_json();
            let hypers = [start, b"Some Reason\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n"].concat();
            let text = String::from_utf8(Automatic::instead_of(&hypers).unwrap().text).unwrap();
            let (head, sent) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(sent, body);
            for header in ["connection: close", "date: x", &format!("content-length: {}", body.len())] {
                assert!(head.lines().any(|line| line == header), "{head}");
            }
            let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(problem["status"].as_u64().unwrap().to_string().as_bytes(), &start[9..12]);
        }
    }

    #[test]
    fn every_other_answer_is_left_alone() {
        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 12\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "",
        ] {
            assert!(Automatic::instead_of(other.as_bytes()).is_none(), "{other:?}");
        }
    }
}
