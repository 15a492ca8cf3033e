//! What the parser reads, what it skips, and what it refuses.

#![allow(clippy::unwrap_used)]

use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::Value;

use super::{Detail, FinEvent, NotAnEvent};

fn parse(body: &str) -> Result<FinEvent<'_>, NotAnEvent> {
    FinEvent::parse(body.as_bytes())
}

/// An event's outer object with these members besides its name.
fn event(members: &str) -> String {
    format!(r#"{{"event_name":"fin_sneezed",{members}}}"#)
}

#[test]
fn the_documented_events_are_read() {
    let replied = parse(
        r#"{"event_name":"fin_replied","conversation_id":"123456","user_id":"7891","status":"complete",
            "created_at_ms":"2025-01-24T10:00:00.123Z","message":{"id":"m1","author":"fin","body":"<p>Hello</p>",
            "timestamp_ms":"2025-01-24T10:00:00.100Z","sources":[{"url":"https://example.org"}]}}"#,
    )
    .unwrap();
    assert_eq!(replied.name, "fin_replied");
    assert_eq!(replied.conversation_id.as_deref(), Some("123456"));
    assert_eq!(replied.user_id.as_deref(), Some("7891"));
    assert_eq!(replied.status.as_deref(), Some("complete"));
    assert_eq!(replied.created_at.as_deref(), Some("2025-01-24T10:00:00.123Z"));
    assert_eq!(replied.message_id.as_deref(), Some("m1"));
    assert_eq!(replied.detail, Detail::Replied { timestamp: Some("2025-01-24T10:00:00.100Z".into()) });

    let status =
        parse(r#"{"event_name":"fin_status_updated","status":"escalated","reason":"Routed to team"}"#).unwrap();
    assert_eq!((status.status.as_deref(), status.reason.as_deref()), (Some("escalated"), Some("Routed to team")));
    assert_eq!(status.detail, Detail::StatusUpdated);

    assert_eq!(
        parse(r#"{"event_name":"csat_requested","csat":{"options":[]}}"#).unwrap().detail,
        Detail::CsatRequested
    );

    let chunk =
        parse(r#"{"event_name":"fin_reply_chunk","stream_id":"s1","chunk_index":0,"chunk_text":"Hel"}"#).unwrap();
    assert_eq!(chunk.detail, Detail::ReplyChunk { stream_id: Some("s1".into()), chunk_index: Some("0") });

    assert_eq!(parse(r#"{"event_name":"fin_sneezed"}"#).unwrap().detail, Detail::Other);
}

#[test]
fn what_is_not_escaped_is_borrowed_from_the_body() {
    let body = r#"{"event_name":"x","conversation_id":"plain","user_id":"esc\u0061ped"}"#;
    let event = parse(body).unwrap();
    assert!(matches!(event.conversation_id, Some(Cow::Borrowed("plain"))));
    assert!(matches!(event.user_id, Some(Cow::Owned(text)) if text == "escaped"));
}

#[test]
fn what_is_not_an_event_says_why() {
    for (body, reason) in [
        ("", NotAnEvent::NotAnObject),
        (" ", NotAnEvent::NotAnObject),
        ("null", NotAnEvent::NotAnObject),
        ("[]", NotAnEvent::NotAnObject),
        (r#""event_name""#, NotAnEvent::NotAnObject),
        (r#"[{"event_name":"x"}]"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x""#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x",}"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x"}}"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x"} {}"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x"}//"#, NotAnEvent::NotAnObject),
        ("{\"event_name\":\"x\"}\0", NotAnEvent::NotAnObject),
        ("\u{feff}{\"event_name\":\"x\"}", NotAnEvent::NotAnObject),
        ("{\"event_name\":\"x\"}\u{a0}", NotAnEvent::NotAnObject),
        (r#"{'event_name':'x'}"#, NotAnEvent::NotAnObject),
        (r#"{event_name:"x"}"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x" "a":1}"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x","a":01}"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x","a":+1}"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x","a":.5}"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x","a":1.}"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x","a":NaN}"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x","a":nul}"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x","a":"\x"}"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x","a":"\u00g0"}"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x","\q":1}"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x","a":[1,]}"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x","a":[}]}"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x",1:2}"#, NotAnEvent::NotAnObject),
        (r#"{"event_name":"x",["a"]:2}"#, NotAnEvent::NotAnObject),
        // Control characters stand for themselves in no string and in no key.
        ("{\"event_name\":\"x\",\"a\":\"\u{1}\"}", NotAnEvent::NotAnObject),
        ("{\"event_name\":\"x\",\"a\nb\":1}", NotAnEvent::NotAnObject),
        ("{\"event_name\":\"x\",\"a\0b\":1}", NotAnEvent::NotAnObject),
        ("{\"event_name\":\"x\ty\"}", NotAnEvent::NotAnObject),
        ("{}", NotAnEvent::Unnamed),
        (r#"{"Event_name":"x","message":{"event_name":"x"}}"#, NotAnEvent::Unnamed),
        (r#"{"topic":"ping","data":{}}"#, NotAnEvent::Unnamed),
        (r#"{"event_name":""}"#, NotAnEvent::BadName),
        (r#"{"event_name":null}"#, NotAnEvent::BadName),
        (r#"{"event_name":1}"#, NotAnEvent::BadName),
        (r#"{"event_name":["fin_replied"]}"#, NotAnEvent::BadName),
        (r#"{"event_name":"\ud800"}"#, NotAnEvent::BadName),
        (r#"{"event_name":"x","event_name":"x"}"#, NotAnEvent::NamedTwice),
        (r#"{"event_name":"x","a":1,"event_name":null}"#, NotAnEvent::NamedTwice),
        (r#"{"event_name":"x","\u0065vent_name":"y"}"#, NotAnEvent::NamedTwice),
        (r#"{"event\u005fname":"x","event_nam\u0065":"y"}"#, NotAnEvent::NamedTwice),
    ] {
        assert_eq!(parse(body), Err(reason), "{body:?}");
    }
    for body in [
        &b"\xff"[..],
        b"{\"event_name\":\"\xc3\"}",
        b"{\"event_name\":\"x\",\"a\":\"\xed\xa0\x80\"}",
        b"\xff\xfe{\0}\0",
    ] {
        assert_eq!(FinEvent::parse(body), Err(NotAnEvent::NotUtf8), "{body:?}");
    }
}

#[test]
fn what_is_odd_but_grammatical_is_an_event() {
    for members in [
        // Keys and values that do not decode.
        r#""\ud800":1"#,
        r#""\udfff\ud800":{"\udc00":"\ud8ff"}"#,
        r#""a":"\ud83d""#,
        // Numbers out of any range, and ones at the edge of the grammar.
        r#""a":1e999999,"b":-1E-999999,"c":[-0,-0.0,0e0,0E+1]"#,
        &format!(r#""a":{0},"b":-{0}.{0}"#, "9".repeat(5_000)),
        // What terminals, logs and other parsers trip over.
        "\"a\":\"\u{7f}\u{2028}\u{2029}\u{feff}\u{202e}\u{10ffff}\u{ffff}\"",
        r#""a":"\u0000\u001b[31m\u000a\r\n\b\f\/\"\\""#,
        r#""\u0000":"nul","":"empty key","\"":1,"\\":2"#,
        r#""$serde_json::private::RawValue":"x","$serde_json::private::Number":"1""#,
        "\"a\" \t\r\n: \t\r\n1 \t\r\n",
        // Doubled keys other than the name.
        r#""a":1,"a":2,"status":"x","status":"y""#,
    ] {
        assert!(parse(&event(members)).is_ok(), "{members:?}");
    }
    assert!(parse("\r\n\t {\"event_name\":\"x\"} \r\n\t").is_ok());
}

#[test]
fn an_escaped_name_and_an_escaped_key_are_read() {
    let event = parse(r#"{"\u0065vent_name":"fin\u005freplied","conversation\u005fid":"\ud83d\ude00\n"}"#).unwrap();
    assert_eq!((&*event.name, event.conversation_id.as_deref()), ("fin_replied", Some("😀\n")));
    assert_eq!(event.detail, Detail::Replied { timestamp: None });
}

#[test]
fn a_key_that_does_not_decode_is_not_one_of_ours() {
    // With the surrogate left out, or replaced, this would be a second name.
    let event = parse(r#"{"event_name":"x","event_name\ud800":"y","event_name\ufffd":"z"}"#).unwrap();
    assert_eq!(event.name, "x");
}

#[test]
fn a_field_of_an_unexpected_type_is_absent() {
    for value in ["null", "true", "1", "1.5e3", "[]", r#"["x"]"#, "{}", r#"{"id":"x"}"#, r#""\ud800""#, r#""x\udc00y""#]
    {
        let body = format!(
            r#"{{"event_name":"fin_replied","conversation_id":{value},"user_id":{value},"created_at_ms":{value},"status":{value},"reason":{value},"message":{{"id":{value},"timestamp_ms":{value}}}}}"#
        );
        let event = parse(&body).unwrap();
        let texts =
            [event.conversation_id, event.user_id, event.created_at, event.status, event.reason, event.message_id];
        assert_eq!(texts, [const { None }; 6], "{value}");
        assert_eq!(event.detail, Detail::Replied { timestamp: None }, "{value}");
    }
    for value in ["null", "1", r#""m1""#, r#"[{"id":"m1"}]"#, r#""{\"id\":\"m1\"}""#] {
        let body = format!(r#"{{"event_name":"fin_replied","message":{value}}}"#);
        assert_eq!(parse(&body).unwrap().message_id, None, "{value}");
    }
}

#[test]
fn an_odd_neighbour_does_not_make_a_field_absent() {
    let body = r#"{"\ud800":0,"event_name":"fin_replied","reason":"\ud800","message":{"\ud800":0,"body":"\ud800","n":1e999,"id":"m1"},"status":"complete"}"#;
    let event = parse(body).unwrap();
    assert_eq!((event.message_id.as_deref(), event.status.as_deref()), (Some("m1"), Some("complete")));
}

#[test]
fn of_a_doubled_key_the_last_counts() {
    let body = r#"{"event_name":"x","status":"a","status":"b","user_id":"a","user_id":1,"message":{"id":"a"},"message":{"id":"b","id":"c"}}"#;
    let event = parse(body).unwrap();
    assert_eq!(event.status.as_deref(), Some("b"));
    assert_eq!(event.user_id, None);
    assert_eq!(event.message_id.as_deref(), Some("c"));
}

#[test]
fn a_chunks_index_is_a_number_of_digits_only() {
    let index = |index: &str| {
        let body = format!(r#"{{"event_name":"fin_reply_chunk","chunk_index":{index}}}"#);
        match parse(&body).unwrap().detail {
            Detail::ReplyChunk { chunk_index, .. } => chunk_index.map(str::to_owned),
            other => panic!("{other:?}"),
        }
    };
    let huge = "123456789".repeat(100);
    for digits in ["0", "7", "18446744073709551616", &huge] {
        assert_eq!(index(digits).as_deref(), Some(digits));
    }
    for other in ["-1", "-0", "1.0", "1e2", "1E0", r#""1""#, "null", "[1]"] {
        assert_eq!(index(other), None, "{other}");
    }
}

#[test]
fn fifty_thousand_levels_of_nesting_neither_fail_nor_overflow_the_stack() {
    // On a stack far smaller than that of any thread of the server.
    let parser = std::thread::Builder::new().stack_size(256 * 1024).spawn(|| {
        const LEVELS: usize = 50_000;
        let arrays = format!("{}{}", "[".repeat(LEVELS), "]".repeat(LEVELS));
        let objects = format!("{}1{}", r#"{"a":"#.repeat(LEVELS), "}".repeat(LEVELS));
        for value in [&arrays, &objects] {
            for key in ["a", "message", "status", "csat"] {
                assert!(parse(&event(&format!(r#""{key}":{value}"#))).is_ok(), "{key}");
            }
            assert!(parse(&format!(r#"{{"event_name":"fin_replied","message":{{"id":{value}}}}}"#)).is_ok());
            assert_eq!(parse(&format!(r#"{{"event_name":{value}}}"#)), Err(NotAnEvent::BadName));
            assert_eq!(parse(&value[..LEVELS]), Err(NotAnEvent::NotAnObject));
        }
        assert_eq!(parse(&arrays), Err(NotAnEvent::NotAnObject));
        assert_eq!(parse(&objects), Err(NotAnEvent::Unnamed));
    });
    parser.unwrap().join().unwrap();
}

#[test]
fn strings_of_a_mebibyte_are_read() {
    let long = "x".repeat(1 << 20);
    let escaped = r"\u0078".repeat(1 << 18);
    let body = format!(r#"{{"event_name":"{long}","conversation_id":"{escaped}","{long}":"{escaped}","{escaped}":1}}"#);
    let event = parse(&body).unwrap();
    assert_eq!(event.name, long);
    assert_eq!(event.conversation_id.as_deref(), Some(&long[..1 << 18]));
}

/// A JSON text and what it means. Strings are escaped here and there, white space stands wherever it may.
fn json() -> impl Strategy<Value = (String, Value)> {
    let leaf = prop_oneof![
        Just(("null".to_owned(), Value::Null)),
        any::<bool>().prop_map(|it| (it.to_string(), Value::Bool(it))),
        any::<i64>().prop_map(|it| (it.to_string(), Value::from(it))),
        quoted(any::<String>().boxed()).prop_map(|(text, it)| (text, Value::String(it))),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| {
                let texts: Vec<_> = items.iter().map(|(text, _)| text.as_str()).collect();
                (format!("[{}]", texts.join(" ,\n")), Value::Array(items.iter().map(|(_, it)| it.clone()).collect()))
            }),
            prop::collection::vec((quoted(key()), inner), 0..6).prop_map(|members| written(&members)),
        ]
    })
}

/// Keys that matter, and others.
fn key() -> BoxedStrategy<String> {
    let ours = prop::sample::select(vec![
        "event_name",
        "conversation_id",
        "user_id",
        "created_at_ms",
        "status",
        "reason",
        "message",
        "id",
        "timestamp_ms",
        "stream_id",
        "chunk_index",
    ]);
    prop_oneof![4 => ours.prop_map(str::to_owned), 1 => any::<String>()].boxed()
}

fn quoted(text: BoxedStrategy<String>) -> impl Strategy<Value = (String, String)> {
    (text, any::<u64>()).prop_map(|(text, mut dice)| {
        let mut json = String::from("\"");
        for char in text.chars() {
            dice = dice.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            if char < ' ' || char == '"' || char == '\\' || dice.is_multiple_of(4) {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    json.push_str(&format!("\\u{unit:04x}"));
                }
            } else {
                json.push(char);
            }
        }
        json.push('"');
        (json, text)
    })
}

type Member = ((String, String), (String, Value));

fn written(members: &[Member]) -> (String, Value) {
    let texts: Vec<_> = members.iter().map(|((key, _), (value, _))| format!("{key}\t: {value}")).collect();
    let map = members.iter().map(|((_, key), (_, value))| (key.clone(), value.clone())).collect();
    (format!("{{{}}}", texts.join("\r\n, ")), Value::Object(map))
}

proptest! {
    #[test]
    fn every_document_is_read_as_a_full_parser_reads_it(
        members in prop::collection::vec((quoted(key()), json()), 0..10),
        name in prop::option::of(prop::sample::select(vec!["fin_replied", "fin_reply_chunk", "other"])),
    ) {
        let mut members = members;
        if let Some(name) = name {
            members.retain(|((_, key), _)| key != "event_name");
            members.push((("\"event_name\"".into(), "event_name".into()), (format!("\"{name}\""), name.into())));
        }
        let (text, meaning) = written(&members);
        prop_assert_eq!(&serde_json::from_str::<Value>(&text).unwrap(), &meaning, "the generator's own mistake");

        let names: Vec<_> = members.iter().filter(|((_, key), _)| key == "event_name").collect();
        let expected = match names.as_slice() {
            [] => Err(NotAnEvent::Unnamed),
            [(_, (_, Value::String(name)))] if !name.is_empty() => Ok(name.as_str()),
            [_] => Err(NotAnEvent::BadName),
            _ => Err(NotAnEvent::NamedTwice),
        };
        let read = parse(&text);
        prop_assert_eq!(read.as_ref().map(|event| &*event.name).map_err(|error| *error), expected);
        let Ok(read) = read else { return Ok(()) };
        let message = &meaning["message"];
        prop_assert_eq!(read.conversation_id.as_deref(), meaning["conversation_id"].as_str());
        prop_assert_eq!(read.user_id.as_deref(), meaning["user_id"].as_str());
        prop_assert_eq!(read.created_at.as_deref(), meaning["created_at_ms"].as_str());
        prop_assert_eq!(read.status.as_deref(), meaning["status"].as_str());
        prop_assert_eq!(read.reason.as_deref(), meaning["reason"].as_str());
        prop_assert_eq!(read.message_id.as_deref(), message["id"].as_str());
        match read.detail {
            Detail::Replied { timestamp } => prop_assert_eq!(timestamp.as_deref(), message["timestamp_ms"].as_str()),
            Detail::ReplyChunk { stream_id, chunk_index } => {
                prop_assert_eq!(stream_id.as_deref(), meaning["stream_id"].as_str());
                prop_assert_eq!(chunk_index.map(str::to_owned), meaning["chunk_index"].as_u64().map(|it| it.to_string()));
            }
            _ => {}
        }
    }

    #[test]
    fn a_damaged_document_is_an_event_only_if_a_full_parser_takes_it(
        at in any::<prop::sample::Index>(), byte in prop::sample::select(b" \t\n{}[],:\"ae_nulltrue\0\x7f\xc3\xff".to_vec()), cut in any::<bool>(),
    ) {
        // No numbers and no escapes in it, so that nothing grammatical is beyond a full parser.
        let mut body = br#"{"event_name":"x","a":[true,false,null,{"b":{}}],"message":{"id":"m"},"status":"complete"}"#.to_vec();
        let at = at.index(body.len());
        if cut { body.truncate(at) } else { body[at] = byte }
        let read = FinEvent::parse(&body);
        match serde_json::from_slice::<Value>(&body) {
            Ok(Value::Object(map)) => {
                let named = map.get("event_name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
                prop_assert_eq!(read.is_ok(), named);
            }
            _ => prop_assert!(read.is_err()),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = FinEvent::parse(&body);
    }
}
