//! Dead letters: what was given up on, grouped by why, and how to try again.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::Uri;
use maud::{Markup, html};

use super::Console;
use super::frame::{Page, Screen, page};
use super::sinks::button;
use super::view::{self, number};
use super::visit::{Visit, asked};
use crate::admin::{AnyState, EventItem, ListQuery, SinkItem};

/// How many of a sink are looked at, for their causes.
const LOOKED_AT: usize = 100;

#[derive(serde::Deserialize)]
struct Asked {
    sink: Option<String>,
}

/// `GET /dead-letters`
pub(super) async fn list(
    State(console): State<Arc<Console>>,
    visit: Visit,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Page {
    let Asked { sink } = asked(&uri)?;
    let sinks = console.api.sinks().await?.sinks;
    let mut groups = Vec::new();
    for item in sinks.iter().filter(|item| item.dead > 0 && sink.as_ref().is_none_or(|only| *only == item.name)) {
        groups.push((item, causes(&console, &visit, &item.name).await?));
    }
    let main = html! {
        h1 { "Dead letters" }
        (view::done(query.as_deref()))
        p.hint { "What a sink refused, or what could not be delivered in time. They are kept until somebody retries or purges them." }
        @if let Some(only) = &sink { p { "Of " b { (only) } ". " a href="/dead-letters" { "Of all sinks" } } }
        @for (item, causes) in &groups { (section(&visit, item, causes)) }
        @if groups.is_empty() { p.empty { "None: everything was delivered, or is still being tried." } }
    };
    Ok(page(&visit, Screen::DeadLetters, "Dead letters", &main))
}

/// Why, and which.
type Causes = Vec<(String, Vec<EventItem>)>;

/// The newest dead letters of a sink by their cause.
async fn causes(console: &Console, visit: &Visit, sink: &str) -> Result<Causes, crate::serve::Problem> {
    let query = ListQuery {
        sink: Some(sink.to_owned()),
        state: Some(AnyState::Dead),
        limit: Some(LOOKED_AT),
        ..ListQuery::default()
    };
    let mut causes = Causes::new();
    for event in console.api.events(query).await?.events {
        let detail = console.api.event(&visit.caller, &event.id.to_string(), false).await?;
        let error = detail.sinks.into_iter().find(|at| at.sink == sink).and_then(|at| at.error);
        let error = error.unwrap_or_else(|| "no reason is known".to_owned());
        match causes.iter_mut().find(|(known, _)| *known == error) {
            Some((_, events)) => events.push(event),
            None => causes.push((error, vec![event])),
        }
    }
    Ok(causes)
}

fn section(visit: &Visit, sink: &SinkItem, causes: &Causes) -> Markup {
    let name = &*sink.name;
    let looked: usize = causes.iter().map(|(_, events)| events.len()).sum();
    html! {
        section.card {
            div.head {
                h2 { (name) }
                span.hint { (number(sink.dead)) @if looked < usize::try_from(sink.dead).unwrap_or(usize::MAX) { ", of which these are the newest" } }
                @if visit.may_change() { div.actions { (button(visit, name, "retry-dead", "Retry all", "r")) } }
            }
            @for (error, events) in causes {
                h3 { bdi { (error) } " " span.count { (events.len()) } }
                div.scroll tabindex="0" role="region" aria-label={ "Dead letters: " (error) } {
                    table {
                        thead { tr { th { "Received" } th { "Event" } th { "Conversation" } th.w { "User" } } }
                        tbody { @for event in events { tr data-row {
                            td { a href=(view::path("/events", &event.id.to_string())) { (view::time(event.received_at.as_deref())) } }
                            td { (view::text(event.event.as_deref())) }
                            td { @if let Some(id) = &event.conversation_id { a href=(view::path("/conversations", id)) { (view::id(id)) } } @else { span.none { "–" } } }
                            td.w { (view::text(event.user_id.as_deref())) }
                        } } }
                    }
                }
            }
        }
    }
}
