//! What every error looks like: `application/problem+json` (RFC 9457).
//!
//! To strangers the details are constant texts. The operator's own API may name what is wrong. None ever holds a body, a
//! token or an error's inner text.

use std::borrow::Cow;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// Why a request was not carried out.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    kind: Cow<'static, str>,
    /// The HTTP status.
    pub status: u16,
    /// The kind of problem.
    pub title: Cow<'static, str>,
    /// What is wrong and what to do.
    pub detail: Cow<'static, str>,
}

impl Problem {
    /// A problem of this status.
    #[must_use]
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        let title = match status {
            // RFC 9110 has renamed it.
            StatusCode::PAYLOAD_TOO_LARGE => "Content Too Large",
            _ => status.canonical_reason().unwrap_or("Error"),
        };
        Self { kind: "about:blank".into(), status: status.as_u16(), title: title.into(), detail: detail.into() }
    }

    /// 400.
    #[must_use]
    pub fn bad(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404.
    #[must_use]
    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 409.
    #[must_use]
    pub fn conflict(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// 503.
    #[must_use]
    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// 500: a bug; details are in the log.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "finhook failed; see its log")
    }

    /// As an answer that says in how many seconds to try again.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Response {
        let mut response = self.into_response();
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
        response
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, [(CONTENT_TYPE, "application/problem+json")], self.to_json()).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"finhook\""));
        }
        response
    }
}
