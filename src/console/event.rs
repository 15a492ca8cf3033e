//! One event: what is known of it, how far it has come at each sink, and its bytes.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HOST};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};

use super::frame::{Page, Screen, page};
use super::view::{self, badge, csrf, word};
use super::visit::Visit;
use super::{Console, json};
use crate::admin::{EventDetail, Way};
use crate::journal::EventState;
use crate::serve::Problem;

/// A body that is longer is not shown on the page; its bytes can be had.
const MAX_SHOWN: usize = 256 * 1024;

/// `GET /events/{id}`
pub(super) async fn show(
    State(console): State<Arc<Console>>,
    visit: Visit,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Page {
    let detail = console.api.event(&visit.caller, &id, true).await?;
    let event = &detail.event;
    let name = event.event.as_deref().unwrap_or("Event");
    let main = html! {
        p.crumbs { a href="/events" { "Events" } }
        h1 { (view::text(Some(name))) " " (badge(&word(event.state))) }
        (facts(&detail))
        h2 { "Deliveries" }
        (deliveries(&detail))
        @if visit.may_change() && matches!(event.state, EventState::Stored | EventState::Stale) { (actions(&visit, &detail)) }
        h2 { "Body" }
        (body_of(&detail))
        h2 { "By the API" }
        pre.code #curl { (curl(&headers, &event.id.to_string())) }
        div.actions.script { button type="button" data-copy="curl" { "Copy" } }
    };
    Ok(page(&visit, Screen::Events, name, &main))
}

fn facts(detail: &EventDetail) -> Markup {
    let event = &detail.event;
    let way = detail.way.map(|way| match way {
        Way::Webhook => "webhook: its signature was verified over these bytes",
        Way::EventStream => "Fin's event stream, over TLS: these have no signature",
    });
    html! {
        dl.facts {
            dt { "Id" } dd { (view::id(&event.id.to_string())) }
            dt { "Sequence" } dd { (event.seq) }
            dt { "Received" } dd { (view::time(event.received_at.as_deref())) }
            dt { "Created" } dd { (view::text(event.created_at.as_deref())) }
            dt { "Conversation" } dd {
                @if let Some(id) = &event.conversation_id { a href=(view::path("/conversations", id)) { (view::id(id)) } } @else { (view::text(None)) }
            }
            dt { "User" } dd { @if let Some(id) = &event.user_id { a href=(view::link("/events", [("user", Some(&**id))])) { (view::id(id)) } } @else { (view::text(None)) } }
            dt { "Status" } dd { (view::text(event.status.as_deref())) @if let Some(reason) = &event.reason { ": " bdi { (reason) } } }
            dt { "Message" } dd { (view::text(event.message_id.as_deref())) }
            dt { "Endpoint" } dd { (view::text(event.endpoint.as_deref())) }
            dt { "Came by" } dd { (way.unwrap_or("–")) }
            dt { "Content type" } dd { (view::text(detail.content_type.as_deref())) }
        }
    }
}

fn deliveries(detail: &EventDetail) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Deliveries" {
            table {
                thead { tr { th { "Sink" } th { "State" } th.n { "Failed attempts" } th { "When" } th { "Why" } } }
                tbody {
                    @for at in &detail.sinks { tr {
                        td { (at.sink) }
                        td { (badge(&word(at.state))) @if at.replay.is_some() { " " span.hint { "replay" } } }
                        td.n { @if let Some(attempts) = at.attempts { (attempts) } @else { span.none { "–" } } }
                        td {
                            @if let Some(next) = &at.next_attempt_at { "next " (view::time(Some(next))) }
                            @else if let Some(died) = &at.died_at { "given up " (view::time(Some(died))) }
                            @else { span.none { "–" } }
                        }
                        td.why { (view::text(at.error.as_deref())) }
                    } }
                    @if detail.sinks.is_empty() { tr { td colspan="5" { "None." } } }
                }
            }
        }
    }
}

fn actions(visit: &Visit, detail: &EventDetail) -> Markup {
    html! {
        form.actions method="post" action="/events/plan" {
            (csrf(visit))
            input type="hidden" name="id" value=(detail.event.id);
            input type="hidden" name="which" value="selected";
            label for="to" { "Sink" }
            select #to name="to" { @for at in &detail.sinks { option value=(at.sink) { (at.sink) } } }
            button type="submit" name="do" value="replay" data-key="r" { "Replay…" }
            button.danger type="submit" name="do" value="purge" { "Purge…" }
        }
    }
}

fn body_of(detail: &EventDetail) -> Markup {
    let id = detail.event.id.to_string();
    let bytes = detail.event.body_bytes.unwrap_or(0);
    html! {
        @match (&detail.body, &detail.body_base64) {
            _ if detail.masked => p.empty { "Masked: you are here to look." },
            _ if detail.event.state == EventState::Purged => p.empty { "Its bytes are gone." },
            (Some(text), _) if text.len() <= MAX_SHOWN => {
                pre.code #body { (json::indented(text)) }
                details { summary { "The bytes as they came" } pre.code #raw { (text) } }
                div.actions { a href={ "/events/" (id) "/body" } download { "Download " (view::size(bytes)) } button.script type="button" data-copy="raw" { "Copy" } }
            }
            _ => p { "Not shown: it is no text, or too long. " a href={ "/events/" (id) "/body" } download { "Download " (view::size(bytes)) } }
        }
    }
}

/// How a program gets it. The token is not shown: whoever may see it has it.
fn curl(headers: &HeaderMap, id: &str) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1:9090");
    format!("curl -H \"Authorization: Bearer $TOKEN\" 'http://{host}/api/v1/events/{id}?body=true'")
}

/// `GET /events/{id}/body`: the bytes, exactly, for no browser to show.
pub(super) async fn body(State(console): State<Arc<Console>>, visit: Visit, Path(id): Path<String>) -> Page {
    let detail = console.api.event(&visit.caller, &id, true).await?;
    let bytes = match (detail.body, detail.body_base64) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(coded)) => STANDARD.decode(coded).map_err(|_| Problem::internal())?,
        (None, None) => return Err(Problem::not_found("its bytes are masked, or gone").into()),
    };
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{}.json\"", detail.event.id)),
    ];
    Ok((headers, bytes).into_response())
}
