//! A client of the live stream, for `tail` and `chat`: reconnects, and goes on where it was.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use reqwest::{Client, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use sse_stream::{Sse, SseByteStream};
use tokio::time::{sleep, timeout};
use url::Url;

use super::{Failure, chain, client};
use crate::certificate::Files;

/// For connecting, and for the head of the answer.
const CONNECT: Duration = Duration::from_secs(5);
const HEAD: Duration = Duration::from_secs(10);
/// Three missed heartbeats: the connection is dead.
const SILENCE: Duration = Duration::from_secs(50);
/// First and longest wait between two connections.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

type Events = Pin<Box<dyn Stream<Item = Result<Sse, sse_stream::Error>> + Send>>;

/// A live stream that is being read.
pub(super) struct LiveClient {
    client: Client,
    url: Url,
    token: Option<SecretString>,
    last: Option<String>,
    events: Option<Events>,
}

impl LiveClient {
    /// Opens the stream; a failure of this first connection is the user's to know.
    pub(super) async fn open(
        url: Url,
        tls: Option<&Files>,
        token: Option<SecretString>,
        if_refused: &str,
    ) -> Result<Self, Failure> {
        let built = client::builder(tls)?.connect_timeout(CONNECT).read_timeout(SILENCE).build();
        let client = built.map_err(|e| Failure::new(chain(&e)))?;
        let mut stream = Self { client, url, token, last: None, events: None };
        let shown = format!("{}{}", stream.url.origin().ascii_serialization(), stream.url.path());
        match stream.connect().await {
            Ok(()) => Ok(stream),
            Err(Refused::Status(status)) => Err(refused(status, &shown)),
            Err(Refused::NoAnswer(Some(error))) => Err(client::explain(&error, &shown, if_refused)),
            Err(Refused::NoAnswer(None)) => Err(Failure::new(format!("no answer from {shown} in time"))),
        }
    }

    /// The next event's data; `None` in the pair: it is live only. Waits, and reconnects, for as long as it takes.
    pub(super) async fn next(&mut self) -> Result<String, Failure> {
        let (mut wait, most) = BACKOFF;
        loop {
            if let Some(events) = &mut self.events {
                match events.next().await {
                    Some(Ok(event)) => {
                        if let Some(id) = event.id {
                            self.last = Some(id);
                        }
                        if let Some(data) = event.data.filter(|data| !data.is_empty()) {
                            return Ok(data);
                        }
                    }
                    Some(Err(_)) | None => self.events = None,
                }
                continue;
            }
            match self.connect().await {
                Ok(()) => {}
                Err(Refused::Status(status)) if status.is_client_error() => {
                    return Err(refused(status, self.url.path()));
                }
                Err(_) => {
                    sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    wait = (wait * 2).min(most);
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Refused> {
        let mut request = self.client.get(self.url.clone()).header(header::ACCEPT, "text/event-stream");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        if let Some(last) = &self.last {
            request = request.header("last-event-id", last);
        }
        let answer = timeout(HEAD, request.send()).await.map_err(|_| Refused::NoAnswer(None))?;
        let answer = answer.map_err(|error| Refused::NoAnswer(Some(error)))?;
        if answer.status() != StatusCode::OK {
            return Err(Refused::Status(answer.status()));
        }
        let bytes = answer.bytes_stream().map(|chunk: reqwest::Result<Bytes>| chunk);
        self.events = Some(Box::pin(SseByteStream::new(bytes)));
        Ok(())
    }
}

enum Refused {
    Status(StatusCode),
    NoAnswer(Option<reqwest::Error>),
}

fn refused(status: StatusCode, place: &str) -> Failure {
    let why = match status {
        StatusCode::UNAUTHORIZED => "the token is missing or wrong",
        StatusCode::BAD_REQUEST => "it does not understand the filter; --since takes a time or a duration such as 15m",
        StatusCode::SERVICE_UNAVAILABLE => "it has as many readers as it may, or can't read its journal",
        _ => "it is another kind of server, or another version",
    };
    Failure::new(format!("{place} answered {}: {why}", status.as_u16()))
}
