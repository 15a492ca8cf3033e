//! The shapes of the Fin Agent API as JSON: requests, answers and events.
//!
//! One set of types for all who speak Fin's language: [`crate::fake_fin`] writes them, [`crate::gateway`] and
//! `finhook chat` read them, so that the stand-in cannot drift from what finhook reads. Every field that Fin may leave
//! out is optional, and unknown ones are ignored. The pipe itself does not use them: to it an event is its raw bytes.
//!
//! Sources: the setup guide of the Fin Agent API and Intercom's public OpenAPI descriptions 2.14 and later.

use serde::{Deserialize, Serialize};

pub use crate::event::names::*;

/// Lowest `Intercom-Version` with the Fin Agent API, as (major, minor).
pub const LOWEST_VERSION: (u32, u32) = (2, 14);
/// Header that names the version of the API.
pub const VERSION_HEADER: &str = "intercom-version";

/// Body of `POST /fin/start` and `POST /fin/reply`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Say {
    /// Chosen by the caller of `/fin/start`.
    pub conversation_id: String,
    /// What the user says.
    pub message: Message,
    /// Who says it.
    pub user: User,
    /// At most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<serde_json::Value>,
    /// Start only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_metadata: Option<Metadata>,
}

/// `conversation_metadata` of `POST /fin/start`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Metadata {
    /// Earlier messages, at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<serde_json::Value>,
    /// At most ten.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub attributes: serde_json::Map<String, serde_json::Value>,
}

/// A message, in a request (`author: "user"`, plain text) or in `fin_replied` (`author: "fin"`, HTML).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Message {
    /// Identifies Fin's reply across webhook and SSE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `user` or `fin`.
    pub author: String,
    /// The text; from Fin it is HTML made of customers' content: hostile until shown to be safe.
    pub body: String,
    /// RFC 3339, in a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// RFC 3339, in `fin_replied`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_ms: Option<String>,
}

/// The user of a conversation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct User {
    /// The caller's own id of the user.
    pub id: String,
    /// Shown to people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For matching with Intercom's users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// At most ten.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub attributes: serde_json::Map<String, serde_json::Value>,
}

/// Body of `POST /fin/csat`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Rate {
    /// The conversation that is rated.
    pub conversation_id: String,
    /// The key of one of the options of `csat_requested`.
    pub rating: String,
    /// In the user's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

/// Answer to `POST /fin/start` and `POST /fin/reply`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Answer {
    /// The conversation.
    pub conversation_id: String,
    /// Its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Usually `thinking`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at_ms: Option<String>,
    /// Where this reply's events can be read; a credential for three minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sse_subscription_url: Option<String>,
    /// Attributes that were not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<serde_json::Value>,
}

/// Body of an answer that reports an error.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ErrorList {
    /// Always `error.list`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For Intercom's support.
    #[serde(default)]
    pub request_id: String,
    /// At least one.
    pub errors: Vec<Problem>,
}

/// One of the errors of an [`ErrorList`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Problem {
    /// For programs.
    pub code: String,
    /// For people.
    #[serde(default)]
    pub message: String,
}

/// Any event, by webhook or SSE. `event_name` says which of the fields to expect.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Event {
    /// One of the names above, or one that finhook does not know yet.
    pub event_name: String,
    /// The conversation.
    pub conversation_id: String,
    /// Absent in `fin_reply_chunk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Of a reply, a chunk or a change of status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Why it was escalated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of `fin_replied`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Message>,
    /// Ties the chunks of a reply together, and to its `fin_replied`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// From 0, without gaps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_index: Option<u64>,
    /// The whole plain text so far: replaces that of the chunk before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_text: Option<String>,
    /// Of `csat_requested`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csat: Option<Csat>,
    /// RFC 3339 with milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at_ms: Option<String>,
}

/// What a user is asked to choose from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Csat {
    /// From worst to best.
    pub options: Vec<CsatOption>,
}

/// One possible rating.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CsatOption {
    /// What [`Rate::rating`] takes: `terrible`, `bad`, `ok`, `good` or `amazing`.
    pub key: String,
    /// Shown to people.
    #[serde(default)]
    pub emoji: String,
    /// Shown to people.
    #[serde(default)]
    pub label: String,
}

impl Event {
    /// Whether Fin's turn is over with this event, so that its SSE token is revoked. A request for a rating may still
    /// follow `complete`.
    #[must_use]
    pub fn ends_turn(&self) -> bool {
        let closes = matches!(self.status.as_deref(), Some(AWAITING | COMPLETE));
        closes && matches!(self.event_name.as_str(), REPLIED | STATUS_UPDATED)
    }
}
