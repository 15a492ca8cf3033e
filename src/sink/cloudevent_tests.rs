#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::event::{Fields, Kind, Parts};

fn event(body: &str) -> Parts {
    Parts {
        id: Uuid::from_u128(0x0194_9999_0000_8000_8000_0000_0000_0001),
        kind: Kind::Event,
        endpoint: Arc::from("fin"),
        received_ms: 1_737_712_800_456,
        created_ms: 1_737_712_800_123,
        fields: Fields {
            event_name: Some("fin_status_updated".into()),
            conversation_id: Some("123456".into()),
            user_id: Some("7891".into()),
            created_at: Some("2025-01-24T10:00:00.123Z".into()),
            status: Some("escalated".into()),
            ..Fields::default()
        },
        content_type: Some("application/json; charset=utf-8".into()),
        signature: None,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

fn bare() -> Parts {
    Parts { fields: Fields::default(), content_type: None, ..event("{}") }
}

fn line(event: &Parts) -> Value {
    let mut line = Vec::new();
    append_json(&mut line, &Event::from_journal(event.clone()));
    serde_json::from_slice(&line).unwrap()
}

fn headers(event: &Parts) -> BTreeMap<String, String> {
    let event = Event::from_journal(event.clone());
    Attributes::of(&event).headers().map(|(name, value)| (name.as_str().to_owned(), value)).collect()
}

#[test]
fn a_line_is_the_cloudevent_of_the_contract() {
    let mut line = Vec::new();
    append_json(&mut line, &Event::from_journal(event("{\"event_name\" : \"fin_status_updated\",\r\n \"n\":1.0e5}")));
    assert_eq!(
        String::from_utf8(line).unwrap(),
        concat!(
            r#"{"specversion":"1.0","id":"01949999-0000-8000-8000-000000000001","source":"/finhook/endpoints/fin","#,
            r#""type":"com.intercom.fin_status_updated","subject":"123456","time":"2025-01-24T10:00:00.123Z","#,
            r#""datacontenttype":"application/json; charset=utf-8","userid":"7891","finstatus":"escalated","#,
            r#""receivedtime":"2025-01-24T10:00:00.456Z","#,
            r#""data":{"event_name" : "fin_status_updated",   "n":1.0e5}}"#
        )
    );
}

#[test]
fn a_value_of_nothing_but_one_encoded_character_is_encoded() {
    for (value, encoded) in [("\"", "%22"), ("%", "%25"), (" ", "%20"), ("é", "%C3%A9")] {
        let mut event = event("{}");
        event.fields.conversation_id = Some(value.into());
        assert_eq!(headers(&event)["ce-subject"], encoded);
    }
}

#[test]
fn headers_are_those_of_the_contract() {
    let expected = BTreeMap::from([
        ("ce-specversion", "1.0"),
        ("ce-id", "01949999-0000-8000-8000-000000000001"),
        ("ce-source", "/finhook/endpoints/fin"),
        ("ce-type", "com.intercom.fin_status_updated"),
        ("ce-subject", "123456"),
        ("ce-time", "2025-01-24T10:00:00.123Z"),
        ("ce-userid", "7891"),
        ("ce-finstatus", "escalated"),
        ("ce-receivedtime", "2025-01-24T10:00:00.456Z"),
    ]);
    assert_eq!(
        headers(&event("{}")),
        expected.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    );
}

#[test]
fn what_is_absent_is_left_out() {
    let line = line(&bare());
    let names: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["data", "datacontenttype", "id", "receivedtime", "source", "specversion", "type"]);
    assert_eq!(line["type"], "com.intercom.unknown");
    assert_eq!(line["datacontenttype"], "application/json");
    assert_eq!(headers(&bare()).len(), 5);
}

#[test]
fn a_value_of_1_kib_is_kept_and_a_longer_one_left_out() {
    let fits = "é".repeat(512);
    let too_long = format!("{fits}x");
    let with = |value: &str| -> Parts {
        let mut event = event("{}");
        event.fields.conversation_id = Some(value.into());
        event.fields.user_id = Some(value.into());
        event.fields.status = Some(value.into());
        event
    };
    for (name, ce) in [("subject", "ce-subject"), ("userid", "ce-userid"), ("finstatus", "ce-finstatus")] {
        assert_eq!(line(&with(&fits))[name], json!(fits));
        assert_eq!(headers(&with(&fits))[ce], "%C3%A9".repeat(512));
        assert_eq!(line(&with(&too_long)).get(name), None);
        assert!(!headers(&with(&too_long)).contains_key(ce));
    }
    let mut event = event("{}");
    event.fields.event_name = Some("x".repeat(1024).into());
    assert_eq!(line(&event)["type"], "com.intercom.unknown");
}

#[test]
fn a_value_with_a_character_that_cloudevents_forbids_is_left_out() {
    for bad in ["\0", "a\u{1b}[31m", "\n", "\u{7f}", "\u{9b}", "\u{fdd0}", "\u{fdef}", "\u{fffe}", "\u{10ffff}"] {
        let mut event = event("{}");
        event.fields.event_name = Some(format!("fin{bad}").into());
        event.fields.conversation_id = Some(bad.into());
        event.fields.user_id = Some(bad.into());
        event.fields.status = Some(bad.into());
        event.fields.created_at = Some(bad.into());
        let line = line(&event);
        assert_eq!(line["type"], "com.intercom.unknown", "{bad:?}");
        for name in ["subject", "userid", "finstatus", "time"] {
            assert_eq!(line.get(name), None, "{bad:?}");
        }
    }
    let mut event = event("{}");
    event.fields.status = Some("\u{2028}\u{fdcf}\u{fdf0}\u{fffd}\u{a0}".into());
    assert_eq!(line(&event)["finstatus"], "\u{2028}\u{fdcf}\u{fdf0}\u{fffd}\u{a0}", "their neighbours are allowed");
}

#[test]
fn subject_is_never_empty() {
    let mut event = event("{}");
    event.fields.conversation_id = Some("".into());
    assert_eq!(line(&event).get("subject"), None);
}

#[test]
fn time_is_there_only_if_it_is_an_rfc_3339_timestamp() {
    let time = |value: &str| {
        let mut event = event("{}");
        event.fields.created_at = Some(value.into());
        line(&event).get("time").cloned()
    };
    for valid in ["2025-01-24T10:00:00Z", "2025-01-24T10:00:00.123456789+05:30", "2016-12-31T23:59:60Z"] {
        assert_eq!(time(valid), Some(json!(valid)), "{valid}");
    }
    for invalid in [
        "",
        "now",
        "1737712800123",
        "2025-01-24",
        "2025-01-24T10:00:00",
        "2025-13-01T00:00:00Z",
        " 2025-01-24T10:00:00Z",
    ] {
        assert_eq!(time(invalid), None, "{invalid}");
    }
}

#[test]
fn a_header_value_is_percent_encoded_as_the_http_binding_says() {
    let mut event = event("{}");
    event.fields.conversation_id = Some("Euro € \"100%\" 😀~!\u{a0}".into());
    assert_eq!(headers(&event)["ce-subject"], "Euro%20%E2%82%AC%20%22100%25%22%20%F0%9F%98%80~!%C2%A0");
}

#[test]
fn data_is_called_json_whatever_the_request_called_it() {
    let kind = |value: &str| {
        let mut event = event("{}");
        event.content_type = Some(value.into());
        line(&event)["datacontenttype"].clone()
    };
    for json in ["application/json", "Application/JSON;charset=UTF-8", "application/vnd.intercom+json", "text/json"] {
        assert_eq!(kind(json), json);
    }
    for other in ["text/plain", "application/x-www-form-urlencoded", "json", "", "application/jsonx", "a/json\u{7f}"] {
        assert_eq!(kind(other), "application/json", "{other}");
    }
}

#[test]
fn a_time_of_receipt_that_rfc_3339_cannot_name_is_left_out() {
    for (ms, expected) in [
        (-1, None),
        (0, Some("1970-01-01T00:00:00.000Z")),
        (253_402_300_799_999, Some("9999-12-31T23:59:59.999Z")),
        (253_402_300_800_000, None),
        (i64::MAX, None),
    ] {
        assert_eq!(clock::rfc3339(ms).as_deref(), expected);
    }
}

/// A JSON text with its tokens as they may be written: white space and line breaks between them.
fn json_text() -> impl Strategy<Value = String> {
    let space = || proptest::sample::select(vec!["", " ", "\n", "\r\n", "\t", "\r", " \n\n "]);
    let string = any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap());
    let leaf = prop_oneof![
        string,
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| format!("{n:e}")),
        proptest::sample::select(vec!["true", "false", "null", r#""\ud83d\ude00\n\r\u000a""#]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let member = (space(), any::<String>(), space(), inner.clone(), space())
            .prop_map(|(a, name, b, value, c)| format!("{a}{}{b}:{value}{c}", serde_json::to_string(&name).unwrap()));
        let item = (space(), inner, space()).prop_map(|(a, value, b)| format!("{a}{value}{b}"));
        prop_oneof![
            proptest::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(","))),
            proptest::collection::vec(item, 0..6).prop_map(|items| format!("[{}]", items.join(","))),
        ]
    })
}

proptest! {
    #[test]
    fn a_line_holds_no_line_break_and_its_data_means_what_the_body_means(body in json_text()) {
        let mut text = Vec::new();
        append_json(&mut text, &Event::from_journal(event(&body)));
        prop_assert!(!text.iter().any(|byte| matches!(byte, b'\n' | b'\r')));
        let line: Value = serde_json::from_slice(&text).unwrap();
        prop_assert_eq!(&line["data"], &serde_json::from_str::<Value>(&body).unwrap());
        let data = &text[text.len() - 1 - body.len()..text.len() - 1];
        let expected = body.replace(['\r', '\n'], " ");
        prop_assert_eq!(data, expected.as_bytes());
    }

    #[test]
    fn attributes_survive_any_content(
        conversation in proptest::option::of(any::<String>()), name in proptest::option::of(any::<String>()),
        created in proptest::option::of(any::<String>()), kind in proptest::option::of(any::<String>()),
    ) {
        let mut event = event("{}");
        event.fields.conversation_id = conversation.map(Into::into);
        event.fields.event_name = name.map(Into::into);
        event.fields.created_at = created.map(Into::into);
        event.content_type = kind.map(Into::into);
        let line = line(&event);
        for (name, value) in headers(&event) {
            prop_assert!(value.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'"'), "{}: {}", name, value);
            let decoded = percent_encoding::percent_decode_str(&value).decode_utf8().unwrap();
            prop_assert_eq!(&line[name.strip_prefix("ce-").unwrap()], &Value::from(decoded.as_ref()));
        }
    }
}
