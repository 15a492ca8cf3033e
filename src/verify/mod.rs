//! The proof that bytes are authentic.
//!
//! Fin signs each webhook with HMAC-SHA256 of the raw body under the endpoint's signing secret (RFC 2104, RFC 6234) and
//! sends it in hexadecimal in `X-Fin-Agent-API-Webhook-Signature`. [`Signature`] is that header's value, parsed;
//! [`Keyring`] holds an endpoint's secrets and turns a signature and a body into [`Verified`] bytes; [`rotation`] keeps
//! a keyring up to date with a file.
//!
//! Invariants:
//! - Only this module makes [`Verified`], and only [`Verified`] bytes become an [`Event`](crate::event::Event).
//! - Comparisons take the same time wherever the first difference is, and every secret is tried whichever matches.
//! - No secret, signature or body appears in a `Debug` output or an error.

mod keyring;
pub mod rotation;
mod settings_test;
mod signature;

use std::fmt;

use bytes::Bytes;

pub use keyring::{Keyring, sign};
pub use settings_test::{ClientSecret, TEST_HEADER, TestSignature};
pub use signature::{HEADER, Signature, SignatureError};

/// Secrets shorter than this are accepted with a warning, in bytes.
pub const SHORT_SECRET: usize = 16;

/// The signature is not that of the body under any of the secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not match the body under any configured secret")]
pub struct Mismatch;

/// Authentic bytes: signed with a configured secret, or read over TLS from the app's own subscription.
///
/// Only this module can make one.
#[derive(Clone, PartialEq, Eq)]
pub struct Verified {
    body: Bytes,
}

impl Verified {
    /// Bytes of one event that were read over TLS from the app's own event subscription.
    ///
    /// Such events carry no signature. What makes them authentic is the channel: a TLS connection, its certificate
    /// checked, to a host that the configuration allows, opened with a URL that Fin gave out for this app. Callers must
    /// have made sure of that.
    #[allow(dead_code, reason = "called by the source for subscriptions")]
    pub(crate) fn from_subscription(body: Bytes) -> Self {
        Self { body }
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
