//! The `http` sink: one POST an event, CloudEvents binary mode.
//!
//! Sent are the body's exact bytes; the request's own `content-type` (`application/json` where it had none) and its
//! `x-fin-agent-api-webhook-signature`; the `ce-` headers of [`super::cloudevent`]; `finhook-attempt`, counted from 1;
//! `user-agent: finhook/<version>`; on a replay `finhook-replay`; the configured headers; and with a signing secret
//! those of [`standard_webhooks`].
//!
//! | answer | is |
//! | --- | --- |
//! | 2xx | delivered, whatever then becomes of the answer's body |
//! | 408, 425, 5xx, no answer in time, a connection that broke | transient |
//! | 429 | throttled |
//! | any other status; redirects are not followed | rejected |
//! | no connection, no name, no TLS | unreachable |
//!
//! HTTP/1.1 with keep-alive, by no proxy. One attempt is bounded in time (`timeout`, at most half of it for connecting)
//! and in memory: of an answer's body [`MAX_RESPONSE`] bytes are read, so that the connection can be used again, and a
//! longer one costs the connection.

mod failure;
pub mod standard_webhooks;

use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Request, Response};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout_at};

pub use failure::{retry_after, status_fault};

use super::cloudevent::{Attributes, JSON};
use super::{Delivery, Failure, Outcome, Relay};
use crate::config::{HttpSink, RelayUrl};
use standard_webhooks::Signer;

/// How much of an answer's body is read, in bytes.
pub const MAX_RESPONSE: usize = 64 * 1024;

/// How long an unused connection is kept: less than most servers do, so that they seldom close it under a request.
const IDLE: Duration = Duration::from_secs(30);

/// Headers that a delivery has besides those that are the same for every event, at most.
const OWN_HEADERS: usize = 20;

const FIN_SIGNATURE: HeaderName = HeaderName::from_static("x-fin-agent-api-webhook-signature");
const ATTEMPT: HeaderName = HeaderName::from_static("finhook-attempt");
const REPLAY: HeaderName = HeaderName::from_static("finhook-replay");

/// Posts events to one URL. Cheap to share; it keeps a pool of connections.
#[derive(Debug)]
pub struct HttpRelay {
    client: Client,
    /// Without credentials.
    url: RelayUrl,
    timeout: Duration,
    /// The same for every event.
    headers: HeaderMap,
    signer: Option<Signer>,
}

impl HttpRelay {
    /// Prepares the client; connects to nothing.
    ///
    /// # Errors
    /// What is wrong with a header, the signing secret, or the system's root certificates.
    pub fn new(config: &HttpSink) -> Result<Self, String> {
        let mut headers = configured(&config.headers)?;
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("finhook/", env!("CARGO_PKG_VERSION"))));
        let signer = config.signing_secret.as_ref().map(|secret| Signer::parse(secret.expose_secret()));
        let client = Client::builder()
            .tls_backend_preconfigured(tls(config.url.0.scheme())?)
            .http1_only()
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(config.timeout / 2)
            .pool_max_idle_per_host(config.concurrency)
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true)
            .build()
            .map_err(|e| format!("cannot prepare the HTTP client: {}", failure::describe(e, &config.url.0)))?;
        // Credentials in the URL become a header, as in every client; a configured one wins.
        let plain = client.post(config.url.0.clone()).build().map_err(|e| failure::describe(e, &config.url.0))?;
        if let Some(credentials) = plain.headers().get(AUTHORIZATION) {
            headers.entry(AUTHORIZATION).or_insert_with(|| credentials.clone());
        }
        let url = RelayUrl(plain.url().clone());
        Ok(Self { client, url, timeout: config.timeout, headers, signer: signer.transpose()? })
    }

    fn request(&self, delivery: &Delivery, now: SystemTime) -> Request {
        let event = &delivery.stored.event;
        let mut request = Request::new(Method::POST, self.url.0.clone());
        *request.body_mut() = Some(event.body.clone().into());
        let headers = request.headers_mut();
        // A clone has no room for more: it would grow, and be hashed anew, several times.
        headers.reserve(self.headers.len() + OWN_HEADERS);
        headers.extend(self.headers.clone());
        let content_type = event.content_type.as_deref().and_then(|value| HeaderValue::from_str(value).ok());
        headers.insert(CONTENT_TYPE, content_type.unwrap_or(HeaderValue::from_static(JSON)));
        if let Some(signature) = event.signature.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(FIN_SIGNATURE, signature);
        }
        for (name, value) in Attributes::of(event).headers() {
            // Percent-encoded to visible ASCII, so it is a valid value.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        headers.insert(ATTEMPT, delivery.attempt.into());
        if let Some(replay) = delivery.replay.as_deref().and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert(REPLAY, replay);
        }
        if let Some(signer) = &self.signer {
            signer.sign(headers, event.id, now, &event.body);
        }
        request
    }
}

impl Relay for HttpRelay {
    async fn deliver(&self, delivery: Delivery) -> Outcome {
        let deadline = Instant::now() + self.timeout;
        let response = match timeout_at(deadline, self.client.execute(self.request(&delivery, SystemTime::now()))).await
        {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Outcome::Failed(failure::from_error(error, &self.url.0, self.timeout)),
            Err(_) => return Outcome::Failed(failure::timed_out(self.timeout)),
        };
        let status = response.status();
        let outcome = match status_fault(status) {
            None => Outcome::Delivered,
            Some(fault) => Outcome::Failed(Failure {
                fault,
                retry_after: failure::retry_after_header(response.headers(), SystemTime::now()),
                error: failure::describe_status(status),
            }),
        };
        // The answer is known; what is left is only to make the connection fit for the next request.
        let _ = timeout_at(deadline, drain(response)).await;
        outcome
    }
}

/// The configured headers, with values that show in no output. The configuration has refused names that finhook sets
/// itself; were one here all the same, finhook's value would replace it.
fn configured(headers: &[(String, SecretString)]) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::with_capacity(headers.len() + 16);
    for (name, value) in headers {
        let parsed = HeaderName::try_from(name).map_err(|_| format!("{name:?} is not a header's name"))?;
        let mut value = HeaderValue::from_str(value.expose_secret())
            .map_err(|_| format!("the value of header {name:?} holds a line break or another control character"))?;
        value.set_sensitive(true);
        map.insert(parsed, value);
    }
    Ok(map)
}

/// Reads the body to its end, or gives up at the bound; dropping an unread response closes its connection.
async fn drain(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > MAX_RESPONSE {
            return;
        }
    }
}

/// TLS by rustls and ring, trusting what the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are heeded). A plain
/// `http` relay needs no certificates and so none on the system.
fn tls(scheme: &str) -> Result<ClientConfig, String> {
    let no_tls = |e: rustls::Error| format!("cannot use the system's root certificates: {e}; install ca-certificates");
    let builder = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(no_tls)?;
    Ok(if scheme == "https" {
        builder.with_platform_verifier().map_err(no_tls)?.with_no_client_auth()
    } else {
        builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn one(name: &str, value: &str) -> Result<HeaderMap, String> {
        configured(&[(name.to_owned(), value.to_owned().into())])
    }

    #[test]
    fn a_configured_value_is_in_no_debug_output() {
        let headers = one("Authorization", "Bearer s3cret").unwrap();
        assert_eq!(headers["authorization"], "Bearer s3cret");
        assert!(!format!("{headers:?}").contains("s3cret"));
    }

    #[test]
    fn a_configured_value_cannot_inject_another_header() {
        for value in ["s3cret\r\nx-evil: 1", "s3cret\nb", "s3cret\rb", "s3cret\0b", "s3cret\u{7f}"] {
            let error = one("x-a", value).unwrap_err();
            assert!(error.contains("x-a") && !error.contains("s3cret"), "{error}");
        }
        assert!(one("x-a: 1\r\nx-b", "1").is_err());
    }
}
