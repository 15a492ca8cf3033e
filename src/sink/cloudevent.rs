//! The envelope of an event on its way out: CloudEvents 1.0, as one JSON line or as HTTP headers.
//!
//! | attribute | value |
//! | --- | --- |
//! | `specversion` | `1.0` |
//! | `id` | the event's id |
//! | `source` | `/finhook/endpoints/<name>` |
//! | `type` | `com.intercom.<event_name>`, or `com.intercom.unknown` |
//! | `subject` | `conversation_id`, if not empty |
//! | `time` | `created_at_ms`, if it is an RFC 3339 timestamp |
//! | `datacontenttype` | see [`Attributes::datacontenttype`] |
//! | `userid`, `finstatus` | `user_id` and `status` |
//! | `receivedtime` | when it was received, RFC 3339 in UTC with milliseconds |
//!
//! A value that is absent, over 1 KiB, or holds a character that CloudEvents does not allow in a string (a control
//! character or a noncharacter) is left out; the body still has it. The data is always the body itself, never a
//! serialisation of what was parsed.
//!
//! Sources: CloudEvents 1.0.2, its JSON event format and its HTTP protocol binding.

use hyper::header::HeaderName;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

use crate::clock;
use crate::event::Event;

/// The longest value that becomes an attribute, in bytes of UTF-8.
pub const MAX_VALUE: usize = 1024;

/// The content type of an event whose request had none.
pub const JSON: &str = "application/json";

/// What the HTTP binding has percent-encoded in a header value: everything outside U+0021–U+007E (the encoder does
/// that for all that is not ASCII), and of what is inside, the double quote and the percent sign.
const HEADER_VALUE: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

const SPECVERSION: HeaderName = HeaderName::from_static("ce-specversion");
const ID: HeaderName = HeaderName::from_static("ce-id");
const SOURCE: HeaderName = HeaderName::from_static("ce-source");
const TYPE: HeaderName = HeaderName::from_static("ce-type");
const SUBJECT: HeaderName = HeaderName::from_static("ce-subject");
const TIME: HeaderName = HeaderName::from_static("ce-time");
const USERID: HeaderName = HeaderName::from_static("ce-userid");
const FINSTATUS: HeaderName = HeaderName::from_static("ce-finstatus");
const RECEIVEDTIME: HeaderName = HeaderName::from_static("ce-receivedtime");

/// The attributes of one event, in the order in which they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attributes<'a> {
    specversion: &'static str,
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<&'a str>,
    datacontenttype: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    userid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finstatus: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receivedtime: Option<String>,
}

impl<'a> Attributes<'a> {
    /// The attributes of `event`.
    #[must_use]
    pub fn of(event: &'a Event) -> Self {
        let fields = &event.fields;
        let kind = fields.event_name.as_deref().map(|name| format!("com.intercom.{name}"));
        Self {
            specversion: "1.0",
            id: event.id.to_string(),
            source: format!("/finhook/endpoints/{}", event.endpoint),
            kind: kind.filter(|kind| is_allowed(kind)).unwrap_or_else(|| "com.intercom.unknown".to_owned()),
            subject: allowed(fields.conversation_id.as_deref()).filter(|subject| !subject.is_empty()),
            time: allowed(fields.created_at.as_deref()).filter(|time| clock::parse(time).is_some()),
            datacontenttype: allowed(event.content_type.as_deref()).filter(|kind| is_json(kind)).unwrap_or(JSON),
            userid: allowed(fields.user_id.as_deref()),
            finstatus: allowed(fields.status.as_deref()),
            receivedtime: clock::rfc3339(event.received_ms),
        }
    }

    /// The type of `data` in the JSON form: the request's content type where it names JSON, else `application/json`.
    ///
    /// Every event is JSON, whatever its request called it, and goes out as a JSON value, which the JSON event format
    /// allows for JSON media types only. In HTTP the request's own content type is passed on unchanged instead.
    #[must_use]
    pub fn datacontenttype(&self) -> &str {
        self.datacontenttype
    }

    /// The `ce-` headers, with values encoded as the HTTP binding says, so visible ASCII only.
    pub fn headers(&self) -> impl Iterator<Item = (HeaderName, String)> + use<'_> {
        [
            (SPECVERSION, Some(self.specversion)),
            (ID, Some(&*self.id)),
            (SOURCE, Some(&*self.source)),
            (TYPE, Some(&*self.kind)),
            (SUBJECT, self.subject),
            (TIME, self.time),
            (USERID, self.userid),
            (FINSTATUS, self.finstatus),
            (RECEIVEDTIME, self.receivedtime.as_deref()),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, utf8_percent_encode(value?, HEADER_VALUE).to_string())))
    }
}

/// Appends the event as one CloudEvents JSON object without a line break in it or after it.
///
/// `data` is the body's own bytes, with line breaks between tokens turned into spaces.
pub fn append_json(buf: &mut Vec<u8>, event: &Event) {
    append_object(buf, &Attributes::of(event));
    reopen_object(buf);
    buf.extend_from_slice(b",\"data\":");
    append_data(buf, &event.body);
    buf.push(b'}');
}

/// The same without `data`: for those from whom bodies are kept.
pub fn append_masked_json(buf: &mut Vec<u8>, event: &Event) {
    append_object(buf, &Attributes::of(event));
}

/// Appends a JSON text with its line breaks turned into spaces.
///
/// In a grammatical JSON text, which an event's body is, a raw CR or LF can stand only between tokens, where a space
/// means the same. All else stays as it was: member order, duplicate names, digits of numbers, escapes.
pub(super) fn append_data(buf: &mut Vec<u8>, body: &[u8]) {
    let start = buf.len();
    buf.extend_from_slice(body);
    for byte in &mut buf[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

/// Appends `object` as JSON.
pub(super) fn append_object(buf: &mut Vec<u8>, object: &impl Serialize) {
    // Strings and numbers into memory: this cannot fail.
    let written = serde_json::to_writer(&mut *buf, object);
    debug_assert!(written.is_ok());
}

/// Takes the closing brace off the object just written, so that a member of raw bytes can be appended.
pub(super) fn reopen_object(buf: &mut Vec<u8>) {
    debug_assert_eq!(buf.last(), Some(&b'}'));
    buf.pop();
}

fn allowed(value: Option<&str>) -> Option<&str> {
    value.filter(|value| is_allowed(value))
}

/// CloudEvents 1.0.2, "Type System": String. Unpaired surrogates can't be in a Rust string.
fn is_allowed(value: &str) -> bool {
    value.len() <= MAX_VALUE && !value.chars().any(|c| c.is_control() || is_noncharacter(c))
}

fn is_noncharacter(c: char) -> bool {
    matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe
}

/// Whether a media type's subtype is `json` or ends in `+json`.
fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type.split_once('/').is_some_and(|(_, subtype)| subtype == "json" || subtype.ends_with("+json"))
}

#[cfg(test)]
#[path = "cloudevent_tests.rs"]
mod tests;
