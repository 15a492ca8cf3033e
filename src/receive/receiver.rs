//! From a claim and a body to an answer: verify, make an event, store it. This is the path to a 200, in one place.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use uuid::Uuid;

use super::{Answer, Intake, Refusal};
use crate::clock::now_ms;
use crate::event::notification::Notification;
use crate::event::parse::NotAnEvent;
use crate::event::{Event, Kind, names};
use crate::journal::{AppendError, Appended, Journal};
use crate::metrics::EndpointMetrics;
use crate::serve::Seldom;
use crate::verify::{HEADER, HUB_HEADER, Keyring, Scheme, Signature, SignatureError};

/// One endpoint: whose signatures it accepts, and how its requests are counted.
#[derive(Debug)]
pub struct Endpoint {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The secrets, as they are now; they say whose webhooks these are.
    pub keyring: Arc<Keyring>,
    /// Verifies the test of Fin's settings page, which is signed like a classic webhook, if configured.
    pub client_secret: Option<Keyring>,
    /// Its counters.
    pub metrics: EndpointMetrics,
    /// Well-formed signatures that none of the secrets made.
    pub mismatches: Mutex<Seldom>,
    /// Requests that look as if they were meant for an endpoint of the other kind.
    pub mistaken: Mutex<Seldom>,
}

/// What a head claims about its body.
#[derive(Debug)]
pub enum Claim {
    /// To be an event.
    Event {
        /// The parsed header.
        signature: Signature,
        /// The request's `Content-Type`.
        content_type: Option<Box<str>>,
    },
    /// To be the settings page's test.
    Test(Signature),
}

/// Verifies requests and stores what they bring.
#[derive(Debug)]
pub struct Receiver {
    endpoints: Vec<Endpoint>,
    journal: Journal,
    dedupe_window_ms: i64,
}

impl Receiver {
    /// A receiver for `endpoints`, in the order in which the listener numbers them.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>, journal: Journal, dedupe_window: Duration) -> Self {
        let dedupe_window_ms = i64::try_from(dedupe_window.as_millis()).unwrap_or(i64::MAX);
        Self { endpoints, journal, dedupe_window_ms }
    }
}

impl Intake for Receiver {
    type Claim = Claim;

    fn claim(&self, endpoint: usize, headers: &HeaderMap) -> Result<Claim, Refusal> {
        let endpoint = &self.endpoints[endpoint];
        let scheme = endpoint.keyring.scheme();
        let signature = match scheme {
            Scheme::Fin => Signature::from_headers(headers),
            Scheme::Intercom => Signature::from_hub_headers(headers),
        };
        match signature {
            Ok(signature) => {
                let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(Into::into);
                return Ok(Claim::Event { signature, content_type });
            }
            // Beside a Fin header, whatever it holds, it is no test.
            Err(SignatureError::Missing) if endpoint.client_secret.is_some() => {
                if let Ok(signature) = Signature::from_hub_headers(headers) {
                    return Ok(Claim::Test(signature));
                }
            }
            Err(_) => endpoint.mistaken(headers),
        }
        Err(Refusal::Unauthenticated(scheme))
    }

    fn take(&self, endpoint: usize, claim: Claim, body: Bytes) -> impl Future<Output = Answer> + Send {
        let endpoint = &self.endpoints[endpoint];
        let taken = self
            .event(endpoint, claim, body)
            .map(|event| store(&self.journal, &endpoint.name, &endpoint.metrics, event));
        async move {
            match taken {
                Ok(stored) => stored.await,
                Err(answer) => answer,
            }
        }
    }
}

impl Receiver {
    /// The event, or the answer where there is none to be stored.
    fn event(&self, endpoint: &Endpoint, claim: Claim, body: Bytes) -> Result<Event, Answer> {
        let (signature, content_type) = match claim {
            Claim::Event { signature, content_type } => (signature, content_type),
            Claim::Test(signature) => return Err(endpoint.settings_test(&signature, &body)),
        };
        if endpoint.keyring.is_empty() {
            return Err(Answer::Refused(Refusal::NoSecret));
        }
        let verified = endpoint.keyring.verify(&signature, body).map_err(|_| endpoint.mismatch())?;
        let sent = Some(signature.into_sent());
        let name = endpoint.name.clone();
        let event = Event::receive(verified, name, now_ms(), self.dedupe_window_ms, content_type, sent);
        if endpoint.keyring.scheme() == Scheme::Intercom && event.fields.event_name.as_deref() == Some(names::PING) {
            tracing::info!(endpoint = &*endpoint.name, "Intercom's ping arrived and is valid");
            return Err(Answer::Test);
        }
        Ok(event)
    }
}

impl Endpoint {
    /// A body was not signed with any of the secrets. After a wrong rotation that is every event, so an operator must see it.
    fn mismatch(&self) -> Answer {
        let mut mismatches = self.mismatches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = mismatches.happened() {
            let with = match self.keyring.scheme() {
                Scheme::Fin => "signing_secrets with what its settings page shows",
                Scheme::Intercom => "client_secret with the app's basic information",
            };
            tracing::warn!(
                endpoint = &*self.name,
                times,
                "signatures that none of this endpoint's secrets made: answered with 401. If these are Intercom's, compare {with}; if \
                 not, somebody tries to forge events. Said once a minute at most"
            );
        }
        self.unauthenticated()
    }

    /// A head without the one signature header that this kind of endpoint wants. It says what was probably mixed up, if
    /// anything was.
    fn mistaken(&self, headers: &HeaderMap) {
        let has = |name: &str| headers.contains_key(name);
        let hub_sha256 = || headers.get(HUB_HEADER).is_some_and(|value| value.as_bytes().starts_with(b"sha256="));
        let hint = match self.keyring.scheme() {
            Scheme::Fin if has(HUB_HEADER.as_str()) && !has(HEADER.as_str()) => {
                "a classic Intercom webhook, or the settings page's test, at an endpoint for Fin: give classic webhooks an endpoint \
                 with kind = \"intercom\", or set client_secret_file for the test"
            }
            Scheme::Intercom if has(HEADER.as_str()) => {
                "an event of Fin at an endpoint for classic webhooks: give Fin's callback URL an endpoint with kind = \"fin\""
            }
            Scheme::Intercom if hub_sha256() => {
                "X-Hub-Signature with SHA-256: Intercom's classic webhooks are signed with SHA-1; is this another provider's webhook?"
            }
            Scheme::Intercom if has("x-body-signature") => {
                "X-Body-Signature in place of X-Hub-Signature: Intercom's uninstall and health-check notifications have it, and it \
                 can't be verified"
            }
            _ => return,
        };
        let mut mistaken = self.mistaken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = mistaken.happened() {
            tracing::warn!(
                endpoint = &*self.name,
                times,
                hint,
                "answered with 401: probably mixed up. Said once a minute at most"
            );
        }
    }

    fn unauthenticated(&self) -> Answer {
        Answer::Refused(Refusal::Unauthenticated(self.keyring.scheme()))
    }

    fn settings_test(&self, signature: &Signature, body: &[u8]) -> Answer {
        let Some(secret) = &self.client_secret else { return self.unauthenticated() };
        if !bool::from(secret.matches(signature, body)) {
            return self.unauthenticated();
        }
        match Notification::parse(body) {
            Ok(read) if read.topic != names::PING => tracing::warn!(
                endpoint = &*self.name,
                "a classic Intercom webhook at an endpoint for Fin: answered as the settings page's test, and not kept. If you \
                 want its events, give it an endpoint with kind = \"intercom\""
            ),
            _ => tracing::info!(endpoint = &*self.name, "the settings page's test arrived and is valid"),
        }
        Answer::Test
    }
}

/// What is remembered of an event while it is being stored.
struct Pending<'e> {
    endpoint: &'e str,
    metrics: &'e EndpointMetrics,
    counter: &'e Counter,
    id: Uuid,
    kind: Kind,
    defect: Option<NotAnEvent>,
}

/// Stores an endpoint's event and says what that came to; done once it is on disk.
pub fn store<'e>(
    journal: &Journal,
    endpoint: &'e str,
    metrics: &'e EndpointMetrics,
    event: Event,
) -> impl Future<Output = Answer> + Send + use<'e> {
    let counter = metrics.events(event.fields.event_name.as_deref().unwrap_or_default());
    let pending = Pending { endpoint, metrics, counter, id: event.id, kind: event.kind, defect: event.defect() };
    let appended = journal.append(event);
    async move { pending.answer(appended.await) }
}

impl Pending<'_> {
    fn answer(self, appended: Result<Appended, AppendError>) -> Answer {
        let Self { endpoint, metrics, counter, id, kind, defect } = self;
        match appended {
            Ok(Appended::Stored { .. }) => match kind {
                Kind::Event => {
                    counter.inc();
                    Answer::Accepted(id)
                }
                Kind::Stale => {
                    tracing::warn!(
                        endpoint,
                        %id,
                        "an authentic event older than journal.dedupe_window: kept, not delivered; it may be a replayed capture"
                    );
                    Answer::Stale(id)
                }
                Kind::Quarantined => {
                    let reason = defect.map(|defect| defect.to_string()).unwrap_or_default();
                    tracing::error!(endpoint, %id, reason, "authentic, but not an event: kept, not delivered");
                    Answer::Quarantined(id)
                }
            },
            Ok(Appended::Duplicate { same_body }) => {
                if !same_body {
                    metrics.conflict();
                    tracing::warn!(endpoint, %id, "an event came again with a different body; the first one is kept");
                }
                Answer::Duplicate(id)
            }
            Err(error) => {
                // The writer says once why it can't store; a line for each refused request would help nobody.
                tracing::debug!(endpoint, %error, "refused with 503");
                if error == AppendError::Busy {
                    metrics.busy();
                }
                Answer::Refused(Refusal::NotStored(error))
            }
        }
    }
}
