//! Whether to send traffic here, for load balancers that see the public listener only.

use std::sync::Arc;

use axum::Router;
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Unrouted;
use crate::serve::Problem;

/// The route of `server.ready_path`: `GET` and `HEAD` answer 200 or 503, and tell strangers nothing more.
pub fn ready(
    path: &str,
    is_ready: impl Fn() -> bool + Clone + Send + Sync + 'static,
    unrouted: Arc<Unrouted>,
) -> Router {
    let asked_for = path.to_owned();
    let other_method = async move || {
        unrouted.refused(StatusCode::METHOD_NOT_ALLOWED, &asked_for);
        let mut response =
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "This path is for health checks.").into_response();
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        response
    };
    let answer = async move || -> Response {
        if is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }.into_response()
    };
    Router::new().route(path, get(answer).fallback(other_method))
}
