#![allow(clippy::unwrap_used)]
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::event::{Fields, Kind, Parts, Stored};

fn event(body: &str) -> Event {
    Event::from_journal(parts(body))
}

fn parts(body: &str) -> Parts {
    Parts {
        id: Uuid::from_u128(1),
        kind: Kind::Event,
        endpoint: Arc::from("fin"),
        received_ms: 1_737_712_800_456,
        created_ms: 0,
        fields: Fields {
            event_name: Some("fin_replied".into()),
            conversation_id: Some("123456".into()),
            message_id: Some("m1".into()),
            created_at: Some("2025-01-24T10:00:00.123Z".into()),
            ..Fields::default()
        },
        content_type: None,
        signature: Some("sha256=00".into()),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

fn delivery(event: Event) -> Delivery {
    Delivery { stored: Arc::new(Stored { seq: 1, event }), attempt: 1, replay: None }
}

fn line(event: &Event, include_body: bool) -> String {
    let mut buf = Vec::new();
    append_line(&mut buf, event, include_body);
    String::from_utf8(buf).unwrap()
}

/// What a sink wrote, for a test to read; takes only so many bytes, then fails, until it is given more room.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    got: Vec<u8>,
    room: usize,
    calls: usize,
}

impl Pipe {
    fn with_room(room: usize) -> Self {
        let pipe = Self::default();
        pipe.0.lock().unwrap().room = room;
        pipe
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().got.clone()).unwrap()
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        state.calls += 1;
        let n = bytes.len().min(state.room);
        if n == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        state.room -= n;
        state.got.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_has_the_members_of_the_contract_in_their_order() {
    let body = "{\"a\":\n1}";
    let expected = concat!(
        r#"{"timestamp":"2025-01-24T10:00:00.456Z","id":"00000000-0000-0000-0000-000000000001","endpoint":"fin","#,
        r#""event":"fin_replied","conversation_id":"123456","user_id":null,"status":null,"reason":null,"#,
        r#""message_id":"m1","created_at":"2025-01-24T10:00:00.123Z","body_bytes":8"#
    );
    assert_eq!(line(&event(body), false), format!("{expected}}}\n"));
    assert_eq!(line(&event(body), true), format!("{expected},\"body\":{{\"a\": 1}}}}\n"));
}

#[test]
fn without_include_body_nothing_of_body_or_signature_is_in_a_line() {
    let line = line(&event(r#"{"message":{"body":"s3cret"}}"#), false);
    assert!(!line.contains("s3cret") && !line.contains("sha256="), "{line}");
}

#[test]
fn a_batch_is_one_write() {
    let pipe = Pipe::with_room(usize::MAX);
    let mut log = Log::new(&LogSink { include_body: false }, Box::new(pipe.clone()));
    log.write(&vec![delivery(event("{}")); 100]).unwrap();
    assert_eq!(pipe.text().lines().count(), 100);
    assert_eq!(pipe.0.lock().unwrap().calls, 1);
}

#[test]
fn a_reader_that_went_away_is_an_error_with_a_text() {
    let mut log = Log::new(&LogSink { include_body: false }, Box::new(Pipe::with_room(0)));
    let error = log.write(&[delivery(event("{}"))]).unwrap_err();
    assert!(error.starts_with("cannot write to stdout: broken pipe"), "{error}");
}

#[test]
fn a_line_that_a_failure_cut_is_completed_before_anything_else_is_written() {
    let batch = vec![delivery(event(r#"{"a":1}"#)), delivery(event(r#"{"a":"ü"}"#))];
    let whole = line(&batch[0].stored.event, true) + &line(&batch[1].stored.event, true);
    let first = line(&batch[0].stored.event, true);
    for room in 0..=whole.len() {
        let pipe = Pipe::with_room(room);
        let mut log = Log::new(&LogSink { include_body: true }, Box::new(pipe.clone()));
        assert_eq!(log.write(&batch).is_ok(), room == whole.len());
        // Again without room: must change nothing.
        assert!(log.write(&batch).is_err());
        pipe.0.lock().unwrap().room = usize::MAX;
        log.write(&batch).unwrap();

        let begun = match room {
            0 => "",
            n if n <= first.len() => first.as_str(),
            _ => whole.as_str(),
        };
        assert_eq!(pipe.text(), format!("{begun}{whole}"), "cut after {room} bytes");
    }
}

proptest! {
    #[test]
    fn a_line_is_one_line_of_json_that_steers_no_terminal_whatever_the_content(
        texts in proptest::collection::vec(
            prop_oneof![any::<String>(), "[\\x1b\\x00\\x7f\u{80}-\u{9f}\u{2028}\u{2029}\u{202f}a\\\\\"]*"], 6,
        ),
    ) {
        let body = json!({ "text": texts[0] });
        let mut parts = parts(&format!("{{\"text\":\r\n{}}}", serde_json::to_string(&texts[0]).unwrap()));
        parts.fields.conversation_id = Some(texts[1].as_str().into());
        parts.fields.user_id = Some(texts[2].as_str().into());
        parts.fields.reason = Some(texts[3].as_str().into());
        parts.fields.event_name = Some(texts[4].as_str().into());
        parts.fields.created_at = Some(texts[5].as_str().into());

        let line = line(&Event::from_journal(parts), true);
        let text = line.strip_suffix('\n').unwrap();
        prop_assert!(!text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')), "{}", text);
        let line: Value = serde_json::from_str(text).unwrap();
        prop_assert_eq!(&line["body"], &body);
        prop_assert_eq!(&line["conversation_id"], &Value::from(texts[1].as_str()));
        prop_assert_eq!(&line["reason"], &Value::from(texts[3].as_str()));
    }
}
