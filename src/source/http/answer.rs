//! What the public listener says: few constant answers.
//!
//! Errors are `application/problem+json` (RFC 9457) with constant texts: an answer tells a stranger nothing about this
//! service, and nothing from a request is ever sent back.

use axum::http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use uuid::Uuid;

use super::head::Fault;
use crate::source::{Answer, Refusal};

/// What is done with a request: the intake's answer, or why it never came that far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// The intake answered.
    Taken(Answer),
    /// `HEAD` on an endpoint.
    Here,
    /// A head that can be read in two ways.
    Malformed(Fault),
    /// No endpoint has this path.
    NotFound,
    /// Neither `POST` nor `HEAD`.
    Method,
    /// A `Content-Encoding` other than identity.
    Encoded,
    /// The body is over the limit.
    TooLarge,
    /// The body did not come in time.
    Timeout,
    /// The body broke off or its chunks are malformed.
    Broken,
    /// The handler panicked.
    Bug,
}

impl Reply {
    /// The value of the metrics' label `outcome`; `None` for what is no delivery.
    pub(super) fn outcome(self) -> Option<&'static str> {
        Some(match self {
            Self::Here => return None,
            Self::Taken(Answer::Accepted(_)) => "accepted",
            Self::Taken(Answer::Duplicate(_)) => "duplicate",
            Self::Taken(Answer::Stale(_)) => "stale",
            Self::Taken(Answer::Quarantined(_)) => "quarantined",
            Self::Taken(Answer::Test) => "test",
            Self::Taken(Answer::Refused(Refusal::Unauthenticated)) => "unauthenticated",
            Self::Taken(Answer::Refused(Refusal::Unavailable)) | Self::Bug => "unavailable",
            _ => "refused",
        })
    }

    /// The response; `last`: the connection ends with it. `headers` is the request's map: its memory is used again.
    pub(super) fn response(self, last: bool, mut headers: HeaderMap) -> Response<Full<Bytes>> {
        let (status, body) = match self {
            Self::Here => (StatusCode::OK, Bytes::new()),
            Self::Taken(answer) => match answer {
                Answer::Accepted(id) => (StatusCode::OK, stored(id, b"accepted\"}")),
                Answer::Duplicate(id) => (StatusCode::OK, stored(id, b"duplicate\"}")),
                Answer::Stale(id) => (StatusCode::OK, stored(id, b"stale\"}")),
                Answer::Quarantined(id) => (StatusCode::OK, stored(id, b"quarantined\"}")),
                Answer::Test => (StatusCode::OK, Bytes::from_static(br#"{"outcome":"test"}"#)),
                Answer::Refused(_) => self.problem(),
            },
            _ => self.problem(),
        };
        headers.clear();
        if self != Self::Here {
            let kind = if status == StatusCode::OK { "application/json" } else { "application/problem+json" };
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        match status {
            StatusCode::UNAUTHORIZED => {
                let challenge = HeaderValue::from_static(r#"HMAC-SHA256 header="X-Fin-Agent-API-Webhook-Signature""#);
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static("HEAD, POST"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        if last {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    fn problem(self) -> (StatusCode, Bytes) {
        let (status, body) = match self {
            Self::Malformed(fault) => (StatusCode::BAD_REQUEST, malformed(fault)),
            Self::Broken => {
                (StatusCode::BAD_REQUEST, problem!(400, "Bad Request", "The body is incomplete or malformed."))
            }
            Self::Taken(Answer::Refused(Refusal::Unauthenticated)) => (
                StatusCode::UNAUTHORIZED,
                problem!(401, "Unauthorized", "The signature is missing, malformed, sent twice or wrong."),
            ),
            Self::NotFound => {
                (StatusCode::NOT_FOUND, problem!(404, "Not Found", "There is no webhook endpoint at this path."))
            }
            Self::Method => {
                (StatusCode::METHOD_NOT_ALLOWED, problem!(405, "Method Not Allowed", "Events are sent with POST."))
            }
            Self::Timeout => {
                (StatusCode::REQUEST_TIMEOUT, problem!(408, "Request Timeout", "The body did not arrive in time."))
            }
            Self::TooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, problem!(413, "Content Too Large", "The body is over the limit."))
            }
            Self::Encoded => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                problem!(415, "Unsupported Media Type", "The body must be sent without a content encoding."),
            ),
            Self::Bug => (
                StatusCode::INTERNAL_SERVER_ERROR,
                problem!(500, "Internal Server Error", "The request could not be handled."),
            ),
            Self::Taken(_) | Self::Here => (
                StatusCode::SERVICE_UNAVAILABLE,
                problem!(503, "Service Unavailable", "Events can't be stored at the moment. Try again."),
            ),
        };
        (status, Bytes::from_static(body.as_bytes()))
    }
}

fn malformed(fault: Fault) -> &'static str {
    match fault {
        Fault::Line => problem!(400, "Bad Request", "A header line is malformed."),
        Fault::Length => problem!(400, "Bad Request", "The body's length is given in more than one way."),
        Fault::Coding => problem!(400, "Bad Request", "The only transfer coding is one chunked."),
        Fault::Host => problem!(400, "Bad Request", "There must be one Host header."),
    }
}

/// `{"id":"<uuid>","outcome":"…"}`
fn stored(id: Uuid, rest: &[u8]) -> Bytes {
    const START: &[u8] = br#"{"id":""#;
    const MIDDLE: &[u8] = br#"","outcome":""#;
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let id = id.hyphenated().encode_lower(&mut text).as_bytes();
    let mut body = Vec::with_capacity(START.len() + id.len() + MIDDLE.len() + rest.len());
    for part in [START, id, MIDDLE, rest] {
        body.extend_from_slice(part);
    }
    Bytes::from(body)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http_body_util::BodyExt;

    use super::*;
    use crate::metrics::OUTCOMES;

    fn all() -> Vec<Reply> {
        let id = Uuid::from_u128(0x0123_4567_89ab_8def_8123_4567_89ab_cdef);
        let answers = [
            Answer::Accepted(id),
            Answer::Duplicate(id),
            Answer::Stale(id),
            Answer::Quarantined(id),
            Answer::Test,
            Answer::Refused(Refusal::Unauthenticated),
            Answer::Refused(Refusal::Unavailable),
        ];
        let faults = [Fault::Line, Fault::Length, Fault::Coding, Fault::Host];
        let others = [
            Reply::Here,
            Reply::NotFound,
            Reply::Method,
            Reply::Encoded,
            Reply::TooLarge,
            Reply::Timeout,
            Reply::Broken,
            Reply::Bug,
        ];
        let (answers, faults) = (answers.map(Reply::Taken), faults.map(Reply::Malformed));
        answers.into_iter().chain(faults).chain(others).collect()
    }

    fn text(response: Response<Full<Bytes>>) -> String {
        let body = response.into_body();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(body.collect()).unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn every_problem_is_json_that_repeats_its_status() {
        for reply in all() {
            let response = reply.response(false, HeaderMap::new());
            let status = response.status();
            if status != StatusCode::OK {
                assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json", "{reply:?}");
                let problem: serde_json::Value = serde_json::from_str(&text(response)).unwrap();
                assert_eq!(problem["status"], status.as_u16(), "{reply:?}");
                assert_eq!(problem["title"], status.canonical_reason().unwrap().replace("Payload", "Content"));
            }
        }
    }

    #[test]
    fn an_answer_has_the_events_id_and_outcome() {
        let Reply::Taken(Answer::Duplicate(id)) = all()[1] else { unreachable!() };
        let response = all()[1].response(false, HeaderMap::new());
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(text(response), format!(r#"{{"id":"{id}","outcome":"duplicate"}}"#));
        assert_eq!(text(all()[4].response(false, HeaderMap::new())), r#"{"outcome":"test"}"#);
    }

    #[test]
    fn no_answer_is_429_and_every_503_says_when_to_try_again() {
        for reply in all() {
            let response = reply.response(false, HeaderMap::new());
            assert_ne!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            let unavailable = response.status() == StatusCode::SERVICE_UNAVAILABLE;
            assert_eq!(response.headers().contains_key(RETRY_AFTER), unavailable, "{reply:?}");
        }
    }

    #[test]
    fn every_outcome_is_one_the_metrics_know() {
        for reply in all() {
            assert!(reply.outcome().is_none_or(|outcome| OUTCOMES.contains(&outcome)), "{reply:?}");
        }
    }
}
