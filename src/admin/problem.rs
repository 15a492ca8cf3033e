//! Errors of the API: `application/problem+json` (RFC 9457). The API is the operator's own, so its details name what is wrong;
//! they never hold a body, a token or an error's inner text.

use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::journal::WriteError;
use crate::journal::purge::EraseError;
use crate::journal::read::ReadError;

/// Why a request was not carried out.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The kind of problem.
    pub title: String,
    /// What is wrong and what to do.
    pub detail: String,
}

impl Problem {
    /// A problem of this status.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error").to_owned();
        Self { status: status.as_u16(), title, detail: detail.into() }
    }

    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// A bug; details are in the log.
    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "finhook failed; see its log")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (status, [(CONTENT_TYPE, "application/problem+json")], body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"finhook\""));
        }
        response
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        tracing::error!(%error, "the admin API could not read the journal");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the journal could not be read; see finhook's log")
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        tracing::error!(%error, "the admin API could not write to the journal");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the journal did not take the change; see finhook's log, try again")
    }
}

impl From<EraseError> for Problem {
    fn from(error: EraseError) -> Self {
        tracing::error!(%error, "the journal's log still holds what was purged");
        let detail = "the events are deleted, but copies of them may still be in the journal's files: purge again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}
