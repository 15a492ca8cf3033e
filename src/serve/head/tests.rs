#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// A gate that was fed `bytes` at once.
fn fed(bytes: &[u8]) -> Gate {
    let mut gate = Gate::default();
    gate.feed(bytes);
    gate
}

/// A request line and a `Host`, then these header lines, each with its line end, and the empty line.
fn with(lines: &str) -> String {
    format!("POST /fin HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

fn fault(head: &str) -> Option<Fault> {
    let gate = fed(head.as_bytes());
    assert!(gate.fault().is_none_or(|(request, _)| request == 0));
    gate.fault().map(|(_, fault)| fault)
}

#[test]
fn lengths_that_can_be_read_in_two_ways_are_refused() {
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\ncontent-length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 \x0b\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999\r\n",
    ] {
        assert_eq!(fault(&with(lines)), Some(Fault::Length), "{lines:?}");
    }
}

#[test]
fn codings_other_than_one_chunked_are_refused() {
    for lines in [
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n",
    ] {
        assert_eq!(fault(&with(lines)), Some(Fault::Coding), "{lines:?}");
    }
}

#[test]
fn lines_that_can_be_read_in_two_ways_are_refused() {
    for head in [
        "POST /fin HTTP/1.1\nHost: a\r\n\r\n".to_owned(),
        "\nPOST /fin HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "POST /fin HTTP/1.1\r\nHost: a\n\r\n".to_owned(),
        "POST /fin HTTP/1.1\r\nHost: a\r\n\n".to_owned(),
        with("X: a\r\n b\r\n"),
        with("X: a\r\n\tb\r\n"),
        with("Content-Length : 5\r\n"),
        with("Content-Length\t: 5\r\n"),
        with(" Content-Length: 5\r\n"),
        with("Content-Length\r\n"),
        with(": 5\r\n"),
    ] {
        assert_eq!(fault(&head), Some(Fault::Line), "{head:?}");
    }
}

#[test]
fn one_host_is_required_from_http_1_1_on_and_two_are_too_many_for_any_version() {
    for head in [
        "POST /fin HTTP/1.1\r\n\r\n",
        "POST /fin HTTP/1.0 \r\nX: y\r\n\r\n",
        "POST /fin HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n",
        "POST /fin HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
    ] {
        assert_eq!(fault(head), Some(Fault::Host), "{head:?}");
    }
    for head in ["POST /fin HTTP/1.0\r\nHost:\r\n\r\n", "OPTIONS / HTTP/1.0\r\n\r\n"] {
        assert_eq!(fault(head), None, "{head:?}");
    }
    // Each request on a connection for itself.
    let second = fed(b"HEAD / HTTP/1.0\r\n\r\nHEAD / HTTP/1.1\r\n\r\n");
    assert_eq!(second.fault(), Some((1, Fault::Host)));
}

#[test]
fn the_path_for_the_log_has_no_query_no_host_and_no_end_that_could_be_endless() {
    for (head, path) in [
        ("POST /fni HTTP/1.1\r\nHost: a\r\n", "/fni"),
        ("POST  /fni?token=secret HTTP/1.1\r\n", "/fni"),
        ("POST http://user:password@host/fni?x HTTP/1.1\r\n", "/fni"),
        ("POST http://user:password@host HTTP/1.1\r\n", ""),
        ("POST /fni", "/fni"),
        ("POST /fni\n", "/fni\n"),
        ("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\n", "/b"),
        ("NOISE\r\n", ""),
        ("", ""),
    ] {
        let mut gate = Gate::default();
        gate.feed(head.as_bytes());
        assert_eq!(gate.path(), path.trim_end(), "{head:?}");
    }
    let mut gate = Gate::default();
    gate.feed(format!("POST /{}", "x".repeat(2 * MAX_HEAD)).as_bytes());
    assert!(gate.path().starts_with("/xxx") && gate.path().len() < MAX_KEPT, "{}", gate.path().len());
}

#[test]
fn a_clean_head_passes() {
    for lines in [
        "Content-Length: 0\r\n",
        "content-length:\t7 \r\n",
        "TRANSFER-ENCODING:chunked\r\n",
        "Transfer-Encoding: Chunked \r\n",
        "X-Empty:\r\n",
        "X: a:b\r\n",
    ] {
        assert_eq!(fault(&with(lines)), None, "{lines:?}");
    }
    assert_eq!(fault(&format!("\r\n\r\n{}", with(""))), None, "empty lines before a request are no part of it");
}

#[test]
fn a_body_is_skipped_whatever_it_looks_like() {
    let inner = "POST /fin HTTP/1.1\n\n";
    let gate = fed(format!("{}{inner}{}", with(&format!("Content-Length: {}\r\n", inner.len())), with("")).as_bytes());
    assert_eq!((gate.heads, gate.fault()), (2, None));
    assert!(!gate.in_head() && !gate.in_body());
}

#[test]
fn nothing_behind_a_chunked_request_or_a_fault_is_read() {
    let gate = fed(format!("{}0\r\n\r\n{}", with("Transfer-Encoding: chunked\r\n"), with("")).as_bytes());
    assert_eq!((gate.heads, gate.fault()), (1, None));
    assert!(gate.in_body());
    let gate = fed(format!("{}{}{}", with(""), with("Content-Length: x\r\n"), with("")).as_bytes());
    assert_eq!(gate.fault(), Some((1, Fault::Length)));
    assert!(gate.in_body());
}

#[test]
fn a_begun_head_is_seen_from_its_first_byte_to_its_last() {
    let head = with("Content-Length: 1\r\n");
    let mut gate = Gate::default();
    assert!(!gate.in_head());
    for (at, byte) in head.bytes().enumerate() {
        gate.feed(&[byte]);
        assert_eq!(gate.in_head(), at + 1 < head.len(), "after byte {at}");
    }
    assert!(gate.in_body());
    gate.feed(b"x");
    assert!(!gate.in_body());
}

#[test]
fn what_is_kept_of_a_head_is_bounded() {
    let mut gate = Gate::default();
    for _ in 0..1_000 {
        gate.feed(&[b'x'; 1_000]);
        assert!(gate.line.len() <= MAX_HEAD);
    }
}

/// Clean requests, with bodies that look like anything.
fn request() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec("[A-Za-z-]{1,18}: ?[ -~]{0,20}", 0..4)).prop_map(
        |(body, lines)| {
            let known = ["host", "content-length", "transfer-encoding"];
            let own = lines.into_iter().filter(|line| {
                let name = line.split(':').next().unwrap().to_ascii_lowercase();
                !known.contains(&name.as_str())
            });
            let own: String = own.map(|line| format!("{line}\r\n")).collect();
            [with(&format!("{own}Content-Length: {}\r\n", body.len())).into_bytes(), body].concat()
        },
    )
}

proptest! {
    #[test]
    fn pipelined_requests_are_all_found_however_they_are_split(
        requests in prop::collection::vec(request(), 1..5),
        splits in prop::collection::vec(1_usize..50, 1..20),
    ) {
        let bytes = requests.concat();
        let mut gate = Gate::default();
        let (mut rest, mut splits) = (&bytes[..], splits.iter().cycle());
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(*splits.next().unwrap()));
            gate.feed(piece);
            rest = later;
        }
        prop_assert_eq!(gate.fault(), None);
        prop_assert_eq!(gate.heads, requests.len() as u64);
        prop_assert!(!gate.in_head() && !gate.in_body());
    }

    #[test]
    fn how_the_bytes_are_split_does_not_matter(
        pieces in prop::collection::vec(prop::sample::select(&[
            "GET / HTTP/1.1\r\n", "Host: a\r\n", "Content-Length: 3\r\n", "Content-Length : 3\r\n", "\r\n", "\n", "\r", "a:b",
            "Transfer-Encoding: chunked\r\n", " ", "xyz", ":",
        ][..]), 0..12),
    ) {
        let bytes = pieces.concat().into_bytes();
        let whole = fed(&bytes);
        let mut split = Gate::default();
        for byte in &bytes {
            split.feed(std::slice::from_ref(byte));
        }
        prop_assert_eq!(split.fault(), whole.fault());
        prop_assert_eq!(split.heads, whole.heads);
        prop_assert_eq!(split.state, whole.state);
        prop_assert_eq!(&split.line, &whole.line);
    }

    /// Against the parser that hyper uses: a head that both let through ends at the same byte for both, and what the
    /// gate takes for an unfinished head is not a finished one for the parser.
    #[test]
    fn a_head_that_passes_ends_where_hypers_parser_says(
        pieces in prop::collection::vec(prop::sample::select(&[
            "GET / HTTP/1.1\r\n", "POST /fin HTTP/1.0\r\n", "Host: a\r\n", "Content-Length: 3\r\n", "\r\n", "\n", "\r", "a:b\r\n",
            "Transfer-Encoding: chunked\r\n", " x\r\n", "xyz", ":", "a: b\n", "\0", "é: ü\r\n",
        ][..]), 0..10),
    ) {
        let bytes = pieces.concat().into_bytes();
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let parsed = httparse::Request::new(&mut headers).parse(&bytes);
        let mut gate = Gate::default();
        let ends = bytes.iter().position(|byte| { gate.feed(&[*byte]); gate.heads == 1 || gate.fault().is_some() });
        match (parsed, gate.fault()) {
            (Ok(httparse::Status::Complete(length)), None) => prop_assert_eq!(ends, Some(length - 1)),
            (Ok(httparse::Status::Partial), None) => prop_assert_eq!(ends, None),
            _ => {}
        }
    }
}
