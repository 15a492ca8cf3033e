//! The HTTP client of the commands that talk to a running finhook.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Failure, chain};
use crate::certificate::Files;
use crate::{outbound, serve};

/// Answers of finhook are short.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// A client that goes straight to the address it is given, with a timeout for the whole call. `tls`: to a listener of this
/// configuration, which has this certificate.
pub(super) fn client(timeout: Duration, tls: Option<&Files>) -> Result<reqwest::Client, Failure> {
    builder(tls)?.timeout(timeout).build().map_err(|e| Failure::new(chain(&e)))
}

/// The same, still without limits.
pub(super) fn builder(tls: Option<&Files>) -> Result<reqwest::ClientBuilder, Failure> {
    let builder = match tls {
        None => outbound::client(),
        Some(files) => outbound::client_of(files.certificate().map_err(|problem| Failure::new(problem.to_string()))?),
    };
    builder.map_err(|e| Failure::new(chain(&e)))
}

/// Runs a command's calls to their end.
pub(super) fn block_on<T>(calls: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(calls)
}

/// An answer's body; empty when it is too large, or breaks off.
pub(super) async fn body(answer: reqwest::Response) -> Vec<u8> {
    crate::body::read(reqwest::Body::from(answer), MAX_ANSWER_BYTES).await.map(Into::into).unwrap_or_default()
}

/// What went wrong with a call, for people.
pub(super) fn explain(error: &reqwest::Error, url: &str, if_refused: &str) -> Failure {
    if error.is_connect() {
        return Failure::new(format!("can't connect to {url}: {}; {if_refused}", cause(error)));
    }
    if error.is_timeout() {
        return Failure::new(format!("no answer from {url} in time"));
    }
    Failure::new(format!("no answer from {url}: {}", cause(error)))
}

/// Where to reach, from this machine, a listener that is bound to `bind`.
///
/// `None` when the port is 0: only the running process knows which one it got.
pub(super) fn reach(bind: SocketAddr) -> Option<SocketAddr> {
    (bind.port() != 0).then(|| serve::reach(bind))
}

/// The same as the beginning of a URL.
pub(super) fn origin(bind: SocketAddr, tls: Option<&Files>) -> Option<String> {
    reach(bind).map(|address| format!("{}://{address}", if tls.is_some() { "https" } else { "http" }))
}

/// What is at the bottom of an error. reqwest's own text repeats the URL, which may hold a secret.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = match std::error::Error::source(error) {
        Some(source) => source,
        None => return "the request failed".into(),
    };
    while let Some(source) = cause.source().or_else(|| within(cause)) {
        cause = source;
    }
    match cause.downcast_ref() {
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            "it does not speak TLS: use http:// for it".into()
        }
        _ => cause.to_string(),
    }
}

/// What an I/O error was made from, which is no source of its own kind.
fn within<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e (dyn std::error::Error + 'static)> {
    Some(error.downcast_ref::<std::io::Error>()?.get_ref()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_unspecified_address_is_reached_by_loopback() {
        let reach = |bind: &str| reach(bind.parse().unwrap()).map(|to| to.to_string());
        assert_eq!(reach("0.0.0.0:9090").as_deref(), Some("127.0.0.1:9090"));
        assert_eq!(reach("[::]:9090").as_deref(), Some("[::1]:9090"));
        assert_eq!(reach("192.0.2.1:80").as_deref(), Some("192.0.2.1:80"));
        assert_eq!(reach("127.0.0.1:0"), None);
    }
}
