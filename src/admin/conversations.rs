//! `/api/v1/conversations`: list and show.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Api;
use super::events::DeliveryItem;
use super::filters::{Asked, time};
use super::rules::{ConversationCursor, DEFAULT_LIMIT, MAX_LIMIT, Moment, PageLimit, Seq};
use crate::clock;
use crate::conversations::transcript::{self, Kind};
use crate::conversations::{Conversation, Cursor, Filter};
use crate::event::Event;
use crate::journal::{Delivery, Listed};
use crate::serve::Problem;
use crate::serve::guard::Caller;

/// A conversation and how it stands.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConversationItem {
    /// `conversation_id`.
    pub id: String,
    /// Name of the endpoint that its events came in by.
    pub endpoint: String,
    /// The `status` of its newest event that has one.
    pub state: Option<String>,
    /// The `reason` that came with that.
    pub reason: Option<String>,
    /// Name of its newest event.
    pub last_event: String,
    /// Time of its first event, RFC 3339.
    pub first_at: Option<String>,
    /// Time of its latest event, RFC 3339.
    pub last_at: Option<String>,
    /// Its events that are stored.
    pub events: u64,
    /// Since when it has been the user's turn, RFC 3339; only while it is.
    pub awaiting_since: Option<String>,
}

/// One page of conversations, latest first.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConversationPage {
    /// What was found; a page can be empty and not the last, as each looks at a bounded number of conversations.
    pub conversations: Vec<ConversationItem>,
    /// `cursor` of the next page; null on the last.
    pub next: Option<String>,
    /// Stored events that are not taken into account yet: for a moment after they came, and while the list is made anew.
    pub behind: u64,
}

/// An entry of a transcript: one event.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TranscriptEntry {
    /// The event's id.
    pub id: Uuid,
    /// Its place in the journal.
    pub seq: u64,
    /// What it is.
    pub kind: Kind,
    /// The event's name.
    pub event: Option<String>,
    /// When it was created, RFC 3339; when it was received, where it does not say.
    pub at: Option<String>,
    /// When it was received, RFC 3339.
    pub received_at: Option<String>,
    /// Who said it: `fin`, or a person.
    pub author: Option<String>,
    /// What was said, as it is stored. It is somebody else's HTML: clean it before you show it.
    pub html: Option<String>,
    /// The same as plain text.
    pub text: Option<String>,
    /// Something was said that is kept from this caller: `admin.reader_token`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub masked: bool,
    /// `user_id`.
    #[serde(default)]
    pub user_id: Option<String>,
    /// `status`.
    pub status: Option<String>,
    /// `reason`.
    pub reason: Option<String>,
    /// The way in: `webhook`, or `event_stream`.
    pub way: Way,
    /// How far it has come at each sink.
    pub sinks: Vec<DeliveryItem>,
}

/// How an event came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Signed, by HTTP.
    Webhook,
    /// By Fin's event stream.
    EventStream,
}

/// A conversation with what was said in it.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Transcript {
    /// The conversation.
    pub conversation: ConversationItem,
    /// Its events, in the order in which they were stored.
    pub entries: Vec<TranscriptEntry>,
    /// `cursor` of the next page; null on the last.
    pub next: Option<String>,
}

/// Which conversations; all that is given must hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ConversationQuery {
    /// Name of the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub endpoint: Option<String>,
    /// The state, e.g. `escalated`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub state: Option<String>,
    /// What the id begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub prefix: Option<String>,
    /// Latest event then or later: RFC 3339, or how long ago, e.g. `2h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<Moment>, nullable = false)]
    pub since: Option<String>,
    /// Latest event before then: RFC 3339, or how long ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<Moment>, nullable = false)]
    pub until: Option<String>,
    /// Conversations in one page: 1 to 1000, 100 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<PageLimit>, nullable = false)]
    pub limit: Option<usize>,
    /// `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<ConversationCursor>, nullable = false)]
    pub cursor: Option<String>,
}

/// What to show of one conversation.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TranscriptQuery {
    /// Name of the endpoint: needed where several have the id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub endpoint: Option<String>,
    /// Entries in one page: 1 to 1000, 100 if not given. A page may have fewer and not be the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<PageLimit>, nullable = false)]
    pub limit: Option<usize>,
    /// `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<Seq>, nullable = false)]
    pub cursor: Option<String>,
}

impl ConversationQuery {
    /// What is wrong with it by itself: the handler and the command line ask it alike.
    ///
    /// # Errors
    /// 400, saying what is right.
    pub fn check(&self) -> Result<(), Problem> {
        limit(self.limit)?;
        self.filter().map(drop)
    }

    fn filter(&self) -> Result<Filter, Problem> {
        Ok(Filter {
            endpoint: self.endpoint.clone(),
            state: self.state.clone(),
            prefix: self.prefix.clone(),
            since_ms: time("since", self.since.as_deref())?,
            until_ms: time("until", self.until.as_deref())?,
        })
    }
}

fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    let limit = asked.unwrap_or(DEFAULT_LIMIT);
    if (1..=MAX_LIMIT).contains(&limit) { Ok(limit) } else { Err(Problem::bad(format!("limit is 1 to {MAX_LIMIT}"))) }
}

fn bad_cursor() -> Problem {
    Problem::bad("cursor is the next of an earlier page with the same filters")
}

/// List conversations, latest first.
#[utoipa::path(get, path = "/api/v1/conversations", operation_id = "list_conversations", tag = "conversations", params(ConversationQuery), responses(
    (status = 200, description = "One page", body = ConversationPage),
    (status = 400, description = "A filter is wrong", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Asked(asked): Asked<ConversationQuery>,
) -> Result<Json<ConversationPage>, Problem> {
    Ok(Json(api.conversations(asked).await?))
}

fn cursor(text: &str) -> Option<Cursor> {
    let (last_ms, number) = text.split_once('.')?;
    Some((last_ms.parse().ok()?, number.parse().ok()?))
}

/// Show what was said in a conversation, and how far each event has come.
#[utoipa::path(get, path = "/api/v1/conversations/{id}", operation_id = "show_conversation", tag = "conversations", params(("id" = String, Path, description = "The conversation's id"), TranscriptQuery), responses(
    (status = 200, description = "The conversation", body = Transcript),
    (status = 400, description = "The query is wrong", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "No stored event is of this conversation", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "Several endpoints have the id: name one", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Asked(asked): Asked<TranscriptQuery>,
) -> Result<Json<Transcript>, Problem> {
    Ok(Json(api.transcript(&caller, &id, asked).await?))
}

impl Api {
    /// One page of conversations, latest first.
    ///
    /// # Errors
    /// The query is wrong, or they can't be read.
    pub async fn conversations(&self, asked: ConversationQuery) -> Result<ConversationPage, Problem> {
        let (limit, filter) = (limit(asked.limit)?, asked.filter()?);
        let from = asked.cursor.map(|text| cursor(&text).ok_or_else(bad_cursor)).transpose()?;
        let page = self.conversations.list(filter, from, limit).await?;
        let next = page.next.map(|(last_ms, number)| format!("{last_ms}.{number}"));
        let conversations = page.conversations.into_iter().map(ConversationItem::from).collect();
        Ok(ConversationPage { conversations, next, behind: self.conversations.behind() })
    }

    /// One page of what was said in a conversation, without the words where they are kept from the caller.
    ///
    /// # Errors
    /// There is no such conversation, the query is wrong, or the journal can't be read.
    pub async fn transcript(&self, caller: &Caller, id: &str, asked: TranscriptQuery) -> Result<Transcript, Problem> {
        let limit = limit(asked.limit)?;
        let after = asked.cursor.map(|text| text.parse().map_err(|_| bad_cursor())).transpose()?.unwrap_or(0);
        let mut found = self.conversations.find(id.to_owned(), asked.endpoint).await?;
        let conversation = match (found.pop(), found.is_empty()) {
            (None, _) => return Err(Problem::not_found("no stored event is of this conversation")),
            (Some(only), true) => only,
            (Some(last), false) => {
                let names: Vec<String> = found.into_iter().chain([last]).map(|each| each.endpoint).collect();
                return Err(Problem::conflict(format!(
                    "several endpoints have this id, name one: {}",
                    names.join(", ")
                )));
            }
        };
        let seqs = self.conversations.events(conversation.number, after, limit).await?;
        let (asked, last) = (seqs.len(), seqs.last().copied());
        let shown = self.reader.show(seqs, self.wants.clone()).await?;
        // Fewer where a page is full of bytes; what is gone is left out.
        let next = match (shown.last(), last) {
            (Some((listed, _)), Some(last)) if listed.seq < last => Some(listed.seq),
            (_, last) => last.filter(|_| asked == limit),
        };
        let entries = shown.into_iter().map(|shown| TranscriptEntry::of(shown, caller.is_reader())).collect();
        Ok(Transcript { conversation: conversation.into(), entries, next: next.map(|next| next.to_string()) })
    }
}

impl From<Conversation> for ConversationItem {
    fn from(it: Conversation) -> Self {
        let Conversation { endpoint, id, state, reason, last_event, first_ms, last_ms, events, awaiting_ms, .. } = it;
        let (first_at, last_at) = (clock::rfc3339(first_ms), clock::rfc3339(last_ms));
        let awaiting_since = awaiting_ms.and_then(clock::rfc3339);
        Self { id, endpoint, state, reason, last_event, first_at, last_at, events, awaiting_since }
    }
}

impl Way {
    pub(super) fn of(event: &Event) -> Self {
        if event.signature.is_some() { Self::Webhook } else { Self::EventStream }
    }
}

impl TranscriptEntry {
    fn of((listed, deliveries): (Listed, Vec<Delivery>), masked: bool) -> Self {
        let event = &listed.event;
        let mut said = transcript::read(event);
        let masked = masked && said.html.is_some();
        if masked {
            said.html = None;
            // Roles are no secret; names are of people.
            said.author = said.author.filter(|author| matches!(&**author, "fin" | "user"));
        }
        let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        let at = if event.created_ms > 0 { event.created_ms } else { event.received_ms };
        Self {
            id: event.id,
            seq: listed.seq,
            kind: said.kind,
            event: text(&event.fields.event_name),
            at: clock::rfc3339(at),
            received_at: clock::rfc3339(event.received_ms),
            author: said.author,
            text: said.html.as_deref().map(transcript::plain),
            html: said.html,
            user_id: text(&event.fields.user_id),
            status: text(&event.fields.status),
            reason: text(&event.fields.reason),
            masked,
            way: Way::of(event),
            sinks: deliveries.into_iter().map(DeliveryItem::from).collect(),
        }
    }
}
