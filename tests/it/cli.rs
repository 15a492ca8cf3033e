//! The command line, through the real command.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};

use finhook::verify::{Keyring, Signature};
use serde_json::Value;

use crate::support::SECRET;
use crate::support::command::Sandbox;
use crate::support::wait::PATIENCE;

/// One request, as it came.
struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Gives these answers, one after the other, on as many connections as it takes.
fn answering(answers: Vec<(u16, &'static str)>) -> (SocketAddr, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (seen, requests) = sync_channel(100);
    std::thread::spawn(move || {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let request = read(&mut stream);
            let length = body.len();
            let answer = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).unwrap();
            seen.send(request).unwrap();
        }
    });
    (addr, requests)
}

fn read(stream: &mut TcpStream) -> Request {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "the request broke off");
        bytes.extend_from_slice(&buffer[..n]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let request = Request { head, body: bytes[end + 4..].to_vec() };
        let length: usize = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        if request.body.len() == length {
            return request;
        }
    }
}

fn with_secret() -> Sandbox {
    Sandbox::new().var("FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS", SECRET)
}

/// An address that nobody listens on: it was free a moment ago.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn wrong_usage_ends_with_2() {
    let sandbox = with_secret();
    for args in [
        &[][..],
        &["srve"],
        &["serve", "--no-such-option"],
        &["verify"],
        &["send", "--count", "0"],
        &["send", "--secret", ""],
        &["send", "--url", "no url"],
        &["send", "csat_requested", "--file", "x"],
    ] {
        let done = sandbox.run(args);
        assert_eq!(done.code, 2, "{args:?}: {}", done.stderr);
        assert!(done.stdout.is_empty() && !done.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn every_command_explains_itself_with_examples() {
    let sandbox = Sandbox::new();
    for command in ["serve", "check", "send", "sign", "verify", "healthcheck"] {
        let done = sandbox.run(&[command, "--help"]);
        assert_eq!(done.code, 0);
        assert!(done.stdout.contains("Examples:") && done.stdout.contains(&format!("finhook {command}")), "{command}");
    }
    assert!(sandbox.run(&["--help"]).stdout.contains("Exit codes:"));
    assert_eq!(sandbox.run(&["--version"]).stdout, format!("finhook {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_sign_prints_verify_accepts_and_for_no_other_body() {
    let sandbox = with_secret().file("body.json", "{\"a\":1}\n");
    let signed = sandbox.run(&["sign", "body.json"]).stdout;
    let signature = signed.strip_suffix('\n').unwrap();
    assert!(signature.starts_with("sha256=") && signature.len() == 71, "{signature}");
    assert_eq!(sandbox.run_with(&["sign"], b"{\"a\":1}\n").stdout, signed, "stdin and file differ");

    let verify = |signature: &str, body: &[u8]| sandbox.run_with(&["verify", "--signature", signature], body).code;
    assert_eq!(verify(signature, b"{\"a\":1}\n"), 0);
    assert_eq!(verify(&signature[7..].to_uppercase(), b"{\"a\":1}\n"), 0);
    assert_eq!(verify(signature, b"{\"a\":1}"), 1, "the line end counts");
    assert_eq!(verify(&signature[..70], b"{\"a\":1}\n"), 1);
    assert_eq!(verify("", b"{\"a\":1}\n"), 1);
    assert_eq!(sandbox.run(&["verify", "--signature", signature, "body.json"]).code, 0);
    assert_eq!(sandbox.run(&["verify", "--signature", signature, "no.json"]).code, 1);
    assert_eq!(sandbox.run(&["verify", "--secret", "another", "--signature", signature, "body.json"]).code, 1);
}

#[test]
fn any_configured_secret_verifies_and_the_first_one_signs() {
    let sandbox = Sandbox::new().var("FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS", "current,former");
    let by = |secret: &str| sandbox.run_with(&["sign", "--secret", secret], b"x").stdout;
    assert_eq!(sandbox.run_with(&["sign"], b"x").stdout, by("current"));
    for (secret, code) in [("current", 0), ("former", 0), ("other", 1)] {
        assert_eq!(sandbox.run_with(&["verify", "--signature", by(secret).trim_end()], b"x").code, code, "{secret}");
    }
}

#[test]
fn a_secret_of_digits_stays_what_it_is_by_every_way() {
    let name = "FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS";
    let by_var = Sandbox::new().var(name, "00123");
    let signed = by_var.run_with(&["sign", "--secret", "00123"], b"x").stdout;
    assert_ne!(by_var.run_with(&["sign", "--secret", "123"], b"x").stdout, signed);
    let by_list = Sandbox::with_config("[endpoints.fin]\nsigning_secrets = [\"00123\"]\n");
    let by_file = Sandbox::with_config("[endpoints.fin]\nsigning_secrets_file = \"s\"\n").file("s", "00123\n");
    for sandbox in [by_var, by_list, by_file] {
        assert_eq!(sandbox.run_with(&["sign"], b"x").stdout, signed);
    }
}

#[test]
fn without_a_secret_the_commands_say_how_to_set_one() {
    let sandbox = Sandbox::new();
    for args in [&["sign"][..], &["send"], &["verify", "--signature", "x"]] {
        let done = sandbox.run(args);
        assert_eq!(done.code, 1, "{args:?}");
        for way in ["--secret", "FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS", "signing_secrets_file"] {
            assert!(done.stderr.contains(way), "{args:?}: {}", done.stderr);
        }
    }
}

#[test]
fn send_posts_a_signed_event_to_the_configured_endpoint_and_prints_the_answer() {
    let (addr, requests) = answering(vec![(200, r#"{"id":"0190aa","outcome":"accepted"}"#)]);
    let sandbox = with_secret().var("FINHOOK__SERVER__BIND", &format!("0.0.0.0:{}", addr.port()));
    let done = sandbox.run(&["send", "--conversation", "c-17"]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "200 0190aa accepted\n"), "{}", done.stderr);

    let request = requests.recv_timeout(PATIENCE).unwrap();
    assert!(request.head.starts_with("POST /webhooks/fin HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.header("content-type"), Some("application/json"));
    let signature = request.header("x-fin-agent-api-webhook-signature").unwrap();
    let signature = Signature::parse(signature.as_bytes()).unwrap();
    assert!(Keyring::new(&[SECRET.into()]).verify(&signature, request.body.clone().into()).is_ok());
    let event = request.json();
    assert_eq!(event["event_name"], "fin_replied");
    assert_eq!(event["conversation_id"], "c-17");
    assert_eq!(event["message"]["author"], "fin");
}

#[test]
fn send_knows_every_event_and_takes_others() {
    let answers = vec![(200, r#"{"id":"x","outcome":"accepted"}"#); 5];
    let (addr, requests) = answering(answers);
    let sandbox = with_secret();
    let url = format!("http://{addr}/hook");
    for (event, field) in [
        ("fin_replied", "/message/body"),
        ("fin_status_updated", "/reason"),
        ("csat_requested", "/csat/options/4/key"),
        ("fin_reply_chunk", "/chunk_text"),
        ("fin_dreamt", "/user_id"),
    ] {
        assert_eq!(sandbox.run(&["send", event, "--url", &url]).code, 0);
        let request = requests.recv_timeout(PATIENCE).unwrap();
        assert!(request.head.starts_with("POST /hook "), "{}", request.head);
        assert_eq!(request.json()["event_name"], event);
        assert!(request.json().pointer(field).is_some_and(Value::is_string), "{event} lacks {field}");
    }
}

#[test]
fn sent_samples_differ_in_time_and_a_file_is_sent_byte_for_byte() {
    let (addr, requests) = answering(vec![(200, r#"{"id":"x","outcome":"accepted"}"#); 5]);
    let url = format!("http://{addr}/");
    let body = b"{ \"event_name\" : \"fin_replied\" }\r\n \n";
    let sandbox = with_secret().file("body.json", body);
    let done = sandbox.run(&["send", "fin_status_updated", "--count", "3", "--url", &url]);
    assert_eq!((done.code, done.stdout.lines().count()), (0, 3), "{}", done.stderr);
    let times: std::collections::BTreeSet<String> =
        (0..3).map(|_| requests.recv_timeout(PATIENCE).unwrap().json()["created_at_ms"].to_string()).collect();
    assert_eq!(times.len(), 3, "{times:?}");

    assert_eq!(sandbox.run(&["send", "--file", "body.json", "--count", "2", "--url", &url]).code, 0);
    for _ in 0..2 {
        assert_eq!(requests.recv_timeout(PATIENCE).unwrap().body, body);
    }
}

#[test]
fn send_ends_with_1_when_an_answer_is_not_200_and_still_sends_the_rest() {
    let (addr, _requests) = answering(vec![
        (503, r#"{"title":"Not now","status":503}"#),
        (200, r#"{"id":"x","outcome":"accepted"}"#),
        (302, ""),
    ]);
    let done = with_secret().run(&["send", "--count", "3", "--url", &format!("http://{addr}/")]);
    assert_eq!((done.code, done.stdout.as_str()), (1, "503 - Not now\n200 x accepted\n302 - -\n"));
}

#[test]
fn send_to_nobody_asks_whether_it_is_running() {
    let url = format!("http://user:hunter2@{}/", nobody());
    let done = with_secret().run(&["send", "--url", &url]);
    assert_eq!((done.code, done.stdout.as_str()), (1, ""));
    assert!(done.stderr.contains("finhook serve") && !done.stderr.contains("hunter2"), "{}", done.stderr);
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
}

#[test]
fn send_needs_no_valid_configuration_when_url_and_secret_are_given() {
    let (addr, _requests) = answering(vec![(200, r#"{"id":"x","outcome":"accepted"}"#)]);
    let sandbox = Sandbox::with_config("nonsense = 1\n");
    assert_eq!(sandbox.run(&["send", "--secret", "s", "--url", &format!("http://{addr}/")]).code, 0);
    assert_eq!(sandbox.run(&["send", "--secret", "s"]).code, 78);
}

#[test]
fn healthcheck_succeeds_only_when_ready() {
    let (addr, requests) = answering(vec![(200, "ok"), (503, "draining")]);
    let sandbox = Sandbox::new()
        .var("FINHOOK__ADMIN__BIND", &format!("0.0.0.0:{}", addr.port()))
        .var("FINHOOK__ADMIN__TOKEN", "0123456789abcdef");
    assert_eq!(sandbox.run(&["healthcheck"]).code, 0);
    let request = requests.recv_timeout(PATIENCE).unwrap();
    assert!(request.head.starts_with("GET /readyz HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.header("authorization"), None);

    let done = sandbox.run(&["healthcheck"]);
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("503"), "{}", done.stderr);
    let sandbox = Sandbox::new().var("FINHOOK__ADMIN__BIND", &nobody().to_string());
    assert_eq!(sandbox.run(&["healthcheck"]).code, 1);
}

/// A receiver that warns of a short secret and can't open its journal: it logs that, and ends.
fn failing() -> Sandbox {
    let listeners =
        Sandbox::new().var("FINHOOK__SERVER__BIND", "127.0.0.1:0").var("FINHOOK__ADMIN__BIND", "127.0.0.1:0");
    let listeners = listeners.var("FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS", "short");
    listeners.file("file", "").var("FINHOOK__JOURNAL__PATH", "file/finhook.db")
}

#[test]
fn the_log_is_json_on_stderr_unless_text_is_asked_for() {
    let done = failing().run(&["serve"]);
    assert_eq!((done.code, done.stdout.as_str()), (1, ""), "{}", done.stderr);
    let lines: Vec<Value> = done.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        for key in ["timestamp", "level", "message"] {
            assert!(line[key].is_string(), "{key} is missing in {line}");
        }
    }
    assert!(lines.iter().any(|line| line["level"] == "WARN"), "the configuration's warning is not logged");
    assert!(lines.iter().any(|line| line["level"] == "ERROR"), "the failure is not logged");

    let done = failing().var("FINHOOK__LOG__FORMAT", "text").run(&["serve"]);
    assert!(done.stderr.contains("ERROR") && !done.stderr.contains("{\""), "{}", done.stderr);
    let done = failing().var("FINHOOK__LOG__LEVEL", "error").run(&["serve"]);
    assert!(done.stderr.contains("ERROR") && !done.stderr.contains("WARN"), "{}", done.stderr);
}

/// The first line of the log that has this text, as JSON.
fn logged(log: impl std::io::BufRead, text: &str) -> Value {
    let line = log.lines().map_while(Result::ok).find(|line| line.contains(text));
    serde_json::from_str(&line.expect("it ends before it logs this")).unwrap()
}

#[test]
fn serve_names_the_callback_url_and_forwards_what_comes_there_without_a_file() {
    let (backend, requests) = answering(vec![(200, "")]);
    let sandbox = with_secret().var("FINHOOK__SERVER__BIND", "0.0.0.0:0").var("FINHOOK__ADMIN__BIND", "127.0.0.1:0");
    let mut command = sandbox.command(["serve", "--forward-to", &format!("{backend}/hook")]);
    let mut serve = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let line = logged(std::io::BufReader::new(serve.stderr.take().unwrap()), "callback URL");
    assert_eq!((&line["endpoint"], &line["next"]), (&"fin".into(), &"finhook send".into()), "{line}");
    let url = line["url"].as_str().unwrap();
    assert!(url.starts_with("http://127.0.0.1:") && url.ends_with("/webhooks/fin"), "{url}");

    let sent = sandbox.run(&["send", "--url", url]);
    let forwarded = requests.recv_timeout(PATIENCE);
    serve.kill().unwrap();
    serve.wait().unwrap();
    let forwarded = forwarded.unwrap();
    assert!(forwarded.head.starts_with("POST /hook HTTP/1.1"), "{}", forwarded.head);
    assert!(sent.stdout.contains(forwarded.header("ce-id").unwrap()), "{}", sent.stdout);
}

#[test]
fn a_stand_in_that_cannot_listen_names_the_address_and_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let done = Sandbox::new().run(&["fake-fin", "--bind", &address]);
    assert_eq!(done.code, 1);
    assert!(
        done.stderr.contains(&format!("{address} can't be bound")) && done.stderr.contains("--bind"),
        "{}",
        done.stderr
    );
}
