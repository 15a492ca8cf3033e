//! finhook's own listener with the journal left out: requests are checked, verified and parsed as in the program, and
//! then forgotten. It exists only here: a build of the program that does not store can't be made.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use finhook::config;
use finhook::event::Event;
use finhook::metrics::Metrics;
use finhook::receive::{self, Answer, Intake, Refusal, Unrouted};
use finhook::serve::{Limits, Server};
use finhook::verify::{Keyring, Scheme, Signature};

use super::events::PATH;
use super::events::SECRET;

const DEDUPE_WINDOW_MS: i64 = 90 * 24 * 60 * 60 * 1000;

struct Forgetful {
    keyring: Keyring,
    name: Arc<str>,
}

impl Intake for Forgetful {
    type Claim = (Signature, Option<Box<str>>);

    fn claim(&self, _endpoint: usize, headers: &HeaderMap) -> Result<Self::Claim, Refusal> {
        let signature = Signature::from_headers(headers).map_err(|_| Refusal::Unauthenticated(Scheme::Fin))?;
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(Into::into);
        Ok((signature, content_type))
    }

    async fn take(&self, _endpoint: usize, (signature, content_type): Self::Claim, body: Bytes) -> Answer {
        let body = Bytes::copy_from_slice(&body);
        let Ok(verified) = self.keyring.verify(&signature, body) else {
            return Answer::Refused(Refusal::Unauthenticated(Scheme::Fin));
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let now_ms = i64::try_from(now.as_millis()).unwrap_or(0);
        let sent = Some(signature.into_sent());
        let event = Event::receive(verified, self.name.clone(), now_ms, DEDUPE_WINDOW_MS, content_type, sent);
        Answer::Accepted(std::hint::black_box(event).id)
    }
}

/// Serves for ever, with the program's runtime and the default limits; says where before.
pub(crate) fn serve() -> super::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let limits = config::Server {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            max_body_bytes: 1_048_576,
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            max_connections: 10_000,
            ready_path: None,
            drain_timeout: Duration::from_secs(8),
            tls: None,
        };
        let intake = Forgetful { keyring: Keyring::new(&[SECRET.into()]), name: "fin".into() };
        let metrics = Arc::new(Metrics::new());
        let unrouted = Arc::new(Unrouted::new(&metrics, &[PATH]));
        let router = receive::router(&limits, &[("fin", PATH)], Arc::new(intake), &metrics, &unrouted);
        let server = Server::bind(limits.bind, Limits::from(&limits))?;
        println!("{}", server.addr());
        server.run(router, std::future::pending()).await;
        Ok(())
    })
}
