//! Events: a table with all the filters of the API, which stand in the URL; export; and what to do with those that are chosen.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::Uri;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::IntoResponse;
use futures_util::stream;
use maud::{Markup, html};

use super::Console;
use super::frame::{Page, Screen, page};
use super::view::{self, badge, choice, csrf, field, word};
use super::visit::{Visit, asked};
use crate::admin::{AnyState, EventItem, EventPage, Export, ListQuery};
use crate::serve::Problem;

/// What is shown when nobody says since when.
const SINCE: &str = "1h";
/// How long parts of the journal in which nothing is found are passed over before a page is given out.
const PATIENCE: Duration = Duration::from_millis(50);
/// States to filter by, in the words of the API.
const STATES: [&str; 10] =
    ["stored", "quarantined", "stale", "purged", "pending", "retrying", "waiting", "delivered", "dead", "skipped"];

/// The filters of a query as pairs, without page and size.
pub(super) fn filters(query: &ListQuery) -> [(&'static str, Option<String>); 8] {
    let ListQuery { conversation, user, event, status, sink, state, since, until, .. } = query.clone();
    [
        ("conversation", conversation),
        ("user", user),
        ("event", event),
        ("status", status),
        ("sink", sink),
        ("state", state.map(word)),
        ("since", since),
        ("until", until),
    ]
}

/// `GET /events`
pub(super) async fn list(State(console): State<Arc<Console>>, visit: Visit, uri: Uri, RawQuery(raw): RawQuery) -> Page {
    let mut asked = of(&uri)?;
    let names: Vec<String> = console.api.sinks().await?.sinks.into_iter().map(|sink| sink.name).collect();
    let first = asked.cursor.is_none();
    let found = found(&console, &mut asked).await;
    let filters = filters(&asked);
    let get = |name: &str| filters.iter().find(|(known, _)| *known == name).and_then(|(_, value)| value.as_deref());
    let here = |cursor: Option<&str>| {
        let pairs = filters.iter().map(|(name, value)| (*name, value.as_deref()));
        view::link("/events", pairs.chain([("cursor", cursor)]))
    };
    let main = html! {
        h1 { "Events" }
        (view::done(raw.as_deref()))
        form.filter method="get" action="/events" role="search" {
            (field("conversation", "Conversation", get("conversation"), "id"))
            (field("user", "User", get("user"), "id"))
            (field("event", "Event", get("event"), "fin_replied"))
            (field("status", "Status", get("status"), "escalated"))
            (choice("sink", "Sink", get("sink"), names.iter().map(String::as_str)))
            (choice("state", "State", get("state"), STATES))
            (field("since", "Since", get("since"), "2h"))
            (field("until", "Until", get("until"), "now"))
            div.buttons {
                button type="submit" { "Apply" }
                a href="/events" { "The last hour" }
                a href=(view::link("/events/export", filters.iter().map(|(name, value)| (*name, value.as_deref())))) { "Export NDJSON" }
            }
        }
        @match found {
            Err(problem) => p.problem role="alert" { (problem.detail) },
            Ok(EventPage { events, next }) => {
                form method="post" action="/events/plan" {
                    (csrf(&visit))
                    @for (name, value) in &filters { @if let Some(value) = value { input type="hidden" name=(name) value=(value); } }
                    @if visit.may_change() && !events.is_empty() { (actions(&names)) }
                    (table(&visit, &events))
                }
                (view::pages((!first).then(|| here(None)), next.as_deref().map(|next| here(Some(next))), events.is_empty()))
            }
        }
    };
    Ok(page(&visit, Screen::Events, "Events", &main))
}

/// What a URL asks for; `done` and `n` say what was done before.
#[derive(serde::Deserialize)]
struct Said {
    conversation: Option<String>,
    user: Option<String>,
    event: Option<String>,
    status: Option<String>,
    sink: Option<String>,
    state: Option<AnyState>,
    since: Option<String>,
    until: Option<String>,
    cursor: Option<String>,
}

fn of(uri: &Uri) -> Result<ListQuery, Problem> {
    let Said { conversation, user, event, status, sink, state, since, until, cursor } = asked(uri)?;
    // Of what is gone nothing is known but the id.
    let any = conversation.is_some() || user.is_some() || state.is_some() || until.is_some() || cursor.is_some();
    let since = since.or_else(|| (!any).then(|| SINCE.to_owned()));
    Ok(ListQuery { conversation, user, event, status, sink, state, since, until, cursor, limit: None })
}

/// The first page in which something is, if it is found in time.
async fn found(console: &Console, asked: &mut ListQuery) -> Result<EventPage, Problem> {
    let began = Instant::now();
    loop {
        let page = console.api.events(asked.clone()).await?;
        match &page.next {
            Some(next) if page.events.is_empty() && began.elapsed() < PATIENCE => asked.cursor = Some(next.clone()),
            _ => return Ok(page),
        }
    }
}

fn actions(sinks: &[String]) -> Markup {
    html! {
        div.actions.bulk {
            fieldset {
                legend { "Do with" }
                label.check { input type="radio" name="which" value="selected" checked; " the selected" }
                label.check { input type="radio" name="which" value="all"; " all that match" }
            }
            label for="to" { "Sink" }
            select #to name="to" { @for sink in sinks { option value=(sink) { (sink) } } }
            button type="submit" name="do" value="replay" data-key="r" { "Replay…" }
            button.danger type="submit" name="do" value="purge" { "Purge…" }
            label.check.script { input #select-all type="checkbox"; " select the page" }
        }
    }
}

fn table(visit: &Visit, events: &[EventItem]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Events" {
            table {
                thead { tr {
                    @if visit.may_change() { th.c { span.sr { "Select" } } }
                    th { "Received" } th { "Event" } th { "Conversation" } th { "State" } th.w { "Status" } th.w { "User" } th.ww { "Endpoint" } th.n.w { "Size" }
                } }
                tbody {
                    @for event in events { (row(visit, event)) }
                    @if events.is_empty() { tr { td colspan="9" { "Nothing matches." } } }
                }
            }
        }
    }
}

fn row(visit: &Visit, event: &EventItem) -> Markup {
    let id = event.id.to_string();
    html! {
        tr data-row {
            @if visit.may_change() { td.c { input type="checkbox" name="id" value=(id) aria-label={ "Select " (id) }; } }
            td { a href=(view::path("/events", &id)) { (view::time(event.received_at.as_deref())) @if event.received_at.is_none() { (id) } } }
            td { (view::text(event.event.as_deref())) }
            td { @if let Some(id) = &event.conversation_id { a href=(view::path("/conversations", id)) { (view::id(id)) } } @else { span.none { "–" } } }
            td { (badge(&event.sink_state.map_or_else(|| word(event.state), word))) }
            td.w { (view::text(event.status.as_deref())) }
            td.w { (view::text(event.user_id.as_deref())) }
            td.ww { (view::text(event.endpoint.as_deref())) }
            td.n.w { @if let Some(bytes) = event.body_bytes { (view::size(bytes)) } @else { span.none { "–" } } }
        }
    }
}

/// `GET /events/export`: what the filters mean, as the lines that a file sink would write, oldest first.
pub(super) async fn export(State(console): State<Arc<Console>>, visit: Visit, uri: Uri) -> Page {
    let export = Export::new(Arc::clone(&console.api), &visit.caller, of(&uri)?).await?;
    tracing::info!(by = %visit.caller, "events are exported from the console");
    // A failure in the middle ends the file, and is in the log.
    let lines = stream::unfold(export, |mut export| async {
        let lines = export.next().await.ok().flatten()?;
        Some((Ok::<_, Infallible>(lines), export))
    });
    let headers =
        [(CONTENT_TYPE, "application/x-ndjson"), (CONTENT_DISPOSITION, "attachment; filename=\"events.ndjson\"")];
    Ok((headers, Body::from_stream(lines)).into_response())
}
