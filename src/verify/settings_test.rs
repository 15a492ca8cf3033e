//! The "test" button of Intercom's settings page.
//!
//! It posts a generic notification that is not a Fin event, signed in the way of Intercom's classic webhooks:
//! `X-Hub-Signature: sha1=` and the HMAC-SHA1 of the body under the app's client secret. It is answered, so that the
//! page shows success, and proves nothing else: it never makes [`Verified`](super::Verified) bytes.

use std::fmt;

use axum::http::header::{HeaderMap, HeaderName};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha1::Sha1;

use super::signature::HEADER;
use super::{Mismatch, SignatureError};
use crate::event::names;

/// Name of the header with the settings page's signature.
pub const TEST_HEADER: HeaderName = HeaderName::from_static(names::TEST_SIGNATURE_HEADER);

const PREFIX: &[u8] = b"sha1=";
const MAC_BYTES: usize = 20;

/// A well-formed `X-Hub-Signature` of a request that has no Fin signature header.
#[derive(Clone, PartialEq, Eq)]
pub struct TestSignature {
    mac: [u8; MAC_BYTES],
}

impl TestSignature {
    /// Reads the one `X-Hub-Signature: sha1=` and 40 hexadecimal digits of a request.
    ///
    /// # Errors
    /// [`SignatureError::Missing`] also when a Fin signature header is there: then that one counts, whatever it holds.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, SignatureError> {
        if headers.contains_key(HEADER) {
            return Err(SignatureError::Missing);
        }
        let mut values = headers.get_all(TEST_HEADER).iter();
        let value = values.next().ok_or(SignatureError::Missing)?;
        if values.next().is_some() {
            return Err(SignatureError::Repeated);
        }
        let digits = value.as_bytes().strip_prefix(PREFIX).ok_or(SignatureError::Malformed)?;
        let mut mac = [0; MAC_BYTES];
        hex::decode_to_slice(digits, &mut mac).map_err(|_| SignatureError::Malformed)?;
        Ok(Self { mac })
    }
}

impl fmt::Debug for TestSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestSignature(..)")
    }
}

/// An app's client secret, which signs the settings page's test and nothing else.
#[derive(Clone)]
pub struct ClientSecret {
    key: Hmac<Sha1>,
}

impl ClientSecret {
    /// Takes the app's client secret.
    #[must_use]
    #[allow(clippy::expect_used)]
    pub fn new(secret: &SecretString) -> Self {
        let key = Hmac::new_from_slice(secret.expose_secret().as_bytes()).expect("HMAC takes keys of any length");
        Self { key }
    }

    /// Whether the settings page made this signature of the body. Compared in constant time.
    ///
    /// # Errors
    /// [`Mismatch`] when it did not.
    pub fn verify(&self, signature: &TestSignature, body: &[u8]) -> Result<(), Mismatch> {
        self.key.clone().chain_update(body).verify_slice(&signature.mac).map_err(|_| Mismatch)
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::http::header::{HeaderMap, HeaderValue};

    use super::{ClientSecret, TEST_HEADER, TestSignature};
    use crate::verify::{HEADER, Mismatch, SignatureError};

    /// HMAC-SHA1 of "what do ya want for nothing?" under the key "Jefe": test case 2 of RFC 2202.
    const RFC_2202: &str = "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79";

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(TEST_HEADER, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn the_settings_pages_test_verifies_with_the_client_secret() {
        let signature = TestSignature::from_headers(&headers(RFC_2202)).unwrap();
        let body = b"what do ya want for nothing?";
        assert_eq!(ClientSecret::new(&"Jefe".into()).verify(&signature, body), Ok(()));
        assert_eq!(ClientSecret::new(&"jefe".into()).verify(&signature, body), Err(Mismatch));
        assert_eq!(ClientSecret::new(&"Jefe".into()).verify(&signature, b"what"), Err(Mismatch));
    }

    #[test]
    fn other_forms_are_malformed() {
        for value in [&RFC_2202[5..], &RFC_2202[..44], "sha256=00", "", "sha1=", &format!("{RFC_2202}0")] {
            assert_eq!(TestSignature::from_headers(&headers(value)), Err(SignatureError::Malformed), "{value:?}");
        }
    }

    #[test]
    fn beside_a_fin_header_or_twice_it_does_not_count() {
        let mut with_fin = headers(RFC_2202);
        with_fin.insert(HEADER, HeaderValue::from_static("whatever"));
        assert_eq!(TestSignature::from_headers(&with_fin), Err(SignatureError::Missing));
        let mut twice = headers(RFC_2202);
        twice.append(TEST_HEADER, HeaderValue::from_static(RFC_2202));
        assert_eq!(TestSignature::from_headers(&twice), Err(SignatureError::Repeated));
    }
}
