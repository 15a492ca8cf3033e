//! What the stand-in does in one turn of a conversation: a pure function from (scenario, turn, seed) to a [`Script`].

use bytes::Bytes;
use fastrand::Rng;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::fin::{
    self, AWAITING, COMPLETE, CSAT_REQUESTED, Csat, CsatOption, ESCALATED, Event, Message, REPLIED, REPLY_CHUNK,
    REPLYING, RESOLVED, STATUS_UPDATED, THINKING,
};

/// How the stand-in behaves. The first six are what Fin does on a good day, the others what a receiver must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Thinks, then gives one answer, not streamed.
    Answer,
    /// An answer in three messages.
    MultiPart,
    /// Hands over to people, with a reason.
    Escalate,
    /// Settles the matter and asks for a rating, with the event stream held open until then.
    ResolveCsat,
    /// One answer, streamed in chunks.
    Streaming,
    /// No event stream at all, and an inactivity message that comes by webhook only.
    WebhookOnly,
    /// Every event comes several times by each way.
    Duplicates,
    /// Webhooks come late and in another order.
    OutOfOrder,
    /// An event name, a status and fields that nobody has documented.
    UnknownEvent,
    /// Webhooks with a wrong signature between the real ones.
    BadSignature,
    /// Event streams break off, and webhooks are repeated because their answers got lost.
    Flaky,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Answer,
        Self::MultiPart,
        Self::Escalate,
        Self::ResolveCsat,
        Self::Streaming,
        Self::WebhookOnly,
        Self::Duplicates,
        Self::OutOfOrder,
        Self::UnknownEvent,
        Self::BadSignature,
        Self::Flaky,
    ];

    /// Whether an answer to a request holds an `sse_subscription_url`.
    #[must_use]
    pub fn streams(self) -> bool {
        self != Self::WebhookOnly
    }
}

/// One turn: what the user said, and where in which conversation.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// The conversation's id.
    pub conversation: &'a str,
    /// The user's id.
    pub user: &'a str,
    /// What the user said.
    pub text: &'a str,
    /// 0 for the conversation's first.
    pub number: u32,
    /// When it began, unix milliseconds.
    pub start_ms: i64,
}

/// What happens in a turn.
#[derive(Debug, Clone)]
pub struct Script {
    /// In the order in which they happen.
    pub steps: Vec<Step>,
    /// In the order in which they are sent.
    pub webhooks: Vec<Webhook>,
}

/// One event, by SSE.
#[derive(Debug, Clone)]
pub struct Step {
    /// Since the turn's start, milliseconds of unhurried time.
    pub at_ms: u64,
    /// What it says.
    pub event: Event,
    /// Its JSON, the same by both ways.
    pub body: Bytes,
    /// How many times it is written to the event stream.
    pub sse_copies: u32,
    /// Whether the event streams break off after it.
    pub cut: bool,
    /// Whether it comes by webhook, too.
    pub webhook: bool,
}

/// One webhook.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Index of the step from which on it may be sent.
    pub after: usize,
    /// How much later it is sent, milliseconds of unhurried time.
    pub delay_ms: u64,
    /// The raw body.
    pub body: Bytes,
    /// Signed with another secret.
    pub forged: bool,
    /// Times it is sent although it was answered, as if the answers had got lost.
    pub repeats: u32,
}

/// Why the escalation scenario escalates.
pub const ESCALATION_REASON: &str = "Escalation requested by user";
/// Name of the event that nobody has documented.
pub const UNKNOWN_EVENT: &str = "fin_procedure_started";
/// Text of forged messages: must never be seen anywhere.
pub const FORGED_TEXT: &str = "forged";

/// Keys, emoji and labels of the ratings.
const RATINGS: [(&str, &str, &str); 5] = [
    ("terrible", "😠", "Terrible"),
    ("bad", "🙁", "Bad"),
    ("ok", "😐", "OK"),
    ("good", "🙂", "Good"),
    ("amazing", "🤩", "Amazing"),
];

/// Parts of answers: HTML and the same as plain text.
const PASSWORD: [(&str, &str); 3] = [
    (
        "<p>You can reset your password in a minute:</p><ol><li>Open <b>Settings</b> and choose <b>Security</b>.</li>\
         <li>Select <b>Reset password</b>.</li><li>Follow the link in the e-mail that we send you.</li></ol>",
        "You can reset your password in a minute: 1. Open Settings and choose Security. 2. Select Reset password. \
         3. Follow the link in the e-mail that we send you.",
    ),
    ("<p>The link is valid for one hour &amp; works once.</p>", "The link is valid for one hour & works once."),
    (
        "<p>See also <a href=\"https://example.com/help/passwords\">Choosing a good password</a>.</p>",
        "See also Choosing a good password.",
    ),
];
const GENERAL: [(&str, &str); 3] = [
    (
        "<p>Thanks for asking! Here is what I found in the help centre: most settings are under <b>Account</b>.</p>",
        "Thanks for asking! Here is what I found in the help centre: most settings are under Account.",
    ),
    ("<p>Changes take effect <em>at once</em>.</p>", "Changes take effect at once."),
    ("<p>Is there anything else that I can do for you?</p>", "Is there anything else that I can do for you?"),
];

/// Writes the script of a turn. The same arguments give the same script, byte for byte.
#[must_use]
pub fn script(scenario: Scenario, turn: Turn<'_>, seed: u64) -> Script {
    let salt = seed.wrapping_add(u64::from(turn.number));
    let mut writer = Writer {
        turn,
        rng: Rng::with_seed(xxh3_64_with_seed(turn.conversation.as_bytes(), salt)),
        clock_ms: 0,
        steps: Vec::new(),
    };
    let parts = if turn.text.to_lowercase().contains("password") { PASSWORD } else { GENERAL };
    writer.status(THINKING, None);
    match scenario {
        Scenario::Answer | Scenario::BadSignature => writer.reply(parts[0], false, AWAITING),
        Scenario::MultiPart | Scenario::OutOfOrder => {
            writer.reply(parts[0], true, REPLYING);
            writer.reply(parts[1], true, REPLYING);
            writer.reply(parts[2], true, AWAITING);
        }
        Scenario::Escalate => {
            let text = "A colleague will take over.";
            writer.reply(("<p>A colleague will take over.</p>", text), true, REPLYING);
            writer.status(ESCALATED, Some(ESCALATION_REASON));
            writer.status(COMPLETE, None);
        }
        Scenario::ResolveCsat => {
            writer.reply(parts[0], true, REPLYING);
            writer.status(RESOLVED, None);
            writer.status(COMPLETE, None);
            writer.csat();
        }
        Scenario::Streaming | Scenario::Duplicates | Scenario::Flaky => writer.reply(parts[0], true, AWAITING),
        Scenario::WebhookOnly => {
            writer.reply(parts[0], false, AWAITING);
            writer.clock_ms += 120_000;
            let text = "Are you still there?";
            writer.reply(("<p>Are you still there?</p>", text), false, AWAITING);
        }
        Scenario::UnknownEvent => {
            writer.unknown();
            writer.status("consulting_oracle", None);
            writer.reply(parts[0], true, AWAITING);
        }
    }
    if !matches!(scenario, Scenario::Escalate | Scenario::ResolveCsat) {
        writer.status(AWAITING, None);
    }
    writer.finish(scenario)
}

struct Writer<'a> {
    turn: Turn<'a>,
    rng: Rng,
    clock_ms: u64,
    steps: Vec<Step>,
}

impl Writer<'_> {
    /// An event of this moment, a little later than the last one.
    fn event(&mut self, name: &str) -> Event {
        self.clock_ms += self.rng.u64(40..=160);
        let at_ms = self.turn.start_ms.saturating_add_unsigned(self.clock_ms);
        Event {
            event_name: name.to_owned(),
            conversation_id: self.turn.conversation.to_owned(),
            user_id: Some(self.turn.user.to_owned()),
            created_at_ms: crate::clock::rfc3339(at_ms),
            ..Event::default()
        }
    }

    fn push(&mut self, event: Event) {
        let webhook = event.event_name != REPLY_CHUNK;
        // Of strings and numbers only: this cannot fail.
        let body = serde_json::to_vec(&event).unwrap_or_default().into();
        self.steps.push(Step { at_ms: self.clock_ms, event, body, sse_copies: 1, cut: false, webhook });
    }

    fn status(&mut self, status: &str, reason: Option<&str>) {
        let event = self.event(STATUS_UPDATED);
        self.push(Event { status: Some(status.to_owned()), reason: reason.map(str::to_owned), ..event });
    }

    /// A reply of one message, whose chunks come first if it is streamed.
    fn reply(&mut self, (html, text): (&str, &str), streamed: bool, status: &str) {
        let stream_id = format!("stream_{:016x}", self.rng.u64(..));
        if streamed {
            let words: Vec<&str> = text.split_inclusive(' ').collect();
            let (mut taken, mut index) = (0, 0);
            while taken < words.len() {
                taken = (taken + self.rng.usize(2..=5)).min(words.len());
                let event = self.event(REPLY_CHUNK);
                self.push(Event {
                    user_id: None,
                    status: Some(REPLYING.to_owned()),
                    stream_id: Some(stream_id.clone()),
                    chunk_index: Some(index),
                    chunk_text: Some(words[..taken].concat()),
                    ..event
                });
                index += 1;
            }
        } else {
            self.clock_ms += 800;
        }
        let event = self.event(REPLIED);
        let message = Message {
            id: Some(format!("msg_{:016x}", self.rng.u64(..))),
            author: "fin".to_owned(),
            body: html.to_owned(),
            timestamp_ms: event.created_at_ms.clone(),
            timestamp: None,
        };
        self.push(Event {
            status: Some(status.to_owned()),
            message: Some(message),
            stream_id: streamed.then_some(stream_id),
            ..event
        });
    }

    fn csat(&mut self) {
        // Long enough after `complete` to show that the event stream is held open.
        self.clock_ms += 1_500;
        let event = self.event(CSAT_REQUESTED);
        let option = |(key, emoji, label): (&str, &str, &str)| CsatOption {
            key: key.to_owned(),
            emoji: emoji.to_owned(),
            label: label.to_owned(),
        };
        self.push(Event { csat: Some(Csat { options: RATINGS.map(option).into() }), ..event });
    }

    fn unknown(&mut self) {
        let event = self.event(UNKNOWN_EVENT);
        let mut body = serde_json::to_value(&event).unwrap_or_default();
        body["procedure"] = serde_json::json!({"name": "Refund", "steps": [1, 2, 3], "ratio": 0.5});
        let body = body.to_string().into();
        self.steps.push(Step { at_ms: self.clock_ms, event, body, sse_copies: 1, cut: false, webhook: true });
    }

    /// Adds the webhooks, and what goes wrong.
    fn finish(mut self, scenario: Scenario) -> Script {
        let last = self.steps.len() - 1;
        let mut webhooks: Vec<Webhook> = (self.steps.iter().enumerate())
            .filter(|(_, step)| step.webhook)
            .map(|(after, step)| Webhook { after, delay_ms: 0, body: step.body.clone(), forged: false, repeats: 0 })
            .collect();
        match scenario {
            Scenario::Duplicates => {
                self.steps.iter_mut().for_each(|step| step.sse_copies = self.rng.u32(2..=3));
                webhooks.iter_mut().for_each(|webhook| webhook.repeats = self.rng.u32(1..=2));
            }
            Scenario::OutOfOrder => {
                // Rotated, then shuffled behind the first: never the order in which they happened.
                webhooks.rotate_left(1);
                self.rng.shuffle(&mut webhooks[1..]);
                webhooks.iter_mut().for_each(|webhook| webhook.after = last);
                // Late enough that whoever listens to the event stream has seen everything.
                webhooks[0].delay_ms = 2_000;
            }
            Scenario::BadSignature => {
                webhooks = webhooks.into_iter().flat_map(|real| [forged(&real), real]).collect();
            }
            Scenario::Flaky => {
                self.steps.iter_mut().for_each(|step| step.cut = self.rng.u32(0..4) == 0);
                // At least one of each, whatever the seed says.
                self.steps[last / 2].cut = true;
                webhooks.iter_mut().for_each(|webhook| webhook.repeats = self.rng.u32(0..=1));
                webhooks[0].repeats = 1;
            }
            _ => {}
        }
        Script { steps: self.steps, webhooks }
    }
}

/// What someone without the secret might send: another message under a name that the receiver knows.
fn forged(real: &Webhook) -> Webhook {
    let mut event: fin::Event = serde_json::from_slice(&real.body).unwrap_or_default();
    event.event_name = REPLIED.to_owned();
    event.message = Some(Message { author: "fin".to_owned(), body: FORGED_TEXT.to_owned(), ..Message::default() });
    let body = serde_json::to_vec(&event).unwrap_or_default().into();
    Webhook { after: real.after, delay_ms: 0, body, forged: true, repeats: 0 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TURN: Turn<'_> = Turn {
        conversation: "fin:test:1",
        user: "u1",
        text: "How do I reset my password?",
        number: 0,
        start_ms: 1_737_712_800_123,
    };

    fn bodies(script: &Script) -> Vec<Bytes> {
        script.webhooks.iter().map(|webhook| webhook.body.clone()).collect()
    }

    #[test]
    fn the_same_seed_writes_the_same_script_and_another_seed_another_one() {
        for scenario in Scenario::ALL {
            let first = script(scenario, TURN, 7);
            assert_eq!(format!("{first:?}"), format!("{:?}", script(scenario, TURN, 7)), "{scenario:?}");
            assert_ne!(bodies(&first), bodies(&script(scenario, TURN, 8)), "{scenario:?}");
        }
    }

    #[test]
    fn chunks_are_cumulative_contiguous_and_never_sent_by_webhook() {
        for scenario in Scenario::ALL {
            let script = script(scenario, TURN, 3);
            let mut last: Option<Event> = None;
            for step in &script.steps {
                let event = &step.event;
                if event.event_name != REPLY_CHUNK {
                    last = None;
                    continue;
                }
                assert_eq!(event.user_id, None);
                let index = event.chunk_index.unwrap();
                if let Some(last) = &last {
                    assert_eq!(last.stream_id, event.stream_id);
                    assert_eq!(index, last.chunk_index.unwrap() + 1);
                    assert!(event.chunk_text.as_ref().unwrap().starts_with(last.chunk_text.as_ref().unwrap()));
                } else {
                    assert_eq!(index, 0);
                }
                last = Some(event.clone());
            }
            let text = |webhook: &Webhook| String::from_utf8(webhook.body.to_vec()).unwrap();
            assert!(script.webhooks.iter().all(|webhook| !text(webhook).contains(REPLY_CHUNK)), "{scenario:?}");
        }
    }

    #[test]
    fn every_turn_ends_so_that_its_token_can_be_revoked() {
        for scenario in Scenario::ALL {
            let script = script(scenario, TURN, 5);
            let end = script.steps.iter().position(|step| step.event.ends_turn());
            assert!(end.is_some(), "{scenario:?}");
        }
    }

    #[test]
    fn webhooks_out_of_order_are_never_in_order() {
        for seed in 0..200 {
            let ordered: Vec<Bytes> =
                script(Scenario::MultiPart, TURN, seed).webhooks.iter().map(|w| w.body.clone()).collect();
            let mut shuffled = bodies(&script(Scenario::OutOfOrder, TURN, seed));
            assert_ne!(shuffled, ordered);
            let mut sorted = ordered;
            sorted.sort();
            shuffled.sort();
            assert_eq!(shuffled, sorted, "the same events, only in another order");
        }
    }
}
