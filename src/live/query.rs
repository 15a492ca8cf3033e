//! Which events a reader wants, and from when on.

use url::form_urlencoded;

use crate::clock;
use crate::event::Event;
use crate::journal::{CLOCK_SLACK_MS, ReadError, Reader, Row};

/// What a reader wants. What is not given is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// `conversation_id`.
    pub conversation: Option<String>,
    /// Names of events, any of them.
    pub events: Vec<String>,
    /// Received at this time or later, unix milliseconds.
    pub since_ms: Option<i64>,
}

/// A query that can't be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadQuery {
    /// Not `conversation`, `event` or `since`.
    Parameter,
    /// Neither a time nor a duration.
    Since,
}

impl BadQuery {
    /// What is said to the client: a constant.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Parameter => "The parameters are conversation, event and since.",
            Self::Since => "since is a time such as 2026-01-24T10:00:00Z, or how long ago, such as 15m.",
        }
    }
}

impl Filter {
    /// Reads a query string. `event` may be given several times, or hold several names with commas between them; an
    /// empty value is "not given".
    ///
    /// # Errors
    /// What can't be understood.
    pub fn parse(query: &str, now_ms: i64) -> Result<Self, BadQuery> {
        let mut filter = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                _ if value.is_empty() => {}
                "conversation" => filter.conversation = Some(value.into_owned()),
                "event" => filter.events.extend(value.split(',').filter(|name| !name.is_empty()).map(str::to_owned)),
                "since" => filter.since_ms = Some(clock::parse_or_ago(&value, now_ms).ok_or(BadQuery::Since)?),
                _ => return Err(BadQuery::Parameter),
            }
        }
        Ok(filter)
    }

    /// Whether a reader wants this event.
    #[must_use]
    pub fn wants(&self, event: &Event) -> bool {
        let fields = &event.fields;
        let name = fields.event_name.as_deref();
        self.conversation.as_deref().is_none_or(|wanted| fields.conversation_id.as_deref() == Some(wanted))
            && (self.events.is_empty() || self.events.iter().any(|wanted| Some(wanted.as_str()) == name))
            && self.since_ms.is_none_or(|since| event.received_ms >= since)
    }
}

/// A sequence number behind which all events received since then are: found by halving.
pub(super) async fn first_since(reader: &Reader, since_ms: i64, head: u64) -> Result<u64, ReadError> {
    let (mut low, mut high) = (0, head);
    while low < high {
        let middle = low + (high - low) / 2;
        let next = reader.after(middle, 1, None).await?.into_iter().next();
        match next.map(|fresh| fresh.row) {
            Some(Row::Sound(stored)) if stored.event.received_ms < since_ms.saturating_sub(CLOCK_SLACK_MS) => {
                low = stored.seq;
            }
            // Damaged rows don't say when they were received; a little too early is no harm.
            Some(_) | None => high = middle,
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_query_names_conversation_events_and_time() {
        let now = 3_600_000;
        let filter = Filter::parse("conversation=fin%3Atest%3A1&event=a,b&event=c&since=15m", now).unwrap();
        assert_eq!(filter.conversation.as_deref(), Some("fin:test:1"));
        assert_eq!(filter.events, ["a", "b", "c"]);
        assert_eq!(filter.since_ms, Some(45 * 60 * 1000));
        let filter = Filter::parse("since=1970-01-01T00:00:01.5Z&event=&conversation=", now).unwrap();
        assert_eq!(filter, Filter { since_ms: Some(1500), ..Filter::default() });
        assert_eq!(Filter::parse("since=yesterday", now), Err(BadQuery::Since));
        assert_eq!(Filter::parse("conversatoin=1", now), Err(BadQuery::Parameter));
    }
}
