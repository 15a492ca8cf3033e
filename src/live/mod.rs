//! The live stream: stored events as they come, and the chunks of replies that are being written, as Server-Sent
//! Events for the gateway's `/stream` and the admin listener's `/api/v1/stream`.
//!
//! | part of an event | is |
//! | --- | --- |
//! | `id:` | the sequence number; a chunk has none |
//! | `data:` | the line that the `file` sink would write |
//!
//! Invariants:
//! - What is stored is always read from the journal, by cursor: so each stored event that matches comes exactly once, in
//!   order, and `Last-Event-ID` resumes without a gap. The [`Hub`] only holds what is not stored, the chunks.
//! - A stream begins by telling its client where it stands (`id:` without data), so that one that is cut off before its
//!   first event resumes there, too.
//! - A reader is served at its own pace, and gets only the newest chunk of each reply. What readers have not taken yet is bounded
//!   in bytes, all of them together ([`lines`]); so are the chunks that are kept ([`hub`]).

mod follow;
mod hub;
mod lines;
mod query;

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub use hub::{Chunk, Hub};
pub use query::{BadQuery, Filter};

use crate::clock;
use crate::journal::{Journal, OpenError, ReadError, Reader};
use crate::metrics::Metrics;
use crate::serve::Problem;
use crate::serve::guard::Caller;
use follow::Follower;
use lines::Lines;

/// Readers at once.
pub const MAX_READERS: usize = 256;

/// What the handlers of live streams share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Live {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    reader: Reader,
    head: watch::Receiver<u64>,
    hub: Arc<Hub>,
    lines: Lines,
    /// Pages of the journal that readers hold at once, before lines are made of them.
    pages: Semaphore,
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    closing: watch::Sender<bool>,
}

impl Live {
    /// Live streams of a journal, with room for [`MAX_READERS`].
    ///
    /// # Errors
    /// The journal can't be opened for reading.
    pub fn new(journal: &Journal, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let shared = Shared {
            reader: journal.reader()?,
            head: journal.head(),
            hub: Arc::default(),
            lines: Lines::default(),
            pages: Semaphore::new(follow::PAGES),
            places: Arc::new(Semaphore::new(MAX_READERS)),
            metrics,
            closing: watch::Sender::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Where chunks are put in.
    #[must_use]
    pub fn hub(&self) -> Arc<Hub> {
        Arc::clone(&self.shared.hub)
    }

    /// Ends every stream; for the beginning of a shutdown, as streams have no end of their own.
    pub fn close(&self) {
        self.shared.closing.send_replace(true);
    }

    /// Opens a stream: the answer to `GET …?conversation=&event=&since=`. `masked`: without bodies.
    pub async fn open(&self, query: &str, headers: &HeaderMap, masked: bool) -> Response {
        let filter = match Filter::parse(query, clock::now_ms()) {
            Ok(filter) => filter,
            Err(bad) => return Problem::bad(bad.text()).into_response(),
        };
        let Ok(permit) = Arc::clone(&self.shared.places).try_acquire_owned() else {
            return Problem::unavailable("As many readers as there may be are connected.").retry_after(5);
        };
        let place = Place::take(permit, Arc::clone(&self.shared.metrics));
        let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse().ok());
        let Ok(cursor) = self.shared.start(&filter, last).await else {
            return Problem::unavailable("The journal can't be read.").into_response();
        };
        let follower = Follower::new(Arc::clone(&self.shared), filter, cursor, masked, place);
        let body = Body::from_stream(stream::unfold(follower, |mut follower| async {
            let bytes = follower.next().await?;
            Some((Ok::<Bytes, Infallible>(bytes), follower))
        }));
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-store"),
            // Proxies such as nginx would hold events back.
            (header::HeaderName::from_static("x-accel-buffering"), "no"),
        ];
        (headers, body).into_response()
    }
}

/// The axum handler of [`Live::open`]; a guard before it says who calls.
pub async fn stream(
    State(live): State<Live>,
    caller: Option<Extension<Caller>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    live.open(query.as_deref().unwrap_or(""), &headers, caller.is_some_and(|caller| caller.is_reader())).await
}

impl Shared {
    /// The sequence number behind which a stream begins.
    async fn start(&self, filter: &Filter, last: Option<u64>) -> Result<u64, ReadError> {
        let head = *self.head.borrow();
        if let Some(last) = last {
            // Never past an event that is yet to come, should the journal be another one.
            return Ok(last.min(head));
        }
        match filter.since_ms {
            Some(since_ms) => query::first_since(&self.reader, since_ms, head).await,
            None => Ok(head),
        }
    }
}

/// A reader's place, given back when it is dropped.
struct Place {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl Place {
    fn take(permit: OwnedSemaphorePermit, metrics: Arc<Metrics>) -> Self {
        metrics.live_readers.inc();
        Self { _permit: permit, metrics }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.live_readers.dec();
    }
}
