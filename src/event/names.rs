//! Names that Fin and Intercom give: of events and statuses. What is not here is ordinary, too.

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
/// Topic of a classic webhook that only tests the endpoint.
pub const PING: &str = "ping";
/// Topic of a classic webhook: a person replied.
pub const ADMIN_REPLIED: &str = "conversation.admin.replied";
/// Topics of classic webhooks that a hand-over to people brings.
pub const TOPICS: [&str; 4] =
    [ADMIN_REPLIED, "conversation.admin.assigned", "conversation.admin.closed", "conversation.user.replied"];

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
