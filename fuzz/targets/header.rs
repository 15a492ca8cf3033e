//! The signature header, from a request's headers to the verdict.
//!
//! The input's first byte says how many headers there are, the second how long the body is; then the body, then one line
//! a header. Every `$` in a header's value stands for the right 64 digits and every `^` for the same in upper case, so that
//! mutations stay near what is accepted.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use finhook::verify::{HEADER, Keyring, Signature, SignatureError, sign};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use secrecy::SecretString;

static SECRET: LazyLock<SecretString> = LazyLock::new(|| "the endpoint's signing secret".into());
static KEYRING: LazyLock<Keyring> = LazyLock::new(|| Keyring::new(&["another secret".into(), SECRET.clone()]));

fuzz_target!(|data: &[u8]| {
    let [headers, body_len, rest @ ..] = data else { return };
    let (body, rest) = rest.split_at(usize::from(*body_len).min(rest.len()));
    let signed = sign(&SECRET, body);
    let digits = &signed.as_bytes()["sha256=".len()..];

    let mut map = HeaderMap::new();
    let mut sent = Vec::new();
    for line in rest.split(|byte| *byte == b'\n').take(usize::from(headers % 3)) {
        let value: Vec<u8> = line
            .iter()
            .flat_map(|byte| match byte {
                b'$' => digits.to_vec(),
                b'^' => digits.to_ascii_uppercase(),
                other => vec![*other],
            })
            .collect();
        // What can't be in a header never gets here.
        let Ok(header) = HeaderValue::from_bytes(&value) else { continue };
        map.append(HEADER, header);
        sent.push(value);
    }

    let read = Signature::from_headers(&map);
    match sent.as_slice() {
        [] => assert_eq!(read, Err(SignatureError::Missing)),
        [value] => {
            let bare = value.strip_prefix(b"sha256=").unwrap_or(value);
            let well_formed = bare.len() == 64 && bare.iter().all(u8::is_ascii_hexdigit);
            match read {
                Ok(signature) => {
                    assert!(well_formed);
                    assert_eq!(signature.as_sent().as_bytes(), value);
                    let right = bare.eq_ignore_ascii_case(digits);
                    let verified = KEYRING.verify(&signature, Bytes::copy_from_slice(body));
                    assert_eq!(verified.is_ok(), right);
                    if let Ok(verified) = verified {
                        assert_eq!(verified.into_body(), body);
                    }
                }
                Err(error) => assert!(!well_formed && error == SignatureError::Malformed),
            }
        }
        _ => assert_eq!(read, Err(SignatureError::Repeated)),
    }
});
