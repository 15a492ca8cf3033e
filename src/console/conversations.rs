//! Conversations, and what was said in one.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::Uri;
use maud::{Markup, html};

use super::frame::{Page, Screen, page};
use super::view::{self, badge, csrf, field, mark};
use super::visit::{Visit, asked};
use super::{Console, words};
use crate::admin::{ConversationItem, ConversationQuery, Transcript, TranscriptEntry, TranscriptQuery, Way};
use crate::conversations::transcript::Kind;

/// Entries on one page of a transcript: a long conversation is read as a whole.
const ENTRIES: usize = 1000;

/// `GET /conversations`
pub(super) async fn list(State(console): State<Arc<Console>>, visit: Visit, uri: Uri) -> Page {
    let asked: ConversationQuery = asked(&uri)?;
    let filters = [
        ("prefix", asked.prefix.clone()),
        ("state", asked.state.clone()),
        ("endpoint", asked.endpoint.clone()),
        ("since", asked.since.clone()),
        ("until", asked.until.clone()),
    ];
    let get = |name: &str| filters.iter().find(|(known, _)| *known == name).and_then(|(_, value)| value.as_deref());
    let here = |cursor: Option<&str>| {
        let pairs = filters.iter().map(|(name, value)| (*name, value.as_deref()));
        view::link("/conversations", pairs.chain([("cursor", cursor)]))
    };
    let first = asked.cursor.is_none();
    let found = console.api.conversations(asked).await;
    let main = html! {
        h1 { "Conversations" }
        form.filter method="get" action="/conversations" role="search" {
            (field("prefix", "Id begins with", get("prefix"), "id"))
            (field("state", "State", get("state"), "escalated"))
            (field("endpoint", "Endpoint", get("endpoint"), "fin"))
            (field("since", "Since", get("since"), "2h"))
            (field("until", "Until", get("until"), "now"))
            div.buttons { button type="submit" { "Apply" } a href="/conversations" { "All" } }
        }
        @match found {
            Err(problem) => p.problem role="alert" { (problem.detail) },
            Ok(page) => {
                @if page.behind > 0 { p.hint { (view::number(page.behind)) " events are not taken into account yet." } }
                div #list data-refresh="5" { (table(&page.conversations)) }
                (view::pages((!first).then(|| here(None)), page.next.as_deref().map(|next| here(Some(next))), page.conversations.is_empty()))
            }
        }
    };
    Ok(page(&visit, Screen::Conversations, "Conversations", &main))
}

fn at(conversation: &ConversationItem) -> String {
    view::link(&view::path("/conversations", &conversation.id), [("endpoint", Some(&*conversation.endpoint))])
}

fn table(conversations: &[ConversationItem]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Conversations" {
            table {
                thead { tr {
                    th { "Latest" } th { "Conversation" } th { "State" } th.n { "Events" } th.w { "Last event" } th.w { "Customer's turn since" } th.w { "Endpoint" }
                } }
                tbody {
                    @for one in conversations { tr data-row {
                        td { (view::time(one.last_at.as_deref())) }
                        td { a href=(at(one)) { (view::id(&one.id)) } }
                        td { @if let Some(state) = &one.state { (badge(state)) } @else { span.none { "–" } } @if let Some(reason) = &one.reason { " " bdi.hint { (reason) } } }
                        td.n { (one.events) }
                        td.w { (view::text(Some(&one.last_event))) }
                        td.w { (view::time(one.awaiting_since.as_deref())) }
                        td.w { (one.endpoint) }
                    } }
                    @if conversations.is_empty() { tr { td colspan="7" { "None." } } }
                }
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct Asked {
    endpoint: Option<String>,
    cursor: Option<String>,
}

/// `GET /conversations/{id}`
pub(super) async fn show(State(console): State<Arc<Console>>, visit: Visit, Path(id): Path<String>, uri: Uri) -> Page {
    let Asked { endpoint, cursor } = asked(&uri)?;
    let first = cursor.is_none();
    let query = TranscriptQuery { endpoint, limit: Some(ENTRIES), cursor };
    let Transcript { conversation, entries, next } = console.api.transcript(&visit.caller, &id, query).await?;
    let here = |cursor: Option<&str>| {
        view::link(
            &view::path("/conversations", &id),
            [("endpoint", Some(&*conversation.endpoint)), ("cursor", cursor)],
        )
    };
    let stream = view::link("/api/v1/stream", [("conversation", Some(&*conversation.id))]);
    let user = entries.iter().find_map(|entry| entry.user_id.as_deref());
    let main = html! {
        p.crumbs { a href="/conversations" { "Conversations" } }
        div #conversation data-live=(stream) data-refresh="3" {
            (head(&conversation, user))
            ol.transcript aria-label="What was said" { @for entry in &entries { (said(entry)) } }
            nav.pages aria-label="Pages" {
                @if !first { a href=(here(None)) { "← From the beginning" } }
                @if let Some(next) = &next { a href=(here(Some(next))) rel="next" { "Later →" } }
            }
        }
        div #writing role="status" {}
        @if visit.may_change() { (actions(&console, &visit, &conversation, user).await?) }
    };
    Ok(page(&visit, Screen::Conversations, &conversation.id, &main))
}

fn head(it: &ConversationItem, user: Option<&str>) -> Markup {
    html! {
        h1 { (view::id(&it.id)) " " @if let Some(state) = &it.state { (badge(state)) } }
        dl.facts.wide {
            dt { "Events" } dd { a href=(view::link("/events", [("conversation", Some(&*it.id))])) { (it.events) } " at " (it.endpoint) }
            dt { "From" } dd { (view::time(it.first_at.as_deref())) " to " (view::time(it.last_at.as_deref())) }
            @if let Some(user) = user { dt { "User" } dd { a href=(view::link("/events", [("user", Some(user))])) { (view::id(user)) } } }
            @if let Some(reason) = &it.reason { dt { "Reason" } dd { bdi { (reason) } } }
            @if it.awaiting_since.is_some() { dt { "Customer's turn" } dd { "since " (view::time(it.awaiting_since.as_deref())) } }
        }
    }
}

/// An entry: a message, or what happened between messages.
fn said(entry: &TranscriptEntry) -> Markup {
    let link = view::path("/events", &entry.id.to_string());
    let marks = html! { span.marks { @for at in &entry.sinks { (mark(&at.sink, at.state, at.error.as_deref())) } } };
    if entry.kind == Kind::Message {
        let author = entry.author.as_deref().unwrap_or("somebody");
        let side = match author {
            "fin" => "fin",
            "user" => "user",
            _ => "person",
        };
        return html! {
            li class={ "message " (side) } data-row {
                p.by { bdi.author { (author) } " " a href=(link) { (view::time(entry.at.as_deref())) } @if entry.way == Way::EventStream { " " span.hint { "by event stream" } } }
                div.words {
                    @match &entry.html {
                        Some(html) => (words::show(html)),
                        None if entry.masked => span.hint { "Masked." },
                        None => span.hint { "Without words." },
                    }
                }
                (marks)
            }
        };
    }
    let status = entry.status.as_deref().unwrap_or_default();
    html! {
        li.between class=[(status == "escalated").then_some("escalated")] data-row {
            @match entry.kind {
                Kind::Status => { (badge(status)) @if let Some(reason) = &entry.reason { " " bdi { (reason) } } },
                Kind::Rating => span { "asks for a rating" },
                _ => (view::text(entry.event.as_deref())),
            }
            " " a href=(link) { (view::time(entry.at.as_deref())) } " " (marks)
        }
    }
}

async fn actions(
    console: &Console,
    visit: &Visit,
    conversation: &ConversationItem,
    user: Option<&str>,
) -> Result<Markup, crate::serve::Problem> {
    let sinks = console.api.sinks().await?.sinks;
    Ok(html! {
        div.actions {
            form method="post" action="/events/plan" {
                (csrf(visit))
                input type="hidden" name="which" value="all";
                input type="hidden" name="conversation" value=(conversation.id);
                label for="to" { "Sink" }
                select #to name="to" { @for sink in &sinks { option value=(sink.name) { (sink.name) } } }
                button type="submit" name="do" value="replay" data-key="r" { "Replay the conversation…" }
            }
            @if let Some(user) = user {
                form method="post" action="/events/plan" {
                    (csrf(visit))
                    input type="hidden" name="which" value="all";
                    input type="hidden" name="user" value=(user);
                    button.danger type="submit" name="do" value="purge" { "Purge the person…" }
                }
            }
        }
    })
}
