//! Live: events as they come, Fin's words as they are written. The script reads the stream that programs read, too.

use axum::http::Uri;
use maud::html;

use super::frame::{Page, Screen, page};
use super::view::{self, field};
use super::visit::{Visit, asked};
use crate::event::names::EVENTS;

#[derive(serde::Deserialize)]
struct Asked {
    conversation: Option<String>,
    event: Option<String>,
}

/// `GET /live`
pub(super) async fn show(visit: Visit, uri: Uri) -> Page {
    let Asked { conversation, event } = asked(&uri)?;
    let of = |event: Option<&str>| view::link("/live", [("conversation", conversation.as_deref()), ("event", event)]);
    let stream = view::link(
        "/api/v1/stream",
        [("conversation", conversation.as_deref()), ("event", event.as_deref()), ("since", Some("5m"))],
    );
    let main = html! {
        h1 { "Live" }
        nav.chips aria-label="Which events" {
            a href=(of(None)) aria-current=[event.is_none().then_some("true")] { "all" }
            @for name in EVENTS { a href=(of(Some(name))) aria-current=[(event.as_deref() == Some(name)).then_some("true")] { (name) } }
        }
        form.filter method="get" action="/live" role="search" {
            (field("conversation", "Conversation", conversation.as_deref(), "id"))
            @if let Some(event) = &event { input type="hidden" name="event" value=(event); }
            div.buttons { button type="submit" { "Apply" } }
        }
        noscript { p.banner.warn { "This page needs JavaScript: it follows the stream of " code { "/api/v1/stream" } ". " a href="/events" { "Events" } " shows the same, as it was." } }
        div.actions.script {
            button #live-pause type="button" aria-pressed="false" data-key="p" { "Pause" }
            span #live-state role="status" { "Connecting" }
        }
        div.scroll tabindex="0" role="region" aria-label="Events" {
            table.live #live data-stream=(stream) {
                thead { tr { th { "Received" } th { "Event" } th { "Conversation" } th { "Status" } th { "Words" } } }
                tbody {}
            }
        }
    };
    Ok(page(&visit, Screen::Live, "Live", &main))
}
