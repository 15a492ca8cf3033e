//! What went wrong with an attempt: whose fault it is, and in words for the operator.
//!
//! Invariant: no text holds a URL's credentials or query, a header's value, or anything of a body.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use hyper::header::{HeaderMap, RETRY_AFTER};
use rustls::{AlertDescription, CertificateError};
use url::Url;

use super::connection::Broken;
use super::resolve::Private;
use crate::clock;
use crate::sink::{Failure, Fault};

/// Longest text of an error, in bytes.
const MAX_TEXT: usize = 300;

/// Whose fault a status is; none for the 2xx.
#[must_use]
pub fn status_fault(status: StatusCode) -> Option<Fault> {
    match status.as_u16() {
        200..=299 => None,
        429 => Some(Fault::Throttled),
        408 | 425 | 500..=599 => Some(Fault::Transient),
        _ => Some(Fault::Rejected),
    }
}

/// The pause that a `Retry-After` value asks for at `now`: seconds or an HTTP date (RFC 9110, section 10.2.3). Zero for a
/// date that is past; none if the value is neither.
#[must_use]
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long pause, not none.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// The first `Retry-After` of an answer.
pub(super) fn retry_after_header(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, now)
}

/// A status in words.
pub(super) fn describe_status(status: StatusCode) -> String {
    let advice = match status.as_u16() {
        300..=399 => ": redirects are not followed; configure the URL it leads to",
        401 | 403 => ": check the configured headers",
        404 | 405 | 410 => ": check the configured URL",
        413 => ": let it accept larger bodies",
        _ => "",
    };
    // The canonical reason, not the one that was sent: that is a stranger's text.
    match status.canonical_reason() {
        Some(reason) => format!("status {} {reason}{advice}", status.as_u16()),
        None => format!("status {}{advice}", status.as_u16()),
    }
}

/// No answer within the time for an attempt.
pub(super) fn timed_out(timeout: Duration) -> Failure {
    failure(Fault::Transient, format!("no answer within {}", clock::length(timeout)))
}

/// An attempt that ended without an answer.
pub(super) fn from_broken(broken: &Broken, url: &Url, timeout: Duration) -> Failure {
    let late = || {
        let limit = clock::length(timeout / 2);
        failure(Fault::Unreachable, format!("no connection to {} within {limit}", host(url)))
    };
    match broken {
        Broken::Late => late(),
        Broken::Connect(error) if io_error(&**error) == Some(io::ErrorKind::TimedOut) => late(),
        Broken::Connect(error) => failure(Fault::Unreachable, describe(&**error, url, "could not be reached")),
        Broken::Exchange(error) if error.is_parse() => failure(Fault::Transient, describe_no_http(url)),
        Broken::Exchange(error) => {
            let unreachable = find::<rustls::Error>(error).is_some();
            let fault = if unreachable { Fault::Unreachable } else { Fault::Transient };
            failure(fault, describe(error, url, "broke the connection before it answered"))
        }
    }
}

/// An error in words, the cause first.
fn describe(error: &(dyn Error + 'static), url: &Url, what: &str) -> String {
    if let Some(tls) = find::<rustls::Error>(error) {
        return cut(describe_tls(tls, url));
    }
    let host = host(url);
    if find::<Private>(error).is_some() {
        return format!("the name of {host} leads to private addresses only, which egress.deny_private refuses");
    }
    match io_error(error) {
        Some(io::ErrorKind::ConnectionRefused) => {
            return format!("connection refused by {host}: nothing listens there; check the port, and whether it runs");
        }
        Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
            return format!("no way to {host}: check the address, the routes and the firewalls between");
        }
        Some(io::ErrorKind::ConnectionReset) => return format!("connection reset by {host} before it answered"),
        _ => {}
    }
    // The connector has no kind for it, only these words; a test holds them.
    if causes(error).any(|part| part.to_string() == "dns error") {
        let reason = causes(error).last().map(ToString::to_string).unwrap_or_default();
        return cut(format!(
            "the name of {host} can't be resolved: {reason}; check the URL's host and this machine's DNS"
        ));
    }
    let mut text = format!("{host} {what}");
    for part in causes(error) {
        let _ = write!(text, ": {part}");
    }
    cut(text)
}

/// What came back isn't HTTP: mostly the alert of a server that wants TLS.
fn describe_no_http(url: &Url) -> String {
    let host = host(url);
    match url.scheme() {
        "http" => format!("{host} does not answer in HTTP; if it wants TLS, the URL must begin with https://"),
        _ => format!("{host} does not answer in HTTP; check the URL's port"),
    }
}

fn describe_tls(error: &rustls::Error, url: &Url) -> String {
    let host = host(url);
    let rustls::Error::InvalidCertificate(certificate) = error else {
        return match error {
            rustls::Error::InvalidMessage(_) => {
                format!("TLS: {host} does not speak TLS; if it is plain HTTP, the URL must begin with http://")
            }
            rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
                format!("TLS: {host} wants to know who sends: set client_cert_file and client_key_file")
            }
            rustls::Error::AlertReceived(
                alert @ (AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::DecryptError
                | AlertDescription::AccessDenied),
            ) => format!(
                "TLS: {host} refused finhook's certificate ({alert:?}): look at client_cert_file, and at the authorities that it trusts"
            ),
            _ => format!("TLS: {error}"),
        };
    };
    match certificate {
        CertificateError::UnknownIssuer => format!(
            "TLS: the certificate of {host} is self-signed or of an authority that this system does not trust; \
             install the authority's certificate, or name it in ca_file or SSL_CERT_FILE"
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("TLS: the certificate of {host} has expired; it must be renewed there")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("TLS: the certificate of {host} is not valid yet; check this machine's clock")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "TLS: the certificate is for another name than {host}; use its name in the URL, or have one made for this name"
            )
        }
        // An authority was made anew under its old name, and this system still has the old one.
        CertificateError::BadSignature => format!(
            "TLS: the certificate of {host} is not signed by the authority of that name which this system trusts; \
             install the authority's present certificate"
        ),
        CertificateError::Revoked => format!("TLS: the certificate of {host} is revoked"),
        other => format!("TLS: the certificate of {host} is invalid: {other}"),
    }
}

/// Host and port, all of a URL that may be shown.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn io_error(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    find::<io::Error>(error).map(io::Error::kind)
}

/// The first error of a type among the causes, also where an I/O error wraps it.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut source = Some(error);
    while let Some(part) = source {
        if let Some(found) = part.downcast_ref() {
            return Some(found);
        }
        // An I/O error's `source` skips the error that it wraps.
        source = match part.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => part.source(),
        };
    }
    None
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |part| (*part).source())
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
    }
    text
}

fn failure(fault: Fault, error: String) -> Failure {
    Failure { fault, retry_after: None, error }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_all_three_kinds_of_dates() {
        // 1994-11-06 08:49:37 UTC
        let date = 784_111_777;
        assert_eq!(retry_after("120", at(0)), Some(Duration::from_secs(120)));
        assert_eq!(retry_after(" 0 ", at(0)), Some(Duration::ZERO));
        for form in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(retry_after(form, at(date - 90)), Some(Duration::from_secs(90)), "{form}");
            assert_eq!(retry_after(form, at(date + 90)), Some(Duration::ZERO), "{form}");
        }
        assert_eq!(retry_after("99999999999999999999999999", at(0)), Some(Duration::from_secs(u64::MAX)));
        for neither in ["", "-1", "1.5", "soon", "1 2", "١"] {
            assert_eq!(retry_after(neither, at(0)), None, "{neither}");
        }
    }

    #[test]
    fn each_status_is_the_fault_of_whom_the_contract_says() {
        for code in 100..=599 {
            let expected = match code {
                200..=299 => None,
                429 => Some(Fault::Throttled),
                408 | 425 | 500..=599 => Some(Fault::Transient),
                _ => Some(Fault::Rejected),
            };
            assert_eq!(status_fault(StatusCode::from_u16(code).unwrap()), expected, "{code}");
        }
    }

    #[test]
    fn a_redirect_is_explained() {
        let text = describe_status(StatusCode::FOUND);
        assert!(text.starts_with("status 302 Found: redirects are not followed"), "{text}");
    }

    proptest! {
        #[test]
        fn no_retry_after_value_panics(value in "\\PC*", now in 0..4_000_000_000_u64) {
            let _ = retry_after(&value, at(now));
        }

        #[test]
        fn a_text_is_cut_between_characters(text in "\\PC{0,400}") {
            let cut = cut(text.clone());
            prop_assert!(cut == text || cut.len() <= MAX_TEXT + '…'.len_utf8());
        }
    }
}
