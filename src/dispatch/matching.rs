//! Which events a sink gets: a pure function of its `match` and the event.

use crate::config::Match;
use crate::event::Event;

/// Whether a sink with this `match` gets this event.
///
/// All conditions given must hold; an empty list is "not given". An event without the field that a condition is about
/// does not meet it, except that one without a conversation is never excluded by `except_conversation_prefixes`.
#[must_use]
pub fn matches(matching: &Match, event: &Event) -> bool {
    let fields = &event.fields;
    let conversation = fields.conversation_id.as_deref();
    let begins = |prefixes: &[String]| {
        conversation.is_some_and(|id| prefixes.iter().any(|prefix| id.starts_with(prefix.as_str())))
    };

    one_of(&matching.endpoints, Some(&event.endpoint))
        && (matching.events.is_empty()
            || fields.event_name.as_deref().is_some_and(|name| named(&matching.events, name)))
        && one_of(&matching.statuses, fields.status.as_deref())
        && (matching.conversation_prefixes.is_empty() || begins(&matching.conversation_prefixes))
        && !begins(&matching.except_conversation_prefixes)
}

/// `a.b` is that name alone, `a.*` every name that begins with `a.`.
fn named(list: &[String], name: &str) -> bool {
    list.iter().any(|item| match item.strip_suffix('*') {
        Some(group) if group.ends_with('.') => name.starts_with(group),
        _ => item == name,
    })
}

fn one_of(list: &[String], value: Option<&str>) -> bool {
    list.is_empty() || value.is_some_and(|value| list.iter().any(|item| item == value))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::event::{Fields, Kind, Parts};

    fn event(endpoint: &str, name: &str, status: Option<&str>, conversation: Option<&str>) -> Event {
        Event::from_journal(Parts {
            id: Uuid::nil(),
            kind: Kind::Event,
            endpoint: Arc::from(endpoint),
            received_ms: 0,
            created_ms: 0,
            fields: Fields {
                event_name: Some(name.into()),
                status: status.map(Into::into),
                conversation_id: conversation.map(Into::into),
                ..Fields::default()
            },
            content_type: None,
            signature: None,
            body: Bytes::new(),
        })
    }

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn without_conditions_everything_matches() {
        assert!(matches(&Match::default(), &event("fin", "x", None, None)));
    }

    #[test]
    fn each_list_wants_one_of_its_values() {
        let e = event("fin", "fin_replied", Some("complete"), Some("42"));
        let with = |set: fn(&mut Match, Vec<String>), items: &[&str]| {
            let mut matching = Match::default();
            set(&mut matching, list(items));
            matches(&matching, &e)
        };
        assert!(with(|m, l| m.endpoints = l, &["other", "fin"]));
        assert!(!with(|m, l| m.endpoints = l, &["fi", "fin2"]));
        assert!(with(|m, l| m.events = l, &["fin_replied"]));
        assert!(!with(|m, l| m.events = l, &["fin_status_updated"]));
        assert!(with(|m, l| m.statuses = l, &["complete", "resolved"]));
        assert!(!with(|m, l| m.statuses = l, &["resolved"]));
        assert!(with(|m, l| m.conversation_prefixes = l, &["x", "4"]));
        assert!(!with(|m, l| m.conversation_prefixes = l, &["42x"]));
        assert!(with(|m, l| m.except_conversation_prefixes = l, &["2"]));
        assert!(!with(|m, l| m.except_conversation_prefixes = l, &["x", "42"]));
    }

    #[test]
    fn a_group_of_topics_is_what_begins_with_it() {
        let matching = |events: &[&str]| Match { events: list(events), ..Match::default() };
        let topic = |name| event("inbox", name, None, None);
        assert!(matches(&matching(&["conversation.*"]), &topic("conversation.admin.replied")));
        assert!(matches(&matching(&["x", "conversation.admin.*"]), &topic("conversation.admin.replied")));
        for (group, name) in [
            ("conversation.*", "conversations.x"),
            ("conversation.*", "conversation"),
            ("*", "x"),
            ("fin*", "fin_replied"),
        ] {
            assert!(!matches(&matching(&[group]), &topic(name)), "{group} {name}");
        }
    }

    #[test]
    fn all_conditions_given_must_hold() {
        let matching = Match {
            events: list(&["fin_replied"]),
            conversation_prefixes: list(&["fin:"]),
            except_conversation_prefixes: list(&["fin:test:"]),
            ..Match::default()
        };
        assert!(matches(&matching, &event("fin", "fin_replied", None, Some("fin:1"))));
        assert!(!matches(&matching, &event("fin", "fin_replied", None, Some("fin:test:1"))));
        assert!(!matches(&matching, &event("fin", "csat_requested", None, Some("fin:1"))));
        assert!(!matches(&matching, &event("fin", "fin_replied", None, Some("1"))));
    }

    #[test]
    fn an_event_without_a_conversation_has_no_prefix_to_match_or_to_exclude() {
        let none = event("fin", "x", None, None);
        assert!(!matches(&Match { conversation_prefixes: list(&[""]), ..Match::default() }, &none));
        assert!(matches(&Match { except_conversation_prefixes: list(&[""]), ..Match::default() }, &none));
    }

    #[test]
    fn an_event_without_a_status_meets_no_status() {
        assert!(!matches(&Match { statuses: list(&[""]), ..Match::default() }, &event("fin", "x", None, None)));
    }
}
