//! The header that carries Fin's signature.

use std::fmt;

use crate::event::names;
use axum::http::header::{HeaderMap, HeaderName};

/// Name of the header with Fin's signature.
pub const HEADER: HeaderName = HeaderName::from_static(names::SIGNATURE_HEADER);

const PREFIX: &[u8] = b"sha256=";
const MAC_BYTES: usize = 32;

/// A well-formed value of Fin's signature header: 32 bytes that claim to be the HMAC-SHA256 of a body.
///
/// Accepted are `sha256=` and 64 hexadecimal digits, or 64 hexadecimal digits alone; the digits in either case, even
/// mixed, the prefix in lower case as Fin's guide has it. Everything else is malformed: other lengths (Fin's guide shows
/// 40 digits, which cannot be SHA-256), other algorithms, lists, spaces.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    mac: [u8; MAC_BYTES],
    text: Box<str>,
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
}

impl Signature {
    /// Reads the one signature header of a request.
    ///
    /// # Errors
    /// When the header is missing, there more than once, or malformed.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, SignatureError> {
        let mut values = headers.get_all(HEADER).iter();
        let value = values.next().ok_or(SignatureError::Missing)?;
        if values.next().is_some() {
            return Err(SignatureError::Repeated);
        }
        Self::parse(value.as_bytes())
    }

    /// Reads a header's value. Nothing is trimmed.
    ///
    /// # Errors
    /// [`SignatureError::Malformed`].
    pub fn parse(value: &[u8]) -> Result<Self, SignatureError> {
        let digits = value.strip_prefix(PREFIX).unwrap_or(value);
        let mut mac = [0; MAC_BYTES];
        // Refuses any length but 64 and any byte but a hexadecimal digit.
        hex::decode_to_slice(digits, &mut mac).map_err(|_| SignatureError::Malformed)?;
        let text = str::from_utf8(value).map_err(|_| SignatureError::Malformed)?;
        Ok(Self { mac, text: text.into() })
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

    pub(super) fn mac(&self) -> &[u8; MAC_BYTES] {
        &self.mac
    }
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

    use super::{HEADER, Signature, SignatureError};

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
                assert_eq!(signature.mac().as_slice(), hex::decode(LOWER).unwrap());
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

    proptest! {
        #[test]
        fn only_the_two_documented_forms_are_accepted(value in "(sha256=|SHA256=|sha1=|)[0-9a-fA-F ]{60,66}") {
            let digits = value.strip_prefix("sha256=").unwrap_or(&value);
            let documented = digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            prop_assert_eq!(parse(&value).is_ok(), documented);
        }
    }
}
