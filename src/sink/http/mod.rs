//! The `http` sink: one POST an event, CloudEvents binary mode.
//!
//! Sent are the body's exact bytes; the request's own `content-type` (`application/json` where it had none) and its
//! `x-fin-agent-api-webhook-signature`; the `ce-` headers of [`super::cloudevent`]; `finhook-attempt`, counted from 1;
//! `user-agent: finhook/<version>`; on a replay `finhook-replay`; the configured headers; and with a signing secret
//! those of [`crate::verify::standard_webhooks`].
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

mod connection;
mod failure;
mod resolve;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;
use url::{Position, Url};

pub use failure::{retry_after, status_fault};

use super::cloudevent::{Attributes, JSON};
use super::{Delivery, Failure, Outcome, Relay};
use crate::certificate::{Current, authorities};
use crate::config::{HttpSink, RelayUrl};
use crate::outbound;
use crate::verify::Scheme;
use crate::verify::standard_webhooks::Signer;
use connection::Connections;
use resolve::Resolver;

/// How much of an answer's body is read, in bytes.
pub const MAX_RESPONSE: usize = 64 * 1024;

/// Headers that a delivery has besides those that are the same for every event, at most.
const OWN_HEADERS: usize = 20;

const ATTEMPT: HeaderName = HeaderName::from_static("finhook-attempt");
const REPLAY: HeaderName = HeaderName::from_static("finhook-replay");

/// Posts events to one URL, over connections that it keeps.
pub struct HttpRelay {
    connections: Connections,
    /// Without credentials.
    url: RelayUrl,
    /// Its path and query.
    path: Uri,
    timeout: Duration,
    /// The same for every event.
    headers: HeaderMap,
    signer: Option<Signer>,
    certificate: Option<Arc<Current>>,
}

impl HttpRelay {
    /// Prepares the client; connects to nothing.
    ///
    /// # Errors
    /// What is wrong with the URL, a header, the signing secret, or the system's root certificates.
    pub fn new(config: &HttpSink) -> Result<Self, String> {
        let mut url = config.url.0.clone();
        let uri = |part: &str| part.parse::<Uri>().map_err(|error| format!("the URL can't be sent in HTTP: {error}"));
        let path = uri(&url[Position::BeforePath..Position::AfterQuery])?;
        let mut headers = configured(&config.headers)?;
        let host = HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]);
        headers.insert(HOST, host.map_err(|error| format!("the URL's host can't be sent in HTTP: {error}"))?);
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("finhook/", env!("CARGO_PKG_VERSION"))));
        // A configured header wins.
        if let Some(credentials) = basic_auth(&url) {
            headers.entry(AUTHORIZATION).or_insert(credentials);
        }
        // Refused only for URLs without a host, which these aren't.
        let _ = (url.set_username(""), url.set_password(None));
        let server = uri(&url[..Position::AfterPort])?;
        let certificate = config.client.clone().map(Current::new).transpose().map_err(|problem| problem.to_string())?;
        let authorities =
            config.ca_file.as_deref().map(authorities).transpose().map_err(|problem| problem.to_string())?;
        let https = url.scheme() == "https";
        let tls = if https { outbound::tls_of(certificate.clone(), authorities) } else { outbound::no_tls() };
        let tls =
            tls.map_err(|e| format!("cannot use the system's root certificates: {e}; install ca-certificates"))?;
        let connections = Connections::new(server, tls, Resolver::new(config.deny_private), config.timeout / 2);
        let signer = config.signing_secret.as_ref().map(|secret| Signer::parse(secret.expose_secret())).transpose()?;
        Ok(Self { connections, url: RelayUrl(url), path, timeout: config.timeout, headers, signer, certificate })
    }

    /// What it shows the sink, to be kept up to date.
    pub fn certificate(&self) -> Option<Arc<Current>> {
        self.certificate.clone()
    }

    fn request(&self, delivery: &Delivery, now: SystemTime) -> Request<Full<Bytes>> {
        let event = &delivery.stored.event;
        // A clone has no room for more: it would grow, and be hashed anew, several times.
        let mut headers = HeaderMap::with_capacity(self.headers.len() + OWN_HEADERS);
        headers.extend(self.headers.clone());
        let content_type = event.content_type.as_deref().and_then(|value| HeaderValue::from_str(value).ok());
        headers.insert(CONTENT_TYPE, content_type.unwrap_or(HeaderValue::from_static(JSON)));
        if let Some(signature) = event.signature.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(Scheme::of(event.signature.as_deref()).header(), signature);
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
            signer.sign(&mut headers, event.id, now, &event.body);
        }
        let mut request = Request::new(Full::new(event.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = headers;
        request
    }
}

impl Relay for HttpRelay {
    async fn deliver(&self, delivery: Delivery) -> Outcome {
        let request = self.request(&delivery, SystemTime::now());
        let mut outcome = None;
        let attempt = async {
            let (answer, mut connection) = self.connections.send(request).await?;
            outcome = Some(judge(&answer));
            // The answer is known; what is left is only to make the connection fit for the next request.
            if connection.read_out(answer.into_body(), MAX_RESPONSE).await {
                self.connections.keep(connection);
            }
            Ok(())
        };
        let ended = timeout(self.timeout, attempt).await;
        outcome.unwrap_or_else(|| {
            Outcome::Failed(match ended {
                Ok(Err(broken)) => failure::from_broken(&broken, &self.url.0, self.timeout),
                _ => failure::timed_out(self.timeout),
            })
        })
    }
}

/// What an answer's head says of the delivery.
fn judge(answer: &Response<Incoming>) -> Outcome {
    match status_fault(answer.status()) {
        None => Outcome::Delivered,
        Some(fault) => Outcome::Failed(Failure {
            fault,
            retry_after: failure::retry_after_header(answer.headers(), SystemTime::now()),
            error: failure::describe_status(answer.status()),
        }),
    }
}

/// Headers may hold secrets, and so may the path and the query.
impl fmt::Debug for HttpRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRelay").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The header for credentials in a URL.
fn basic_auth(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut plain: Vec<u8> = percent_decode_str(url.username()).collect();
    plain.push(b':');
    plain.extend(percent_decode_str(url.password().unwrap_or_default()));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(plain))).ok()?;
    value.set_sensitive(true);
    Some(value)
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
