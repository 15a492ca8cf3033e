//! Questions of people, and their answers: which events are there, what became of one, how do the sinks stand?

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::types::SinkState;
use crate::event::{Event, Kind};

/// What an event is, whatever the sinks do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventState {
    /// Stored and delivered.
    Stored,
    /// Authentic, but not an event: kept, not delivered.
    Quarantined,
    /// Authentic, but older than the dedupe window: kept, not delivered.
    Stale,
    /// Its bytes are gone, by purge or retention; its id is still recognised.
    Purged,
}

/// How far an event has come at one sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// To be delivered.
    Pending,
    /// Failed at least once; to be tried again.
    Retrying,
    /// Behind another of its conversation that is retried, or just asked for again.
    Waiting,
    /// The sink has it.
    Delivered,
    /// Given up on; kept until it is retried or purged.
    Dead,
    /// Not for this sink: it does not match, is no Fin event, or is older than the sink.
    Skipped,
}

impl From<Kind> for EventState {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Event => Self::Stored,
            Kind::Stale => Self::Stale,
            Kind::Quarantined => Self::Quarantined,
        }
    }
}

/// Whether the sink of that name gets this event, as far as the configuration knows. The event comes without its body.
pub type Wants = Arc<dyn Fn(&str, &Event) -> bool + Send + Sync>;

/// Which events are meant; all that is given must hold.
#[derive(Clone, Default)]
pub struct Filter {
    /// Equals `conversation_id`.
    pub conversation: Option<String>,
    /// Equals `user_id`.
    pub user: Option<String>,
    /// Equals `event_name`.
    pub event: Option<String>,
    /// Equals `status`.
    pub status: Option<String>,
    /// The event's own state.
    pub state: Option<EventState>,
    /// Its state at `sink`, or at any sink.
    pub delivery: Option<DeliveryState>,
    /// Name of the sink that `delivery` is about; alone: events that this sink gets.
    pub sink: Option<String>,
    /// Received then or later, unix milliseconds.
    pub since_ms: Option<i64>,
    /// Received before then, unix milliseconds.
    pub until_ms: Option<i64>,
}

/// From which end to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Newest first.
    Newest,
    /// Oldest first.
    Oldest,
}

/// An event in a list: everything but its body.
#[derive(Debug)]
pub struct Listed {
    /// Its place in the journal.
    pub seq: u64,
    /// The event, with an empty body.
    pub event: Event,
    /// The body's size.
    pub body_bytes: u64,
    /// Its state at the filter's sink; without one the state that was asked for, which it has at some sink.
    pub delivery: Option<DeliveryState>,
}

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// The events that were found; may be none although there are more pages.
    pub events: Vec<Listed>,
    /// Where to go on; `None` at the end.
    pub next: Option<u64>,
}

/// An event's standing at one sink.
#[derive(Debug)]
pub struct Delivery {
    /// The sink's name.
    pub sink: String,
    /// How far it has come.
    pub state: DeliveryState,
    /// Attempts that failed; not known any more once it is delivered.
    pub attempts: Option<u32>,
    /// The next attempt, unix milliseconds.
    pub next_ms: Option<i64>,
    /// When it was given up on, unix milliseconds.
    pub died_ms: Option<i64>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// The replay that waits to be delivered.
    pub replay: Option<String>,
}

/// What there is about an id.
#[derive(Debug)]
pub enum Found {
    /// Stored, with its standing at every sink. The body is there only when it was asked for.
    Stored(Box<Listed>, Vec<Delivery>),
    /// Its bytes are gone.
    Purged {
        /// Its place in the journal.
        seq: u64,
    },
    /// What is on disk is not what was stored.
    Damaged {
        /// Its place in the journal.
        seq: u64,
    },
}

/// What an id stands for, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolved {
    /// Never seen, or forgotten.
    Unknown,
    /// Its bytes are gone.
    Purged,
    /// Stored.
    Stored {
        /// Its place in the journal.
        seq: u64,
        /// What it is.
        state: EventState,
        /// The body's size.
        body_bytes: u64,
    },
}

/// How a sink stands on disk.
#[derive(Debug)]
pub struct SinkReport {
    /// What the journal knows of it.
    pub state: SinkState,
    /// Parked events: retried, or waiting behind one that is.
    pub parked: u64,
    /// Dead letters.
    pub dead: u64,
    /// When the oldest event that it still has to deliver was received, unix milliseconds.
    pub oldest_ms: Option<i64>,
}
