//! No secret, no signature and no body stands in anything that the program says of itself, at its most talkative.

use crate::support::SECRET;
use crate::support::events::body;
use crate::support::process::Place;
use crate::support::receiver::{Answer, Receiver};
use crate::support::wait::eventually;
use finhook::verify::sign;

const CLIENT_SECRET: &str = "the-client-secret-of-the-app";
const HEADER_SECRET: &str = "Bearer-of-the-relays-header";
const URL_SECRET: &str = "password-in-the-relays-url";
const WHSEC: &str = "whsec_c2VjcmV0LW9mLXRoZS1yZWxheXMtc2lnbmF0dXJl";
/// Stands in every body that is sent.
const MARKER: &str = "what-a-customer-wrote";

fn request(signature: &str, body: &str) -> String {
    format!(
        "POST /fin HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{signature}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_errors_and_metrics_hold_no_secret_no_signature_and_no_body() {
    let receiver = Receiver::start().await;
    receiver.answer_all(Answer::status(404).body(MARKER));
    let url = receiver.url().replace("http://", &format!("http://user:{URL_SECRET}@")) + "?key=" + URL_SECRET;
    let program = Place::temporary("")
        .var("LOG__LEVEL", "trace")
        .var("ENDPOINTS__FIN__SIGNING_SECRETS", SECRET)
        .var("ENDPOINTS__FIN__CLIENT_SECRET", CLIENT_SECRET)
        .var("SINKS__BACKEND__TYPE", "http")
        .var("SINKS__BACKEND__URL", &url)
        .var("SINKS__BACKEND__HEADERS__AUTHORIZATION", HEADER_SECRET)
        .var("SINKS__BACKEND__SIGNING_SECRET", WHSEC)
        .var("SINKS__BACKEND__RETRY__BASE", "10ms")
        .var("SINKS__ARCHIVE__TYPE", "file")
        .var("SINKS__ARCHIVE__PATH", "events.ndjson")
        .start();

    let good = body("c", 1).replace("<p>1</p>", MARKER);
    let conflict = good.replace(MARKER, &format!("{MARKER} again"));
    let stale = body("c", 2).replace("2026-", "2016-").replace("<p>2</p>", MARKER);
    let not_json = format!("{{\"{MARKER}\":");
    let mut signatures = Vec::new();
    let mut said = String::new();
    let mut connection = program.connect().await;
    for (body, status) in [(&good, 200), (&good, 200), (&conflict, 200), (&stale, 200), (&not_json, 200)] {
        let signature = sign(&SECRET.into(), body.as_bytes());
        connection.send(request(&format!("X-Fin-Agent-API-Webhook-Signature: {signature}"), body)).await;
        let reply = connection.reply().await;
        assert_eq!(reply.status, status, "{}", reply.text());
        said += reply.text();
        signatures.push(signature.trim_start_matches("sha256=").to_owned());
    }
    let forged = "0123456789abcdef".repeat(4);
    let refused = [
        format!("X-Fin-Agent-API-Webhook-Signature: sha256={forged}"),
        format!("X-Fin-Agent-API-Webhook-Signature: {MARKER}"),
        format!("X-Hub-Signature: sha1={}", &forged[..40]),
        format!("X-Unknown: {MARKER}"),
    ];
    for header in refused {
        let mut connection = program.connect().await;
        connection.send(request(&header, &good)).await;
        let reply = connection.reply().await;
        assert_eq!(reply.status, 401, "{}", reply.text());
        said += reply.text();
    }
    signatures.push(forged[..40].to_owned());

    // The relay's refusals are logged too.
    receiver.wait_for(3).await;
    let log = || program.log().join("\n");
    eventually("the dead letter is logged", async || log().contains("dead letter")).await;
    said += &program.admin_get("/metrics").body;
    said += &log();

    assert!(said.len() > 5_000, "this says too little to prove anything: {said}");
    let secrets = [SECRET, CLIENT_SECRET, HEADER_SECRET, URL_SECRET, WHSEC, &WHSEC[6..], MARKER];
    for secret in secrets.into_iter().chain(signatures.iter().map(String::as_str)) {
        let line = said.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} stands in {line:?}");
    }
    // Nor any part of the file sink's lines or of a body in another form.
    assert!(!said.contains("timestamp_ms"), "a field of a body is in the log");
}
