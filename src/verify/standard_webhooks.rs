//! The Standard Webhooks signature, which lets what is behind finhook check authenticity and age.
//!
//! `webhook-id` is the event's id, the same at every attempt; `webhook-timestamp` is the attempt's time in unix
//! seconds; `webhook-signature` is `v1,` and the Base64 of HMAC-SHA256 over `id.timestamp.body`. The key is what follows
//! `whsec_` in the secret, decoded from Base64.
//!
//! Source: the Standard Webhooks specification, 1.0.0.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;
use uuid::Uuid;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Signs requests with one secret.
#[derive(Clone)]
pub struct Signer {
    keyed: Hmac<Sha256>,
}

impl Signer {
    /// Reads a secret of the form `whsec_<Base64>`.
    ///
    /// # Errors
    /// Says what is wrong with the form, without showing any of it.
    pub fn parse(secret: &str) -> Result<Self, String> {
        let encoded = secret.strip_prefix("whsec_").ok_or("signing secret: it must begin with \"whsec_\"")?;
        let key = BASE64_STANDARD
            .decode(encoded)
            .map_err(|_| "signing secret: what follows \"whsec_\" must be Base64 (A–Z a–z 0–9 + /, padded with =)")?;
        if key.is_empty() {
            return Err("signing secret: nothing follows \"whsec_\"; use 24 to 64 random bytes in Base64".to_owned());
        }
        let keyed = Hmac::new_from_slice(&key).map_err(|_| "signing secret: its key can't be used")?;
        Ok(Self { keyed })
    }

    /// Adds the three headers for one attempt at `now`.
    pub fn sign(&self, headers: &mut HeaderMap, id: Uuid, now: SystemTime, body: &[u8]) {
        let id = id.to_string();
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut mac = self.keyed.clone();
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        let signature = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
        headers.insert(TIMESTAMP, seconds.into());
        // Both are plain ASCII, so they are valid values.
        for (name, value) in [(ID, id), (SIGNATURE, signature)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(…)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_published_library_accepts_what_is_signed_and_nothing_else(
            key in proptest::collection::vec(any::<u8>(), 24..=64), id: u128, body in "\\PC*",
        ) {
            let secret = format!("whsec_{}", BASE64_STANDARD.encode(key));
            let mut headers = HeaderMap::new();
            Signer::parse(&secret).unwrap().sign(&mut headers, Uuid::from_u128(id), SystemTime::now(), body.as_bytes());

            let library = standardwebhooks::Webhook::new(&secret).unwrap();
            prop_assert!(library.verify(body.as_bytes(), &headers).is_ok());
            let changed = body.clone() + " ";
            prop_assert!(library.verify(changed.as_bytes(), &headers).is_err());
            headers.insert(ID, HeaderValue::from_static("another"));
            prop_assert!(library.verify(body.as_bytes(), &headers).is_err());
        }
    }

    #[test]
    fn a_secret_is_whsec_and_base64_of_a_key_of_any_length() {
        for secret in ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_YWI=", "whsec_YQ==", "whsec_+/+/"] {
            assert!(Signer::parse(secret).is_ok(), "{secret}");
        }
    }

    #[test]
    fn a_secret_of_another_form_is_refused_without_being_shown() {
        for secret in [
            "",
            "whsec_",
            "c2VjcmV0c2VjcmV0",
            "whsec_c2Vjc!V0",
            "WHSEC_c2VjcmV0",
            "whsec_c2VjcmV0Cg",
            "whsec_c2VjcmV0\n",
            "whsec_c",
            "whsec_c2Vjcm=",
            "whsec_c2===",
            "whsec_c2Vj c2Vj",
        ] {
            let error = Signer::parse(secret).unwrap_err();
            assert!(!error.contains("c2Vjc"), "{error}");
        }
    }

    #[test]
    fn the_key_is_in_no_debug_output() {
        assert_eq!(format!("{:?}", Signer::parse("whsec_c2VjcmV0").unwrap()), "Signer(…)");
    }
}
