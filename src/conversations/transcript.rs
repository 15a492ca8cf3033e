//! From the events of a conversation to what was said and what happened, for people.

use serde_json::Value;

use crate::event::{Event, names};

/// What an event is in a transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its kind.
    pub kind: Kind,
    /// Who said it: `fin`, `user`, or a person's name; absent where nobody did.
    pub author: Option<String>,
    /// What was said, as HTML, as it is stored: a stranger's text.
    pub html: Option<String>,
}

/// Kinds of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Somebody said something.
    Message,
    /// The status changed.
    Status,
    /// The customer was asked for a rating.
    Rating,
    /// Anything else.
    Other,
}

/// Reads what an event says. A body that is not as expected says nothing.
#[must_use]
pub fn read(event: &Event) -> Said {
    let name = event.fields.event_name.as_deref().unwrap_or_default();
    let body = || serde_json::from_slice::<Value>(&event.body).unwrap_or_default();
    match name {
        names::REPLIED => {
            let message = &body()["message"];
            Said { kind: Kind::Message, author: text(&message["author"]), html: text(&message["body"]) }
        }
        names::STATUS_UPDATED => Said { kind: Kind::Status, author: None, html: None },
        names::CSAT_REQUESTED => Said { kind: Kind::Rating, author: None, html: None },
        // Of classic webhooks: those that bring words have them in the newest part of the conversation.
        topic if topic.starts_with("conversation.") => {
            let body = body();
            let part = newest_part(&body["data"]["item"]);
            let html = text(&part["body"]).filter(|html| !html.trim().is_empty());
            let author = text(&part["author"]["name"]).or_else(|| text(&part["author"]["type"]));
            let kind = if html.is_some() { Kind::Message } else { Kind::Other };
            Said { kind, author, html }
        }
        _ => Said { kind: Kind::Other, author: None, html: None },
    }
}

/// HTML as plain text, a line for each of its own.
#[must_use]
pub fn plain(html: &str) -> String {
    /// Wider than any line.
    const WIDTH: usize = 100_000;
    if is_deep(html) {
        return html.to_owned();
    }
    let config = html2text::config::plain_no_decorate().link_footnotes(true).allow_width_overflow();
    let text = config.string_from_read(html.as_bytes(), WIDTH).unwrap_or_else(|_| html.to_owned());
    text.trim_matches('\n').lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Whether elements lie in each other deeper than in any text that people write. Reading such HTML takes time that grows with the
/// square of its depth: a body of a mebibyte would take minutes.
#[must_use]
pub fn is_deep(html: &str) -> bool {
    const DEEPEST: usize = 200;
    /// These end by themselves, or have no content.
    const SHALLOW: [&str; 12] = ["p", "li", "br", "hr", "img", "td", "th", "tr", "input", "wbr", "dt", "dd"];
    let mut depth = 0_usize;
    for tag in html.split('<').skip(1) {
        let name = tag.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        if tag.starts_with('/') {
            depth = depth.saturating_sub(1);
        } else if !name.is_empty() && !SHALLOW.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            depth += 1;
        }
        if depth > DEEPEST {
            return true;
        }
    }
    false
}

fn newest_part(item: &Value) -> &Value {
    let parts = item["conversation_parts"]["conversation_parts"].as_array();
    parts.and_then(|parts| parts.last()).unwrap_or(&Value::Null)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::event::{Fields, Kind as EventKind, Parts};

    fn said(name: &str, body: &str) -> Said {
        read(&Event::from_journal(Parts {
            id: Uuid::nil(),
            kind: EventKind::Event,
            endpoint: Arc::from("fin"),
            received_ms: 0,
            created_ms: 0,
            fields: Fields { event_name: Some(name.into()), ..Fields::default() },
            content_type: None,
            signature: None,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }))
    }

    #[test]
    fn replies_of_fin_and_of_people_have_an_author_and_their_html() {
        let fin = said("fin_replied", r#"{"message":{"author":"fin","body":"<p>Hi</p>"}}"#);
        assert_eq!(
            (fin.kind, fin.author.as_deref(), fin.html.as_deref()),
            (Kind::Message, Some("fin"), Some("<p>Hi</p>"))
        );
        let parts = r#"{"conversation_parts":[{"body":"<p>old</p>"},{"body":"<p>new</p>","author":{"type":"admin","name":"Eva"}}]}"#;
        let person =
            said("conversation.admin.replied", &format!(r#"{{"data":{{"item":{{"conversation_parts":{parts}}}}}}}"#));
        assert_eq!((person.kind, person.author.as_deref()), (Kind::Message, Some("Eva")));
        assert_eq!(person.html.as_deref(), Some("<p>new</p>"));
    }

    #[test]
    fn html_that_is_deeper_than_any_text_is_taken_as_it_is_written_and_in_time() {
        let deep = "<b>".repeat(300_000);
        assert_eq!(plain(&deep), deep);
        let long = "<p>One<br>two</p>".repeat(2000) + &"<ul><li>x</li></ul>".repeat(2000);
        assert!(!is_deep(&long) && plain(&long).starts_with("One\ntwo"));
    }

    #[test]
    fn what_is_not_as_expected_says_nothing() {
        for (name, body, kind) in [
            ("fin_replied", "{\"message\":[]}", Kind::Message),
            ("fin_replied", "nonsense", Kind::Message),
            ("fin_status_updated", "{}", Kind::Status),
            ("csat_requested", "{}", Kind::Rating),
            ("conversation.admin.closed", "{\"data\":{\"item\":{\"conversation_parts\":{}}}}", Kind::Other),
            ("fin_reply_chunk", "{}", Kind::Other),
            ("fin_invented", "{}", Kind::Other),
        ] {
            assert_eq!(said(name, body), Said { kind, author: None, html: None }, "{name} {body}");
        }
    }
}
