//! Sinks: how each stands, what it gets, and what an operator can do about it.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Redirect};
use maud::{Markup, html};

use super::Console;
use super::frame::{Failed, Page, Screen, page};
use super::view::{self, badge, csrf, length, number, word};
use super::visit::{Change, Visit};
use crate::admin::{Mode, SinkItem};
use crate::serve::Problem;

/// `GET /sinks`
pub(super) async fn list(State(console): State<Arc<Console>>, visit: Visit, RawQuery(query): RawQuery) -> Page {
    let sinks = console.api.sinks().await?.sinks;
    let main = html! {
        h1 { "Sinks" }
        (view::done(query.as_deref()))
        div #sinks data-refresh="5" {
            @for sink in &sinks { (card(&console, &visit, sink)) }
            @if sinks.is_empty() { p.empty { "There is no sink: events are stored and go nowhere." } }
        }
    };
    Ok(page(&visit, Screen::Sinks, "Sinks", &main))
}

fn card(console: &Console, visit: &Visit, sink: &SinkItem) -> Markup {
    let name = &*sink.name;
    let facts = [
        ("behind", number(sink.lag)),
        ("in flight", number(sink.in_flight)),
        ("waiting", number(sink.waiting)),
        ("dead", number(sink.dead)),
    ];
    html! {
        section.card data-row tabindex="-1" aria-labelledby={ "sink-" (name) } {
            div.head {
                h2 #{ "sink-" (name) } { (name) }
                (badge(&word(sink.state)))
                @if let Some(settings) = console.facts.sink(name) { span.hint { (settings.kind) } }
            }
            dl.figures { @for (what, value) in facts { div { dt { (what) } dd { (value) } } }
                div { dt { "oldest" } dd { @if sink.oldest_undelivered_seconds > 0.0 { (length(sink.oldest_undelivered_seconds)) } @else { "–" } } }
            }
            @if let Some(error) = &sink.last_error {
                p.problem { (view::time(sink.last_error_at.as_deref())) " " bdi { (error) } }
            }
            @if let Some(settings) = console.facts.sink(name) {
                p.hint { "Gets " (settings.gets) ". " a href=(view::link("/events", [("sink", Some(name)), ("since", Some("1h"))])) { "What it gets" } }
            }
            @if visit.may_change() && !matches!(sink.state, Mode::Removed | Mode::Disabled) {
                div.actions {
                    @if sink.state == Mode::Paused || sink.state == Mode::Failing {
                        (button(visit, name, "resume", if sink.state == Mode::Failing { "Try now" } else { "Resume" }, "r"))
                    }
                    @if sink.state != Mode::Paused { (button(visit, name, "pause", "Pause", "p")) }
                    @if sink.dead > 0 {
                        (button(visit, name, "retry-dead", "Retry dead letters", "r"))
                        a href=(view::link("/dead-letters", [("sink", Some(name))])) { "Look at them" }
                    }
                }
            }
        }
    }
}

pub(super) fn button(visit: &Visit, sink: &str, change: &str, label: &str, key: &str) -> Markup {
    html! {
        form method="post" action=(format!("/sinks/{sink}/{change}")) {
            (csrf(visit))
            button type="submit" data-key=(key) { (label) span.sr { " " (sink) } }
        }
    }
}

/// `POST /sinks/{name}/{change}`
pub(super) async fn change(
    State(console): State<Arc<Console>>,
    Path((name, change)): Path<(String, String)>,
    Change { visit, form }: Change,
) -> Page {
    let mut count = None;
    match &*change {
        "pause" | "resume" => drop(console.api.set_paused(&visit.caller, &name, change == "pause").await?),
        "retry-dead" => count = Some(console.api.retry_dead(&visit.caller, &name).await?.events.to_string()),
        _ => return Err(Failed::from(Problem::not_found("there is no such change"))),
    }
    let back = if form.get("back") == Some("dead-letters") { "/dead-letters" } else { "/sinks" };
    let to = view::link(back, [("done", Some(&*change)), ("n", count.as_deref())]);
    Ok(Redirect::to(&to).into_response())
}
