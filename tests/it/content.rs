//! Content by strangers: whatever is signed is answered 200, stored as it came, and delivered as it came or quarantined; and
//! everything that the program says stays what its readers can parse.

// The counts are part of what is shown.
#![allow(clippy::print_stdout)]

mod corpora;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::support::process::{Answer, Client, Finhook, Place};
use crate::support::receiver::Receiver;
use crate::support::wait::until;

/// Senders at once.
const SENDERS: usize = 8;

/// What a body must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Quarantined,
    /// One of them: JSON leaves it open, or it depends on what is put in.
    Either,
}

/// One body.
#[derive(Debug)]
struct Case {
    name: String,
    body: Vec<u8>,
    outcome: Outcome,
}

impl Case {
    fn new(name: impl Into<String>, body: impl Into<Vec<u8>>, outcome: Outcome) -> Self {
        Self { name: name.into(), body: body.into(), outcome }
    }
}

/// A body that was stored.
#[derive(Debug)]
struct Stored<'c> {
    case: &'c Case,
    id: String,
    accepted: bool,
}

/// Sends each body to the real program, signed, and checks what becomes of it at every place that it comes to.
async fn survives(mut cases: Vec<Case>) {
    let mut bodies = HashSet::new();
    cases.retain(|case| bodies.insert(case.body.clone()));
    let backend = Receiver::start().await;
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(
        folder.path(),
        &format!(
            "[log]\nlevel = \"debug\"\n[sinks.archive]\ntype = \"file\"\npath = \"archive.ndjson\"\n\
             [sinks.lines]\ntype = \"log\"\ninclude_body = true\n\
             [sinks.backend]\ntype = \"http\"\nurl = \"{}\"\nconcurrency = 32\n",
            backend.url()
        ),
    );
    tokio::task::spawn_blocking(move || {
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$0\" \"$@\" >lines.ndjson"]);
        let finhook = place.start_under(shell).unwrap();

        let stored = store(&finhook, &cases);
        assert_eq!(stored.iter().map(|stored| &stored.id).collect::<HashSet<_>>().len(), stored.len(), "an id each");
        let accepted: HashMap<&str, &Case> =
            stored.iter().filter(|stored| stored.accepted).map(|stored| (&*stored.id, stored.case)).collect();
        read_back(&finhook, &stored);
        for name in ["archive.ndjson", "lines.ndjson"] {
            let lines = || fs::read(place.path(name)).unwrap().iter().filter(|byte| **byte == b'\n').count();
            until("every event in the file", || lines() >= accepted.len());
        }
        until("every event at the backend", || backend.received().len() >= accepted.len());
        listed(&place, &finhook, stored.len());
        assert_eq!(finhook.ready(), 200);
        let metrics = finhook.admin_get("/metrics").body;
        let names = metrics.lines().filter(|line| line.starts_with("finhook_events_total{")).count();
        assert!(names < 20, "strangers make up time series: {metrics}");
        let ended = finhook.stop();
        assert_eq!(ended.status.code(), Some(0), "{:?}", ended.errors());

        let mut delivered = HashSet::new();
        for received in backend.received() {
            let case = accepted[received.header("ce-id")];
            assert_eq!(received.body, case.body, "{}: delivered with other bytes", case.name);
            delivered.insert(received.header("ce-id").to_owned());
        }
        assert_eq!((delivered.len(), backend.received().len()), (accepted.len(), accepted.len()), "each once");
        archived(&fs::read(place.path("archive.ndjson")).unwrap(), &accepted);
        printed(&fs::read(place.path("lines.ndjson")).unwrap(), &accepted);
        logged(&ended.log, stored.len() - accepted.len());
        println!(
            "{} bodies: {} delivered, {} quarantined; {} lines of log",
            stored.len(),
            accepted.len(),
            stored.len() - accepted.len(),
            ended.log.len()
        );
    })
    .await
    .unwrap();
}

/// Sends all of them; each is answered 200, with the outcome that it must have.
fn store<'c>(finhook: &Finhook, cases: &'c [Case]) -> Vec<Stored<'c>> {
    let send = |part: &'c [Case]| {
        let mut client = Client::new(finhook.public);
        let stored = part.iter().map(|case| (case, client.post(&case.body)));
        stored.map(|(case, answer)| outcome(case, answer.unwrap_or_else(|e| panic!("{}: {e}", case.name)))).collect()
    };
    std::thread::scope(|scope| {
        let parts = cases.chunks(cases.len().div_ceil(SENDERS));
        let senders: Vec<_> = parts.map(|part| scope.spawn(|| send(part))).collect();
        let stored: Vec<Vec<Stored<'_>>> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
        stored.into_iter().flatten().collect()
    })
}

fn outcome(case: &Case, answer: Answer) -> Stored<'_> {
    assert_eq!(answer.status, 200, "{}: {answer:?}", case.name);
    let json: Value = serde_json::from_str(&answer.body).unwrap();
    let outcome = match json["outcome"].as_str() {
        Some("accepted") => Outcome::Accepted,
        Some("quarantined") => Outcome::Quarantined,
        _ => panic!("{}: {answer:?}", case.name),
    };
    assert!(case.outcome == Outcome::Either || outcome == case.outcome, "{}: {answer:?}", case.name);
    Stored { case, id: json["id"].as_str().unwrap().to_owned(), accepted: outcome == Outcome::Accepted }
}

/// The admin API gives the bytes that were sent.
fn read_back(finhook: &Finhook, stored: &[Stored<'_>]) {
    let mut client = Client::new(finhook.admin);
    for Stored { case, id, accepted } in stored {
        let head = format!("GET /api/v1/events/{id}?body=true HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = client.request(&head, &[]).unwrap();
        let json: Value = serde_json::from_str(&answer.body).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert_eq!(json["state"], if *accepted { "stored" } else { "quarantined" }, "{}", case.name);
        let body = match (json["body"].as_str(), json["body_base64"].as_str()) {
            (Some(text), None) => text.as_bytes().to_owned(),
            (None, Some(base64)) => STANDARD.decode(base64).unwrap(),
            _ => panic!("{}: {}", case.name, answer.body),
        };
        assert_eq!(body, case.body, "{}: stored with other bytes", case.name);
    }
}

/// What an operator's terminal and scripts get to see of it.
fn listed(place: &Place, finhook: &Finhook, count: usize) {
    let (admin, limit) = (format!("http://{}", finhook.admin), count.to_string());
    let list = ["events", "list", "--admin", &admin, "--limit", &limit];
    let json = place.run(&[&list[..], &["--json"]].concat());
    let objects = json.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()));
    assert_eq!((objects.count(), json.lines().count()), (count, count));
    let table = place.run(&list);
    assert_eq!(table.lines().count(), count + 1, "one line an event");
    assert_steers_nothing(&table);
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert_eq!(table.lines().find(|line| line.contains(turns)), None, "what is seen is reordered");
}

/// Nothing in it moves a cursor, changes a colour or breaks a line where none ends.
fn assert_steers_nothing(text: &str) {
    let steers = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{2028}' | '\u{2029}');
    let line = text.lines().find(|line| line.contains(steers));
    assert!(line.is_none(), "{line:?}");
}

/// Lines of the file sink: CloudEvents with the body's own bytes, but for line breaks between tokens.
fn archived(archive: &[u8], accepted: &HashMap<&str, &Case>) {
    #[derive(Deserialize)]
    struct Line<'a> {
        id: &'a str,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let mut seen = HashSet::new();
    for line in str::from_utf8(archive).unwrap().split_terminator('\n') {
        let line: Line<'_> = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let case = accepted[line.id];
        // Not even white space around the body is lost, but RawValue leaves it out.
        let sent: Vec<u8> =
            case.body.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect();
        assert_eq!(line.data.get().as_bytes(), sent.trim_ascii(), "{}: archived with other bytes", case.name);
        assert!(seen.insert(line.id), "{} is there twice", case.name);
    }
    assert_eq!(seen.len(), accepted.len());
}

/// Lines of the log sink: the same for a reader of JSON, and harmless on a terminal.
fn printed(lines: &[u8], accepted: &HashMap<&str, &Case>) {
    #[derive(Deserialize)]
    struct Line<'a> {
        id: &'a str,
        body_bytes: usize,
        #[serde(borrow)]
        body: &'a RawValue,
    }
    let text = str::from_utf8(lines).unwrap();
    assert_steers_nothing(text);
    let mut seen = HashSet::new();
    for line in text.split_terminator('\n') {
        let line: Line<'_> = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let case = accepted[line.id];
        assert_eq!(line.body_bytes, case.body.len(), "{}", case.name);
        // What is nested deeper than this reader goes, and lone surrogates, have no value to compare.
        let sent = serde_json::from_slice::<Value>(&case.body);
        let printed = serde_json::from_str::<Value>(line.body.get());
        assert_eq!(printed.ok(), sent.ok(), "{}: printed with another meaning", case.name);
        assert!(seen.insert(line.id), "{} is there twice", case.name);
    }
    assert_eq!(seen.len(), accepted.len());
}

/// The program's own log: one JSON object a line; no error but one for each that was quarantined.
fn logged(log: &[String], quarantined: usize) {
    let mut errors = 0;
    for line in log {
        let Ok(Value::Object(line)) = serde_json::from_str(line) else { panic!("not a JSON object: {line}") };
        if line["level"] == "ERROR" {
            assert_eq!(line["message"], "authentic, but not an event: kept, not delivered");
            errors += 1;
        }
    }
    assert_eq!(errors, quarantined);
    assert_steers_nothing(&log.join("\n"));
}

/// A Fin event with this JSON text as its message's content.
fn around(content: &[u8]) -> Vec<u8> {
    let start = br#"{"event_name":"fin_replied","message":{"author":"fin","content":"#;
    [start, content, br#"},"conversation_id":"c"}"#].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_json_test_suite_is_stored_and_delivered_byte_for_byte_or_quarantined() {
    let mut cases = Vec::new();
    for corpora::Input { name, input } in corpora::json_test_suite() {
        // None of them has an event_name.
        cases.push(Case::new(&name, &*input, Outcome::Quarantined));
        let outcome = match &name[..2] {
            "y_" => Outcome::Accepted,
            "n_" => Outcome::Quarantined,
            _ => Outcome::Either,
        };
        cases.push(Case::new(format!("{name} in an event"), around(input.as_bytes()), outcome));
    }
    survives(cases).await;
}

/// A JSON string that is written in escapes alone.
fn escaped(text: &str) -> String {
    let escapes: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    format!("\"{escapes}\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_naughty_strings_are_stored_and_delivered_byte_for_byte_or_quarantined() {
    let mut cases = Vec::new();
    for text in corpora::naughty_strings() {
        cases.push(Case::new(format!("{text:?}"), &*text, Outcome::Quarantined));
        // Had both the same text, they would be the same event.
        for string in [serde_json::to_string(&text).unwrap(), escaped(&format!("{text} in escapes"))] {
            let fields = format!(
                r#""conversation_id":{string},"user_id":{string},"status":{string},"reason":{string},"created_at_ms":{string},"message":{{"id":{string},"author":{string},"content":{string},"timestamp_ms":{string}}},"stream_id":{string},"chunk_index":{string}"#
            );
            let known = format!(r#"{{"event_name":"fin_replied",{fields}}}"#);
            cases.push(Case::new(format!("{text:?} in each field"), known, Outcome::Accepted));
            let named = format!(r#"{{"event_name":{string},{fields}}}"#);
            // An empty name is none.
            let outcome = if string == "\"\"" { Outcome::Quarantined } else { Outcome::Accepted };
            cases.push(Case::new(format!("{text:?} as the name"), named, outcome));
            let key = format!(r#"{{"event_name":"fin_replied","conversation_id":"c",{string}:{string}}}"#);
            cases.push(Case::new(format!("{text:?} as a key"), key, Outcome::Accepted));
        }
    }
    survives(cases).await;
}

/// The suite's package holds its inputs as text; those that are not UTF-8 are made here.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_utf_8_are_quarantined_as_they_came() {
    let sequences: [&[u8]; 19] = [
        b"\x80",                     // continues nothing
        b"\xbf\xbf",                 // the same twice
        b"\xc3",                     // begins two bytes and stops
        b"\xe2\x82",                 // three
        b"\xf0\x9f\x98",             // four
        b"\xc0\x80",                 // NUL in two bytes
        b"\xc1\xbf",                 // DEL
        b"\xe0\x80\xaf",             // a slash in three
        b"\xf0\x80\x80\xaf",         // in four
        b"\xed\xa0\x80",             // a first surrogate
        b"\xed\xb0\x80",             // a second one
        b"\xed\xa0\xbd\xed\xb8\x80", // a pair of them
        b"\xf4\x90\x80\x80",         // behind the last code point
        b"\xf8\x88\x80\x80\x80",     // five bytes
        b"\xfc\x84\x80\x80\x80\x80", // six
        b"\xfe",
        b"\xff",
        b"\xe9",     // e acute in Latin-1
        b"\xef\xbb", // a byte order mark that breaks off
    ];
    let places: [(&[u8], &[u8]); 8] = [
        (b"", b""),
        (b"[\"", b"\"]"),
        (b"{\"event_name\":\"fin_replied\",\"conversation_id\":\"", b"\"}"),
        (b"{\"event_name\":\"", b"\"}"),
        (b"{\"event_name\":\"fin_replied\",\"", b"\":1}"),
        (b"{\"event_name\":\"fin_replied\",\"a\":\"\\", b"\"}"),
        (b"{\"event_name\":\"fin_replied\",\"a\":1", b"}"),
        (b"{\"event_name\":\"fin_replied\"}", b""),
    ];
    let mut cases = Vec::new();
    for (before, after) in places {
        for sequence in sequences {
            let body = [before, sequence, after].concat();
            cases.push(Case::new(body.escape_ascii().to_string(), body, Outcome::Quarantined));
        }
    }
    // An event in UTF-16, either way round, with a mark and without.
    let event = "{\"event_name\":\"fin_replied\"}";
    for mark in ["", "\u{feff}"] {
        let units: Vec<u16> = format!("{mark}{event}").encode_utf16().collect();
        for (name, bytes) in [("little", u16::to_le_bytes as fn(u16) -> [u8; 2]), ("big", u16::to_be_bytes)] {
            let body: Vec<u8> = units.iter().flat_map(|unit| bytes(*unit)).collect();
            cases.push(Case::new(format!("UTF-16, {name}-endian, mark {mark:?}"), body, Outcome::Quarantined));
        }
    }
    survives(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn depth_size_doubled_keys_and_controls_are_stored_and_delivered_byte_for_byte_or_quarantined() {
    const LIMIT: usize = 1024 * 1024;
    use Outcome::{Accepted, Quarantined};
    let nested = |open: &str, close: &str, levels: usize| format!("{}0{}", open.repeat(levels), close.repeat(levels));
    let filled = |character: &str| {
        let (empty, mut text) = (around(b"\"\"").len(), String::from("\""));
        text += &character.repeat((LIMIT - empty) / character.len());
        around((text + "\"").as_bytes())
    };
    let long = "9".repeat(LIMIT / 2);
    let mut cases = vec![
        Case::new("arrays", around(nested("[", "]", 50_000).as_bytes()), Accepted),
        Case::new("objects", around(nested("{\"a\":", "}", 50_000).as_bytes()), Accepted),
        Case::new("as deep as the limit lets it", around(nested("[", "]", 500_000).as_bytes()), Accepted),
        Case::new("never closed", around("[".repeat(500_000).as_bytes()), Quarantined),
        Case::new("nothing but brackets", "[".repeat(LIMIT), Quarantined),
        Case::new("a long string", filled("x"), Accepted),
        Case::new("a long string of quotes", filled("\\\""), Accepted),
        Case::new("a long string of escapes", filled("\\u0000"), Accepted),
        Case::new("a long string of line separators", filled("\u{2028}"), Accepted),
        Case::new("a long string of faces", filled("\u{1f600}"), Accepted),
        Case::new("a long number", around(long.as_bytes()), Accepted),
        Case::new("a long exponent", around(format!("1e{long}").as_bytes()), Accepted),
        Case::new("a long fraction", around(format!("-0.{long}").as_bytes()), Accepted),
        Case::new("named twice", r#"{"event_name":"fin_replied","event_name":"fin_replied"}"#, Quarantined),
        Case::new(
            "all but the name twice",
            r#"{"event_name":"e","user_id":"a","user_id":1,"status":[],"status":"b"}"#,
            Accepted,
        ),
        Case::new("a line each", "{\r\n\"event_name\"\n:\r\"fin_replied\"\r\n}\r\n\n", Accepted),
    ];
    for value in [
        "null",
        "true",
        "1",
        "1e999",
        "-1",
        "1.5",
        "[]",
        "{}",
        "[\"a\"]",
        "{\"id\":\"a\"}",
        "\"\\ud800\"",
        "\"\\udc00\\ud800\"",
    ] {
        let fields =
            ["conversation_id", "user_id", "status", "reason", "created_at_ms", "message", "stream_id", "chunk_index"];
        for name in ["fin_replied", "fin_status_updated", "csat_requested", "fin_reply_chunk"] {
            let fields: String = fields.iter().map(|field| format!(",\"{field}\":{value}")).collect();
            let event = format!("{{\"event_name\":\"{name}\"{fields}}}");
            cases.push(Case::new(format!("{value} everywhere in {name}"), event, Accepted));
        }
        cases.push(Case::new(format!("{value} as the name"), format!("{{\"event_name\":{value}}}"), Quarantined));
    }
    // As they are, which JSON allows from U+0080 on and for DEL; in escapes, which it allows for all.
    let controls = (0..0x20)
        .chain(0x7f..0xa0)
        .chain([0xad, 0x200b, 0x200e, 0x202e, 0x2028, 0x2029, 0x2066, 0xfeff, 0xfffe, 0xfdd0, 0x10_ffff]);
    for control in controls.filter_map(char::from_u32) {
        let outcome = if control < ' ' { Quarantined } else { Accepted };
        let event = format!(r#"{{"event_name":"e","conversation_id":"a{control}b","user_id":"{control}"}}"#);
        cases.push(Case::new(format!("{control:?} as it is"), event, outcome));
        let string = escaped(&format!("\x1b[31m{control}"));
        let event = format!(r#"{{"event_name":{string},"conversation_id":{string},"user_id":{string}}}"#);
        cases.push(Case::new(format!("{control:?} in escapes"), event, Accepted));
    }
    survives(cases).await;
}
