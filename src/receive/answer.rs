//! What the public listener says: few constant answers.
//!
//! An answer tells a stranger nothing about this service, and nothing from a request is ever sent back.

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use uuid::Uuid;

use super::{Answer, Refusal};
use crate::journal::AppendError;
use crate::serve::Problem;
use crate::verify::Scheme;

/// What `WWW-Authenticate` says: how requests must be signed.
fn challenge(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Fin => r#"HMAC-SHA256 header="X-Fin-Agent-API-Webhook-Signature""#,
        Scheme::Intercom => r#"HMAC-SHA1 header="X-Hub-Signature""#,
    }
}

/// What is done with a request: the intake's answer, or why it never came that far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// The intake answered.
    Taken(Answer),
    /// `HEAD` on an endpoint.
    Here,
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
            Self::Taken(Answer::Refused(Refusal::Unauthenticated(_))) => "unauthenticated",
            Self::Taken(Answer::Refused(Refusal::NoSecret | Refusal::NotStored(_))) | Self::Bug => "unavailable",
            _ => "refused",
        })
    }

    /// What went wrong, if something did.
    fn problem(self) -> Option<Problem> {
        let (status, detail) = match self {
            Self::Broken => (StatusCode::BAD_REQUEST, "The body is incomplete or malformed."),
            Self::Taken(Answer::Refused(Refusal::Unauthenticated(_))) => {
                (StatusCode::UNAUTHORIZED, "The signature is missing, malformed, sent twice or wrong.")
            }
            Self::NotFound => (StatusCode::NOT_FOUND, "There is no webhook endpoint at this path."),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "Events are sent with POST."),
            Self::Timeout => (StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time."),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The body is over the limit."),
            Self::Encoded => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body must be sent without a content encoding."),
            Self::Bug => (StatusCode::INTERNAL_SERVER_ERROR, "The request could not be handled."),
            Self::Taken(Answer::Refused(Refusal::NoSecret)) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "This endpoint has no signing secret yet. Configure it, then send again.",
            ),
            Self::Taken(Answer::Refused(Refusal::NotStored(error))) => {
                (StatusCode::SERVICE_UNAVAILABLE, not_stored(error))
            }
            Self::Taken(_) | Self::Here => return None,
        };
        Some(Problem::new(status, detail))
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        if let Some(problem) = self.problem() {
            let mut response = if problem.status == StatusCode::SERVICE_UNAVAILABLE {
                problem.retry_after(1)
            } else {
                problem.into_response()
            };
            if let Some((name, value)) = match self {
                Self::Taken(Answer::Refused(Refusal::Unauthenticated(scheme))) => {
                    Some((WWW_AUTHENTICATE, challenge(scheme)))
                }
                Self::Method => Some((ALLOW, "HEAD, POST")),
                _ => None,
            } {
                response.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            return response;
        }
        let body = match self {
            Self::Taken(Answer::Accepted(id)) => stored(id, b"accepted\"}"),
            Self::Taken(Answer::Duplicate(id)) => stored(id, b"duplicate\"}"),
            Self::Taken(Answer::Stale(id)) => stored(id, b"stale\"}"),
            Self::Taken(Answer::Quarantined(id)) => stored(id, b"quarantined\"}"),
            Self::Taken(Answer::Test) => Bytes::from_static(br#"{"outcome":"test"}"#),
            _ => return Response::default(),
        };
        let mut response = Response::new(Body::from(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

fn not_stored(error: AppendError) -> &'static str {
    match error {
        AppendError::Busy => "Too many events are waiting to be stored. Try again.",
        AppendError::Full => "There is no room for more events at the moment. Try again later.",
        AppendError::Failed => {
            "Storing failed: whether the event is stored is not known. Send it again, it is stored once."
        }
        AppendError::Closed => "The receiver is shutting down. Try again.",
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
    use axum::http::header::RETRY_AFTER;

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
            Answer::Refused(Refusal::Unauthenticated(Scheme::Fin)),
            Answer::Refused(Refusal::Unauthenticated(Scheme::Intercom)),
            Answer::Refused(Refusal::NoSecret),
            Answer::Refused(Refusal::NotStored(AppendError::Busy)),
            Answer::Refused(Refusal::NotStored(AppendError::Full)),
            Answer::Refused(Refusal::NotStored(AppendError::Failed)),
            Answer::Refused(Refusal::NotStored(AppendError::Closed)),
        ];
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
        answers.map(Reply::Taken).into_iter().chain(others).collect()
    }

    fn text(response: Response) -> String {
        let body = axum::body::to_bytes(response.into_body(), 1000);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(body).unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn every_problem_is_json_that_repeats_its_status() {
        for reply in all() {
            let response = reply.into_response();
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
        let response = all()[1].into_response();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(text(response), format!(r#"{{"id":"{id}","outcome":"duplicate"}}"#));
        assert_eq!(text(all()[4].into_response()), r#"{"outcome":"test"}"#);
    }

    #[test]
    fn no_answer_is_429_and_every_503_says_when_to_try_again() {
        for reply in all() {
            let response = reply.into_response();
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
