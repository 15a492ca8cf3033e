//! An endpoint's secrets, and the check itself.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha1::Sha1;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use super::signature;
use super::{Mismatch, Scheme, Signature, Verified};

/// An endpoint's current secrets. Any one of them verifies; they can be replaced while requests are checked.
///
/// What is kept of a secret is the state of HMAC after the key, so that a check starts with the body.
pub struct Keyring {
    // Readers hold the lock only to copy the pointer, the writer only to swap it: nobody waits for a check.
    keys: RwLock<Arc<[Key]>>,
    scheme: Scheme,
}

/// HMAC after one key.
enum Key {
    Sha256(Hmac<Sha256>),
    Sha1(Hmac<Sha1>),
}

impl Keyring {
    /// A keyring with these signing secrets of Fin. Without any, nothing verifies; see [`Keyring::is_empty`].
    #[must_use]
    pub fn new(secrets: &[SecretString]) -> Self {
        Self::of(Scheme::Fin, secrets)
    }

    /// A keyring with the secrets of a scheme.
    #[must_use]
    pub fn of(scheme: Scheme, secrets: &[SecretString]) -> Self {
        Self { keys: RwLock::new(keyed(scheme, secrets)), scheme }
    }

    /// A keyring with keys that need not be text, as HMAC allows; the secrets of both schemes are text.
    #[must_use]
    pub fn from_keys(scheme: Scheme, keys: &[&[u8]]) -> Self {
        Self { keys: RwLock::new(keys.iter().map(|bytes| Key::new(scheme, bytes)).collect()), scheme }
    }

    /// Whose secrets they are.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Replaces all secrets at once. Checks that have begun go on with the former ones.
    pub fn replace(&self, secrets: &[SecretString]) {
        let keys = keyed(self.scheme, secrets);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Whether there is no secret yet: Fin shows it only once the callback URL has been saved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many secrets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Proves that the body was signed with one of the secrets.
    ///
    /// # Errors
    /// [`Mismatch`] when none of the secrets made the signature.
    pub fn verify(&self, signature: &Signature, body: Bytes) -> Result<Verified, Mismatch> {
        if bool::from(self.matches(signature, &body)) {
            Ok(Verified { scheme: self.scheme, body })
        } else {
            Err(Mismatch)
        }
    }

    /// Whether one of the secrets made the signature of these bytes; proves nothing to the type system.
    ///
    /// The time that it takes depends on the number of secrets and the length of the body only: every secret is tried,
    /// and each comparison looks at all bytes.
    #[must_use]
    pub fn matches(&self, signature: &Signature, body: &[u8]) -> Choice {
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        let mut matched = Choice::from(0);
        for key in keys.iter() {
            matched |= key.made(signature, body);
        }
        matched
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("secrets", &self.len()).finish()
    }
}

/// The value of the signature header for a body, as Fin would send it: `sha256=` and 64 lower-case digits.
#[must_use]
pub fn sign(secret: &SecretString, body: &[u8]) -> String {
    format!("sha256={}", hex::encode(keyed_hmac::<Hmac<Sha256>>(secret).chain_update(body).finalize().into_bytes()))
}

/// The value of `X-Hub-Signature` for a body, as Intercom's classic webhooks have it: `sha1=` and 40 lower-case digits.
#[must_use]
pub fn sign_hub(secret: &SecretString, body: &[u8]) -> String {
    format!("sha1={}", hex::encode(keyed_hmac::<Hmac<Sha1>>(secret).chain_update(body).finalize().into_bytes()))
}

fn keyed(scheme: Scheme, secrets: &[SecretString]) -> Arc<[Key]> {
    secrets.iter().map(|secret| Key::new(scheme, secret.expose_secret().as_bytes())).collect()
}

fn keyed_hmac<H: KeyInit>(secret: &SecretString) -> H {
    hmac(secret.expose_secret().as_bytes())
}

#[allow(clippy::expect_used)]
fn hmac<H: KeyInit>(key: &[u8]) -> H {
    H::new_from_slice(key).expect("HMAC takes keys of any length")
}

impl Key {
    fn new(scheme: Scheme, key: &[u8]) -> Self {
        match scheme {
            Scheme::Fin => Self::Sha256(hmac(key)),
            Scheme::Intercom => Self::Sha1(hmac(key)),
        }
    }

    /// Whether it made the signature of these bytes. Which scheme a signature is of is no secret.
    fn made(&self, signature: &Signature, body: &[u8]) -> Choice {
        match (self, &signature.mac) {
            (Self::Sha256(key), signature::Mac::Sha256(mac)) => {
                key.clone().chain_update(body).finalize().into_bytes().as_slice().ct_eq(mac)
            }
            (Self::Sha1(key), signature::Mac::Sha1(mac)) => {
                key.clone().chain_update(body).finalize().into_bytes().as_slice().ct_eq(mac)
            }
            _ => Choice::from(0),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;
    use proptest::prelude::*;
    use secrecy::SecretString;

    use super::{Keyring, sign, sign_hub};
    use crate::verify::{Mismatch, Scheme, Signature};

    fn secret(text: &str) -> SecretString {
        text.into()
    }

    fn signed(text: &str, body: &[u8]) -> Signature {
        Signature::parse(sign(&secret(text), body).as_bytes()).unwrap()
    }

    #[test]
    fn any_of_the_secrets_verifies() {
        let keyring = Keyring::new(&[secret("current"), secret("former"), secret("oldest")]);
        let body = Bytes::from_static(b"{}");
        for name in ["current", "former", "oldest"] {
            assert_eq!(keyring.verify(&signed(name, b"{}"), body.clone()).unwrap().into_body(), body);
        }
        assert_eq!(keyring.verify(&signed("foreign", b"{}"), body), Err(Mismatch));
    }

    #[test]
    fn a_classic_webhook_verifies_with_the_client_secret() {
        // Test case 2 of RFC 2202.
        let signature = Signature::parse_hub(b"sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79").unwrap();
        let body = Bytes::from_static(b"what do ya want for nothing?");
        assert_eq!(sign_hub(&secret("Jefe"), &body), signature.as_sent());
        let keyring = Keyring::of(Scheme::Intercom, &[secret("former"), secret("Jefe")]);
        assert_eq!(keyring.verify(&signature, body.clone()).unwrap().scheme(), Scheme::Intercom);
        assert_eq!(keyring.verify(&signature, body.slice(1..)), Err(Mismatch));
        assert_eq!(keyring.verify(&signed("Jefe", &body), body.clone()), Err(Mismatch), "Fin's with the same secret");
        assert_eq!(Keyring::new(&[secret("Jefe")]).verify(&signature, body), Err(Mismatch), "the other way round");
    }

    #[test]
    fn without_a_secret_nothing_verifies() {
        let keyring = Keyring::new(&[]);
        assert!(keyring.is_empty());
        assert_eq!(keyring.verify(&signed("", b""), Bytes::new()), Err(Mismatch));
    }

    #[test]
    fn a_replaced_secret_no_longer_verifies_and_the_new_one_does() {
        let keyring = Keyring::new(&[secret("old")]);
        keyring.replace(&[secret("new")]);
        let body = Bytes::from_static(b"body");
        assert!(keyring.verify(&signed("new", b"body"), body.clone()).is_ok());
        assert_eq!(keyring.verify(&signed("old", b"body"), body), Err(Mismatch));
        assert_eq!(keyring.len(), 1);
    }

    #[test]
    fn debug_output_shows_neither_secrets_nor_bodies() {
        let keyring = Keyring::new(&[secret("hush")]);
        let verified = keyring.verify(&signed("hush", b"private"), Bytes::from_static(b"private")).unwrap();
        assert_eq!(format!("{keyring:?} {verified:?}"), "Keyring { secrets: 1 } Verified { body_bytes: 7 }");
    }

    proptest! {
        #[test]
        fn what_was_signed_verifies(key in ".{1,80}", body in prop::collection::vec(any::<u8>(), 0..300)) {
            let keyring = Keyring::new(&[secret("other"), secret(&key)]);
            let verified = keyring.verify(&signed(&key, &body), Bytes::from(body.clone())).unwrap();
            prop_assert_eq!(verified.into_body(), Bytes::from(body));
        }

        #[test]
        fn a_change_of_any_byte_of_the_body_is_refused(
            body in prop::collection::vec(any::<u8>(), 1..300), at in any::<prop::sample::Index>(), flip in 1..=255_u8,
        ) {
            let keyring = Keyring::new(&[secret("the signing secret")]);
            let signature = signed("the signing secret", &body);
            let mut changed = body;
            let at = at.index(changed.len());
            changed[at] ^= flip;
            prop_assert_eq!(keyring.verify(&signature, Bytes::from(changed)), Err(Mismatch));
        }

        #[test]
        fn a_longer_or_shorter_body_is_refused(body in prop::collection::vec(any::<u8>(), 1..300), more in any::<u8>()) {
            let keyring = Keyring::new(&[secret("the signing secret")]);
            let signature = signed("the signing secret", &body);
            let shorter = Bytes::copy_from_slice(&body[..body.len() - 1]);
            let longer = Bytes::from([body.as_slice(), &[more]].concat());
            prop_assert_eq!(keyring.verify(&signature, shorter), Err(Mismatch));
            prop_assert_eq!(keyring.verify(&signature, longer), Err(Mismatch));
        }

        #[test]
        fn a_change_of_any_byte_of_the_header_is_refused(
            body in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let keyring = Keyring::new(&[secret("the signing secret")]);
            let sent = sign(&secret("the signing secret"), &body).into_bytes();
            let mut changed = sent.clone();
            let at = at.index(changed.len());
            changed[at] = byte;
            let verifies = Signature::parse(&changed).is_ok_and(|it| keyring.verify(&it, Bytes::from(body)).is_ok());
            // The same digit in the other case is the same signature; the prefix has one form only.
            let same = if at < 7 { sent[at] == byte } else { sent[at].eq_ignore_ascii_case(&byte) };
            prop_assert_eq!(verifies, same);
        }
    }
}
