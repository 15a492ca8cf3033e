//! The header that carries a signature.

use std::fmt;

use axum::http::header::{HeaderMap, HeaderName};

/// Name of the header with Fin's signature (setup guide of the Fin Agent API), as text.
pub const FIN_HEADER: &str = "x-fin-agent-api-webhook-signature";
/// Name of the header with Fin's signature.
pub const HEADER: HeaderName = HeaderName::from_static(FIN_HEADER);
/// Name of the header with the signature of Intercom's classic webhooks, and of the test of Fin's settings page.
pub const HUB_HEADER: HeaderName = HeaderName::from_static("x-hub-signature");

const PREFIX: &str = "sha256=";
pub(super) const HUB_PREFIX: &str = "sha1=";

/// A well-formed value of a signature header: bytes that claim to be the HMAC of a body.
///
/// Of Fin are accepted `sha256=` and 64 hexadecimal digits, or 64 hexadecimal digits alone; the digits in either case, even
/// mixed, the prefix in lower case as Fin's guide has it. Everything else is malformed: other lengths (Fin's guide shows
/// 40 digits, which cannot be SHA-256), other algorithms, lists, spaces. Of classic webhooks only `sha1=` and 40
/// hexadecimal digits are accepted.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    pub(super) mac: Mac,
    text: Box<str>,
}

/// The claimed HMAC, by the hash that made it.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Mac {
    Sha256([u8; 32]),
    Sha1([u8; 20]),
}

/// Why a request carries no usable signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// There is no such header.
    #[error("the signature header is missing")]
    Missing,
    /// There are two or more such headers.
    #[error("the signature header was sent more than once")]
    Repeated,
    /// The value has none of the accepted forms.
    #[error("the signature is neither sha256= and 64 hexadecimal digits nor 64 hexadecimal digits")]
    Malformed,
    /// The value of a classic webhook has not its one form.
    #[error("the signature is not sha1= and 40 hexadecimal digits")]
    MalformedHub,
}

impl Signature {
    /// Reads the one signature header of a request by Fin.
    ///
    /// # Errors
    /// When the header is missing, there more than once, or malformed.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, SignatureError> {
        Self::parse(only(headers, HEADER)?)
    }

    /// Reads the one signature header of a classic webhook.
    ///
    /// # Errors
    /// When the header is missing, there more than once, or malformed.
    pub fn from_hub_headers(headers: &HeaderMap) -> Result<Self, SignatureError> {
        Self::parse_hub(only(headers, HUB_HEADER)?)
    }

    /// Reads the value of Fin's header. Nothing is trimmed.
    ///
    /// # Errors
    /// [`SignatureError::Malformed`].
    pub fn parse(value: &[u8]) -> Result<Self, SignatureError> {
        let digits = value.strip_prefix(PREFIX.as_bytes()).unwrap_or(value);
        let (mac, text) = read(value, digits).ok_or(SignatureError::Malformed)?;
        Ok(Self { mac: Mac::Sha256(mac), text })
    }

    /// Reads the value of a classic webhook's header. Nothing is trimmed.
    ///
    /// # Errors
    /// [`SignatureError::MalformedHub`].
    pub fn parse_hub(value: &[u8]) -> Result<Self, SignatureError> {
        let digits = value.strip_prefix(HUB_PREFIX.as_bytes());
        let (mac, text) = digits.and_then(|digits| read(value, digits)).ok_or(SignatureError::MalformedHub)?;
        Ok(Self { mac: Mac::Sha1(mac), text })
    }

    /// The value as it was sent.
    #[must_use]
    pub fn as_sent(&self) -> &str {
        &self.text
    }

    /// The value as it was sent.
    #[must_use]
    pub fn into_sent(self) -> Box<str> {
        self.text
    }
}

/// The value of a header that must be there once.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<&[u8], SignatureError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(SignatureError::Missing)?;
    if values.next().is_some() { Err(SignatureError::Repeated) } else { Ok(value.as_bytes()) }
}

/// The bytes that the digits stand for, and the whole value as text. Any other length, and any byte but a hexadecimal
/// digit, is refused.
fn read<const BYTES: usize>(value: &[u8], digits: &[u8]) -> Option<([u8; BYTES], Box<str>)> {
    let mut mac = [0; BYTES];
    hex::decode_to_slice(digits, &mut mac).ok()?;
    Some((mac, str::from_utf8(value).ok()?.into()))
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::http::header::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::{HEADER, HUB_HEADER, Mac, Signature, SignatureError};
    use crate::verify::Scheme;

    const LOWER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn parse(value: &str) -> Result<Signature, SignatureError> {
        Signature::parse(value.as_bytes())
    }

    #[test]
    fn prefixed_and_bare_digits_in_either_case_are_the_same_mac() {
        let upper = LOWER.to_uppercase();
        let mixed = format!("{}{}", &LOWER[..32], &upper[32..]);
        for value in [LOWER, &upper, &mixed] {
            for value in [value.to_owned(), format!("sha256={value}")] {
                let signature = parse(&value).unwrap();
                assert!(matches!(signature.mac, Mac::Sha256(mac) if mac.as_slice() == hex::decode(LOWER).unwrap()));
                assert_eq!(Scheme::of(Some(&value)), Scheme::Fin);
                assert_eq!(signature.as_sent(), value);
            }
        }
    }

    #[test]
    fn everything_else_is_malformed() {
        let sixty_four_wide = "\u{ff11}".repeat(64);
        let fullwidth = format!("{}\u{ff11}", &LOWER[..61]);
        let cases = [
            String::new(),
            "sha256=".to_owned(),
            // The sample of Fin's guide has 40 digits.
            "sha256=21ff2e149e0fdcac6f947740f6177f6434bda921".to_owned(),
            LOWER[..40].to_owned(),
            LOWER[..63].to_owned(),
            format!("{LOWER}0"),
            format!("sha256={}", &LOWER[..63]),
            format!("sha256={LOWER}0"),
            format!(" {LOWER}"),
            format!("{LOWER} "),
            format!("{LOWER}\n"),
            format!(" sha256={LOWER}"),
            format!("sha256={LOWER} "),
            format!("sha256= {LOWER}"),
            format!("sha256 ={LOWER}"),
            format!("sha256={} {}", &LOWER[..32], &LOWER[32..]),
            format!("sha256={} {}", &LOWER[..32], &LOWER[33..]),
            format!("sha256={LOWER},sha256={LOWER}"),
            format!("sha256={LOWER}, sha256={LOWER}"),
            format!("{LOWER},{LOWER}"),
            format!("SHA256={LOWER}"),
            format!("Sha256={LOWER}"),
            format!("sha-256={LOWER}"),
            format!("sha1={LOWER}"),
            format!("sha1={}", &LOWER[..40]),
            format!("sha512={LOWER}{LOWER}"),
            format!("v1={LOWER}"),
            format!("sha256:{LOWER}"),
            format!("sha256=sha256={LOWER}"),
            format!("\"{LOWER}\""),
            format!("0x{}", &LOWER[..62]),
            format!("{}g", &LOWER[..63]),
            format!("{}\0", &LOWER[..63]),
            format!("+{}", &LOWER[..63]),
            fullwidth,
            sixty_four_wide,
            "yv7K3g==".to_owned(),
        ];
        for value in cases {
            assert_eq!(parse(&value), Err(SignatureError::Malformed), "{value:?}");
        }
        assert_eq!(Signature::parse(&[0xff; 64]), Err(SignatureError::Malformed));
    }

    #[test]
    fn missing_repeated_and_malformed_headers_are_told_apart() {
        let mut headers = HeaderMap::new();
        assert_eq!(Signature::from_headers(&headers), Err(SignatureError::Missing));
        headers.insert(HEADER, HeaderValue::from_static("nonsense"));
        assert_eq!(Signature::from_headers(&headers), Err(SignatureError::Malformed));
        headers.insert(HEADER, HeaderValue::from_static(LOWER));
        assert_eq!(Signature::from_headers(&headers).unwrap().as_sent(), LOWER);
        // Even twice the same.
        headers.append(HEADER, HeaderValue::from_static(LOWER));
        assert_eq!(Signature::from_headers(&headers), Err(SignatureError::Repeated));
    }

    #[test]
    fn a_header_that_is_not_ascii_is_malformed() {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_bytes(&[0xe9; 64]).unwrap());
        assert_eq!(Signature::from_headers(&headers), Err(SignatureError::Malformed));
    }

    #[test]
    fn debug_output_does_not_show_the_signature() {
        assert_eq!(format!("{:?}", parse(LOWER).unwrap()), "Signature(..)");
    }

    #[test]
    fn a_classic_webhooks_signature_has_one_form() {
        let good = format!("sha1={}", &LOWER[..40]);
        let hub = |value: &str| Signature::parse_hub(value.as_bytes());
        assert_eq!(hub(&good).unwrap().as_sent(), good);
        assert_eq!(Scheme::of(Some(&good)), Scheme::Intercom);
        let sha256 = format!("sha256={LOWER}");
        for bad in [
            &good[5..],
            &good[..44],
            &sha256,
            "",
            "sha1=",
            &format!("{good}0"),
            &good.to_uppercase(),
            &format!(" {good}"),
        ] {
            assert_eq!(hub(bad), Err(SignatureError::MalformedHub), "{bad:?}");
        }
        let mut headers = HeaderMap::from_iter([(HUB_HEADER, HeaderValue::from_str(&good).unwrap())]);
        assert_eq!(Signature::from_hub_headers(&headers).unwrap().as_sent(), good);
        headers.append(HUB_HEADER, HeaderValue::from_str(&good).unwrap());
        assert_eq!(Signature::from_hub_headers(&headers), Err(SignatureError::Repeated));
        assert_eq!(Signature::from_hub_headers(&HeaderMap::new()), Err(SignatureError::Missing));
    }

    proptest! {
        #[test]
        fn only_the_two_documented_forms_are_accepted(value in "(sha256=|SHA256=|sha1=|)[0-9a-fA-F ]{60,66}") {
            let digits = value.strip_prefix("sha256=").unwrap_or(&value);
            let documented = digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            prop_assert_eq!(parse(&value).is_ok(), documented);
        }
    }
}
