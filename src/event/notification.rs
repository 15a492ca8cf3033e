//! From the body of a classic Intercom webhook to what finhook reads of it.
//!
//! A notification is UTF-8 and one grammatical JSON object with exactly one `topic`, a non-empty string, and an object at
//! `data.item`. Everything else is [`NotAnEvent`]. As with Fin's events the body is parsed once, what is not known is
//! skipped, and a field of an unexpected type counts as absent.
//!
//! What a repeated notification brings in other bytes (`delivery_attempts`, `first_sent_at`) is not read: two attempts of
//! one notification are the same event.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::parse::{NotAnEvent, Slots, natural, object, string};

/// What finhook reads of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification<'a> {
    /// `topic`, not empty.
    pub topic: Cow<'a, str>,
    /// `id`; Intercom sends some without.
    pub id: Option<Cow<'a, str>>,
    /// `created_at`, unix seconds in decimal.
    pub created_at: Option<&'a str>,
    /// The conversation that it is about: the item's `id` when that is a conversation, else its `conversation_id`.
    pub conversation_id: Option<Cow<'a, str>>,
    /// Your own id of the first contact: `external_id` of the item's `contacts`.
    pub user_id: Option<Cow<'a, str>>,
    /// `data.item`, as it stands in the body.
    pub item: &'a str,
}

impl<'a> Notification<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// [`NotAnEvent`] with a constant reason.
    pub fn parse(body: &'a [u8]) -> Result<Self, NotAnEvent> {
        let text = str::from_utf8(body).map_err(|_| NotAnEvent::NotUtf8)?;
        let envelope: Envelope<'a> = object(text, Envelope::default()).ok_or(NotAnEvent::NotAnObject)?;
        let topic = match envelope.topics {
            1 => envelope.topic.and_then(string).filter(|topic| !topic.is_empty()),
            _ => None,
        };
        let topic = topic.ok_or(NotAnEvent::NoTopic)?;
        let data = envelope.data.and_then(|raw| object(raw.get(), Data::default())).unwrap_or_default();
        let item = data.item.ok_or(NotAnEvent::NoItem)?.get();
        let read: Item<'a> = object(item, Item::default()).ok_or(NotAnEvent::NoItem)?;
        let conversation_id = match read.kind.and_then(string).as_deref() {
            Some("conversation") => read.id.and_then(name),
            _ => read.conversation_id.and_then(name),
        };
        Ok(Self {
            topic,
            id: envelope.id.and_then(string).filter(|id| !id.is_empty()),
            created_at: envelope.created_at.and_then(natural),
            conversation_id,
            user_id: read.contacts.and_then(first_contact),
            item,
        })
    }

    /// `created_at` in unix milliseconds; none when it is absent or beyond all reason.
    #[must_use]
    pub fn created_ms(&self) -> Option<i64> {
        self.created_at?.parse::<i64>().ok()?.checked_mul(1000)
    }
}

/// An id: a string, or digits.
fn name(raw: &RawValue) -> Option<Cow<'_, str>> {
    string(raw).or_else(|| natural(raw).map(Cow::Borrowed)).filter(|id| !id.is_empty())
}

fn first_contact(contacts: &RawValue) -> Option<Cow<'_, str>> {
    let list = object(contacts.get(), Contacts::default())?.list?;
    let first = *serde_json::from_str::<Vec<&RawValue>>(list.get()).ok()?.first()?;
    object(first.get(), Contact::default())?.external_id.and_then(string)
}

/// Known values of the outer object, still as they stand in the text.
#[derive(Default)]
struct Envelope<'a> {
    topics: usize,
    topic: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    created_at: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
}

impl<'a> Slots<'a> for Envelope<'a> {
    fn slot(&mut self, key: &str) -> Option<&mut Option<&'a RawValue>> {
        Some(match key {
            "topic" => {
                self.topics += 1;
                &mut self.topic
            }
            "id" => &mut self.id,
            "created_at" => &mut self.created_at,
            "data" => &mut self.data,
            _ => return None,
        })
    }
}

/// Known values of an inner object: one struct each, with the keys that are read.
macro_rules! known {
    ($name:ident { $($field:ident: $key:literal),* }) => {
        #[derive(Default)]
        struct $name<'a> {
            $($field: Option<&'a RawValue>,)*
        }

        impl<'a> Slots<'a> for $name<'a> {
            fn slot(&mut self, key: &str) -> Option<&mut Option<&'a RawValue>> {
                match key {
                    $($key => Some(&mut self.$field),)*
                    _ => None,
                }
            }
        }
    };
}

known!(Data { item: "item" });
known!(Item { kind: "type", id: "id", conversation_id: "conversation_id", contacts: "contacts" });
known!(Contacts { list: "contacts" });
known!(Contact { external_id: "external_id" });

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::Notification;
    use crate::event::parse::NotAnEvent;

    const REPLIED: &str = r#"{"type":"notification_event","id":"notif_1","topic":"conversation.admin.replied","app_id":"a",
        "created_at":1737712800,"first_sent_at":1737712801,"delivery_attempts":1,"data":{"type":"notification_event_data",
        "item":{"type":"conversation","id":"215","contacts":{"type":"contact.list","contacts":[{"id":"c","external_id":"u-1"}]}}}}"#;

    fn parse(body: &str) -> Result<Notification<'_>, NotAnEvent> {
        Notification::parse(body.as_bytes())
    }

    #[test]
    fn a_notification_of_a_conversation() {
        let read = parse(REPLIED).unwrap();
        assert_eq!(
            (&*read.topic, read.id.as_deref(), read.conversation_id.as_deref(), read.user_id.as_deref()),
            ("conversation.admin.replied", Some("notif_1"), Some("215"), Some("u-1"))
        );
        assert_eq!(read.created_ms(), Some(1_737_712_800_000));
        assert!(read.item.starts_with(r#"{"type":"conversation","id":"215""#));
    }

    #[test]
    fn an_item_of_another_type_may_name_its_conversation() {
        let body = |item: &str| format!(r#"{{"topic":"t","data":{{"item":{item}}}}}"#);
        let conversation = |item: &str| parse(&body(item)).unwrap().conversation_id.map(|id| id.into_owned());
        assert_eq!(conversation(r#"{"type":"ticket","id":"7","conversation_id":"8"}"#).as_deref(), Some("8"));
        assert_eq!(conversation(r#"{"type":"conversation","id":9}"#).as_deref(), Some("9"), "digits");
        for none in [
            r#"{"type":"ticket","id":"7"}"#,
            "{}",
            r#"{"type":"conversation","id":null}"#,
            r#"{"type":"conversation","id":""}"#,
        ] {
            assert_eq!(conversation(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_odd_counts_as_absent() {
        let read = parse(r#"{"topic":"t","id":null,"created_at":"soon","data":{"item":{"contacts":[1]}}}"#).unwrap();
        assert_eq!((read.id.as_deref(), read.created_ms(), read.user_id.as_deref()), (None, None, None));
        let huge = parse(r#"{"topic":"t","created_at":99999999999999999999,"data":{"item":{}}}"#).unwrap();
        assert_eq!(huge.created_ms(), None);
    }

    #[test]
    fn without_one_topic_or_an_item_it_is_no_event() {
        let item = r#""data":{"item":{}}"#;
        for (body, why) in [
            (format!("{{{item}}}"), NotAnEvent::NoTopic),
            (format!(r#"{{"topic":"",{item}}}"#), NotAnEvent::NoTopic),
            (format!(r#"{{"topic":1,{item}}}"#), NotAnEvent::NoTopic),
            (format!(r#"{{"topic":"a","topic":"b",{item}}}"#), NotAnEvent::NoTopic),
            (r#"{"topic":"t"}"#.to_owned(), NotAnEvent::NoItem),
            (r#"{"topic":"t","data":{}}"#.to_owned(), NotAnEvent::NoItem),
            (r#"{"topic":"t","data":{"item":[]}}"#.to_owned(), NotAnEvent::NoItem),
            (r#"{"topic":"t","data":"item"}"#.to_owned(), NotAnEvent::NoItem),
            ("[]".to_owned(), NotAnEvent::NotAnObject),
            (String::new(), NotAnEvent::NotAnObject),
        ] {
            assert_eq!(parse(&body), Err(why), "{body}");
        }
        assert_eq!(Notification::parse(b"\xff"), Err(NotAnEvent::NotUtf8));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in ".{0,200}", cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let _ = parse(&body);
            let mut changed = REPLIED.as_bytes().to_vec();
            let at = cut.index(changed.len());
            changed[at] = byte;
            let _ = Notification::parse(&changed);
            let _ = Notification::parse(&REPLIED.as_bytes()[..at]);
        }
    }
}
