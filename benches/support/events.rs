//! Unique, signed Fin events of exactly 1 KiB, made as they are sent.
//!
//! Everything that differs from event to event stands at the end of the body, so the signature's hash state of what
//! stands before it is computed once and each event costs only the last few blocks (about a quarter of a
//! microsecond). Nothing is prepared before a run, so a run has no bound on its length and needs no memory.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use time::OffsetDateTime;

/// Where the endpoint is.
pub(crate) const PATH: &str = "/webhooks/fin";
/// The signing secret of every benchmark.
pub(crate) const SECRET: &str = "bench-signing-secret-0123456789abcdef";

/// What stands before the hex digits of Fin's signature.
pub(crate) const FIN_SIGNATURE: &str = "X-Fin-Agent-API-Webhook-Signature: sha256=";

/// Length of every body in bytes.
pub(crate) const BODY_BYTES: usize = 1024;

/// Which conversations the events belong to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Conversations {
    /// This many, in turn.
    Spread(u64),
    /// All of them to this one.
    One(u64),
}

/// Makes requests. Two with the same `run` make the same events.
pub(crate) struct Events {
    request: Vec<u8>,
    body_at: usize,
    signature_at: usize,
    tail_at: usize,
    keyed: Hmac<Sha256>,
    run: u32,
    next: u64,
    conversations: Conversations,
    now_ms: u64,
    now_text: [u8; 24],
}

// The tail's fields, by their place in it. All have a fixed width.
const TAIL: &str = concat!(
    r#""id":"msg_00000000_000000000000","timestamp_ms":"0000-00-00T00:00:00.000Z"},"#,
    r#""conversation_id":"conv_000000000000","created_at_ms":"0000-00-00T00:00:00.000Z"}"#
);
const RUN_AT: usize = 10;
const NUMBER_AT: usize = 19;
const TIMESTAMP_AT: usize = 49;
const CONVERSATION_AT: usize = 100;
const CREATED_AT: usize = 131;

impl Events {
    /// `run` tells the events of one run from those of another; `host` and `path` are where they are posted to, and
    /// `signature` is what stands before the signature's hex digits: the header's name and perhaps a prefix.
    pub(crate) fn new(run: u32, host: &str, path: &str, signature: &str, conversations: Conversations) -> Self {
        let mut body = String::from(
            r#"{"event_name":"fin_replied","user_id":"7891","status":"awaiting_user_reply","message":{"author":"fin","format":"html","body":"<p>"#,
        );
        let text = "You can change your plan under Settings, Billing, then choose the one that fits your team. ";
        let closing = r#"</p>","#;
        let wanted = BODY_BYTES - TAIL.len() - closing.len();
        body.extend(text.chars().cycle().take(wanted - body.len()));
        body.push_str(closing);
        let tail_in_body = body.len();
        body.push_str(TAIL);
        assert_eq!(body.len(), BODY_BYTES);

        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: finhook-bench\r\nAccept: */*\r\n\
             Content-Type: application/json\r\nContent-Length: {BODY_BYTES}\r\n\
             {signature}"
        )
        .into_bytes();
        let signature_at = request.len();
        request.extend_from_slice(&[b'0'; 64]);
        request.extend_from_slice(b"\r\n\r\n");
        let body_at = request.len();
        request.extend_from_slice(body.as_bytes());
        let tail_at = body_at + tail_in_body;
        request[tail_at + RUN_AT..tail_at + RUN_AT + 8].copy_from_slice(format!("{run:08x}").as_bytes());

        let mut keyed = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length is a key");
        // Whole blocks of 64 bytes only; the rest is hashed with the tail.
        keyed.update(&request[body_at..body_at + tail_in_body / 64 * 64]);
        let mut events = Self {
            request,
            body_at,
            signature_at,
            tail_at,
            keyed,
            run,
            next: 0,
            conversations,
            now_ms: 0,
            now_text: [b'0'; 24],
        };
        events.tick();
        events
    }

    /// Takes the time that the next events carry. Call it now and then, not for each event.
    pub(crate) fn tick(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(0);
        if now_ms != self.now_ms {
            self.now_ms = now_ms;
            self.now_text = rfc3339(now);
        }
    }

    /// The next event's number, from 0.
    pub(crate) fn next_number(&self) -> u64 {
        self.next
    }

    /// Belongs to the run that these events carry.
    pub(crate) fn run(&self) -> u32 {
        self.run
    }

    /// The next event as a complete HTTP request.
    pub(crate) fn next_request(&mut self) -> &[u8] {
        let number = self.next;
        self.next += 1;
        let conversation = match self.conversations {
            Conversations::Spread(count) => number % count,
            Conversations::One(which) => which,
        };
        let tail = &mut self.request[self.tail_at..];
        decimal(&mut tail[NUMBER_AT..NUMBER_AT + 12], number);
        decimal(&mut tail[CONVERSATION_AT..CONVERSATION_AT + 12], conversation);
        tail[TIMESTAMP_AT..TIMESTAMP_AT + 24].copy_from_slice(&self.now_text);
        tail[CREATED_AT..CREATED_AT + 24].copy_from_slice(&self.now_text);

        let mut mac = self.keyed.clone();
        let rest_at = self.body_at + (self.tail_at - self.body_at) / 64 * 64;
        mac.update(&self.request[rest_at..]);
        let mac = mac.finalize().into_bytes();
        hex_into(&mut self.request[self.signature_at..self.signature_at + 64], &mac);
        &self.request
    }

    /// The body of the request that [`Self::next_request`] made last.
    pub(crate) fn last_body(&self) -> &[u8] {
        &self.request[self.body_at..]
    }
}

/// Events that no other run of this or any earlier process made.
pub(crate) fn fresh_events(host: &str, conversations: Conversations) -> Events {
    fresh_signed_events(host, FIN_SIGNATURE, conversations)
}

/// The same, with the signature in another header.
pub(crate) fn fresh_signed_events(host: &str, signature: &str, conversations: Conversations) -> Events {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let run = u32::try_from(begun % 4_000_000).unwrap_or(0) * 1000 + run;
    Events::new(run, host, PATH, signature, conversations)
}

/// The run, number and conversation that an event's body carries, or `None` if it is not one of ours.
pub(crate) fn read_back(body: &[u8]) -> Option<(u32, u64, u64)> {
    let tail = body.get(body.len().checked_sub(TAIL.len())?..)?;
    if !tail.starts_with(br#""id":"msg_"#) {
        return None;
    }
    let run = std::str::from_utf8(tail.get(RUN_AT..RUN_AT + 8)?).ok()?;
    let number = std::str::from_utf8(tail.get(NUMBER_AT..NUMBER_AT + 12)?).ok()?;
    let conversation = std::str::from_utf8(tail.get(CONVERSATION_AT..CONVERSATION_AT + 12)?).ok()?;
    Some((u32::from_str_radix(run, 16).ok()?, number.parse().ok()?, conversation.parse().ok()?))
}

/// Checks that what the generator makes is what it claims to be; run before every benchmark.
pub(crate) fn self_check() -> super::Result<()> {
    let mut events = Events::new(7, "localhost", "/", FIN_SIGNATURE, Conversations::Spread(10));
    for number in 0..25 {
        let request = events.next_request().to_vec();
        let body = events.last_body();
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?;
        mac.update(body);
        let signature = hex::encode(mac.finalize().into_bytes());
        let request = String::from_utf8(request)?;
        if !request.contains(&format!("sha256={signature}\r\n")) {
            return Err("the generator's signatures are wrong".into());
        }
        let json: serde_json::Value = serde_json::from_slice(body)?;
        if json["message"]["id"] != format!("msg_00000007_{number:012}")
            || json["conversation_id"] != format!("conv_{:012}", number % 10)
            || json["created_at_ms"] != json["message"]["timestamp_ms"]
            || read_back(body) != Some((7, number, number % 10))
        {
            return Err("the generator's events are wrong".into());
        }
    }
    Ok(())
}

fn decimal(into: &mut [u8], mut value: u64) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

fn hex_into(into: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in into.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

fn rfc3339(since_epoch: Duration) -> [u8; 24] {
    let at = OffsetDateTime::UNIX_EPOCH + since_epoch;
    let text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.millisecond()
    );
    let mut out = [b'0'; 24];
    out.copy_from_slice(text.as_bytes());
    out
}
