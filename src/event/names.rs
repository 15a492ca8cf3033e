//! Names that Fin gives: of headers, events and statuses. Events and statuses that are not here are ordinary, too.

/// Header of a webhook that carries its signature (setup guide of the Fin Agent API).
pub const SIGNATURE_HEADER: &str = "x-fin-agent-api-webhook-signature";
/// Header of the settings page's test that carries its signature, as in Intercom's classic webhooks.
pub const TEST_SIGNATURE_HEADER: &str = "x-hub-signature";

/// `event_name` of a reply.
pub const REPLIED: &str = "fin_replied";
/// `event_name` of a change of status.
pub const STATUS_UPDATED: &str = "fin_status_updated";
/// `event_name` of a request for a rating.
pub const CSAT_REQUESTED: &str = "csat_requested";
/// `event_name` of a piece of a reply that is being written; SSE only.
pub const REPLY_CHUNK: &str = "fin_reply_chunk";
/// All of them.
pub const EVENTS: [&str; 4] = [REPLIED, STATUS_UPDATED, CSAT_REQUESTED, REPLY_CHUNK];

/// `status` while Fin is looking for an answer.
pub const THINKING: &str = "thinking";
/// `status` of a reply that more will follow.
pub const REPLYING: &str = "replying";
/// `status` when it is the user's turn.
pub const AWAITING: &str = "awaiting_user_reply";
/// `status` when Fin hands over to people.
pub const ESCALATED: &str = "escalated";
/// `status` when Fin's answer settled the matter.
pub const RESOLVED: &str = "resolved";
/// `status` when Fin is done.
pub const COMPLETE: &str = "complete";
/// All of them.
pub const STATUSES: [&str; 6] = [THINKING, REPLYING, AWAITING, ESCALATED, RESOLVED, COMPLETE];
