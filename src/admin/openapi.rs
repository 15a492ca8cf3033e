//! The description of the API, generated from the handlers and the shapes that they take and give.

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::rules::{self, Moment};
use super::{bulk, conversations, events, filters, sinks};
use crate::serve::Problem;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "finhook's admin API",
        description = "Events, conversations, and the sinks that they go to. What is wrong is said in a Problem (RFC 9457).",
    ),
    paths(
        livez, readyz, metrics, openapi_json, stream,
        events::list, events::show, bulk::replay, bulk::purge, conversations::list, conversations::show,
        sinks::list, sinks::pause, sinks::resume, sinks::retry_dead, sinks::forget,
    ),
    components(schemas(Problem, filters::Selection)),
    security((), ("token" = [])),
    modifiers(&Token),
)]
struct Description;

struct Token;

impl Modify for Token {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("admin.token, or admin.reader_token to look, with bodies masked; none is needed where admin.bind is loopback and no token is set"))
            .build();
        if let Some(components) = &mut api.components {
            components.add_security_scheme("token", SecurityScheme::Http(scheme));
        }
    }
}

/// As JSON.
pub(super) fn json() -> String {
    let mut description = serde_json::to_value(Description::openapi()).unwrap_or_default();
    rules::apply(&mut description);
    format!("{description:#}")
}

/// Whether the process is alive.
#[utoipa::path(get, path = "/livez", tag = "health", security(()), responses((status = 200, description = "It is")))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Whether the process should get traffic.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses(
    (status = 200, description = "It should"),
    (status = 503, description = "Starting, draining, or the journal can't store"),
))]
#[expect(dead_code, reason = "describes super::health::readyz")]
fn readyz() {}

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health", security(()), responses((
    status = 200,
    description = "OpenMetrics for those whose Accept names it, Prometheus' plain text for others",
    content((String = "application/openmetrics-text"), (String = "text/plain")),
)))]
#[expect(dead_code, reason = "describes super::metrics_text")]
fn metrics() {}

/// What a client of the live stream asks for.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query that crate::live reads")]
struct StreamQuery {
    /// The event's `conversation_id`.
    #[param(nullable = false)]
    conversation: Option<String>,
    /// The event's name.
    #[param(nullable = false)]
    event: Option<String>,
    /// Begin with what was received then: RFC 3339, or how long ago. Without it the stream begins now.
    #[param(value_type = Option<Moment>, nullable = false)]
    since: Option<String>,
}

/// Follow events as they come.
///
/// Server-Sent Events: `id` is the sequence number, so that `Last-Event-ID` resumes without a gap; `data` is the CloudEvents line that
/// a file sink would write. Chunks of replies that are being written come live only, without `id`.
#[utoipa::path(get, path = "/api/v1/stream", operation_id = "follow_events", tag = "stream", params(StreamQuery), responses(
    (status = 200, description = "A stream without an end", content_type = "text/event-stream", body = String),
    (status = 400, description = "A filter is wrong", body = Problem, content_type = "application/problem+json"),
))]
#[expect(dead_code, reason = "describes crate::live::stream")]
fn stream() {}

/// This description.
#[utoipa::path(get, path = "/api/v1/openapi.json", operation_id = "describe", tag = "description", responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = serde_json::Value)))]
pub(super) async fn openapi_json() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], json())
}
