//! The proof that bytes are authentic.
//!
//! A [`Scheme`] is whose webhooks they are. Fin signs with HMAC-SHA256 of the raw body under the endpoint's signing secret
//! (RFC 2104, RFC 6234) and sends it in hexadecimal in `X-Fin-Agent-API-Webhook-Signature`; Intercom's classic webhooks
//! are signed with HMAC-SHA1 under the app's client secret, in `X-Hub-Signature`. [`Signature`] is such a header's value,
//! parsed; [`Keyring`] holds an endpoint's secrets and turns a signature and a body into [`Verified`] bytes; [`rotation`]
//! keeps a keyring up to date with a file. [`standard_webhooks`] is the proof that finhook itself gives to others.
//!
//! Invariants:
//! - Only this module makes [`Verified`], and only [`Verified`] bytes become an [`Event`](crate::event::Event).
//! - Comparisons take the same time wherever the first difference is, and every secret is tried whichever matches.
//! - No secret, signature or body appears in a `Debug` output or an error.

mod keyring;
pub mod rotation;
mod signature;
pub mod standard_webhooks;

use std::fmt;

use axum::http::HeaderName;
use bytes::Bytes;
use secrecy::SecretString;
use serde::Serialize;

pub use keyring::{Keyring, sign, sign_hub};
pub use signature::{FIN_HEADER, HEADER, HUB_HEADER, Signature, SignatureError};

/// Secrets shorter than this are accepted with a warning, in bytes.
pub const SHORT_SECRET: usize = 16;

/// Whose webhooks an endpoint takes: which header carries the signature, and which hash made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// The Fin Agent API's: HMAC-SHA256.
    Fin,
    /// Intercom's classic webhooks: HMAC-SHA1, which RFC 6194 holds to be safe as it is used here.
    Intercom,
}

impl Scheme {
    /// The header that carries the signature.
    #[must_use]
    pub fn header(self) -> HeaderName {
        match self {
            Self::Fin => HEADER,
            Self::Intercom => HUB_HEADER,
        }
    }

    /// The value of its header for a body, as it is sent.
    #[must_use]
    pub fn sign(self, secret: &SecretString, body: &[u8]) -> String {
        match self {
            Self::Fin => sign(secret, body),
            Self::Intercom => sign_hub(secret, body),
        }
    }

    /// Of a signature as it was sent; the two have no form in common. An event without one came by Fin's stream.
    #[must_use]
    pub fn of(sent: Option<&str>) -> Self {
        if sent.is_some_and(|value| value.starts_with(signature::HUB_PREFIX)) { Self::Intercom } else { Self::Fin }
    }
}

/// The signature is not that of the body under any of the secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not match the body under any configured secret")]
pub struct Mismatch;

/// Authentic bytes: signed with a configured secret, or read over TLS from the app's own subscription.
///
/// Only this module can make one.
#[derive(Clone, PartialEq, Eq)]
pub struct Verified {
    scheme: Scheme,
    body: Bytes,
}

impl Verified {
    /// Bytes of one event that were read over TLS from the app's own event subscription.
    ///
    /// Such events carry no signature. What makes them authentic is the channel: a TLS connection, its certificate
    /// checked, to a host that the configuration allows, opened with a URL that Fin gave out for this app. Callers must
    /// have made sure of that.
    pub(crate) fn from_subscription(body: Bytes) -> Self {
        Self { scheme: Scheme::Fin, body }
    }

    /// Whose signature proved it.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The authentic bytes.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The authentic bytes.
    #[must_use]
    pub fn into_body(self) -> Bytes {
        self.body
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("body_bytes", &self.body.len()).finish()
    }
}
