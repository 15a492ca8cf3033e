//! One reader of the live stream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{Filter, Place, Shared};
use crate::event::{Event, Kind};
use crate::journal::{ReadError, Row};
use crate::sink::cloudevent;

/// Events read at once.
const PAGE: usize = 64;
/// How long nothing may be sent before a comment is.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Between two tries to read the journal.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads the journal from a cursor, and the hub's chunks whenever it has caught up.
pub(super) struct Follower {
    shared: Arc<Shared>,
    filter: Filter,
    head: watch::Receiver<u64>,
    chunks: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    /// Everything up to here has been read.
    cursor: u64,
    /// Where the client knows itself to be.
    told: Option<u64>,
    /// The hub's chunks up to here have been read.
    version: u64,
    ready: VecDeque<Bytes>,
    heartbeat: Instant,
    _place: Place,
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, filter: Filter, cursor: u64, place: Place) -> Self {
        Self {
            head: shared.head.clone(),
            chunks: shared.hub.changed(),
            closing: shared.closing.subscribe(),
            shared,
            filter,
            cursor,
            told: None,
            version: 0,
            ready: VecDeque::new(),
            heartbeat: Instant::now() + HEARTBEAT,
            _place: place,
        }
    }

    /// The next piece of the stream; `None` when it is closed.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        if self.told.is_none() {
            return Some(self.comment("welcome"));
        }
        loop {
            if *self.closing.borrow() {
                return None;
            }
            if let Some(bytes) = self.ready.pop_front() {
                self.heartbeat = Instant::now() + HEARTBEAT;
                return Some(bytes);
            }
            // Before the journal: a chunk must not be shown after the reply that replaces it.
            self.head.mark_unchanged();
            self.chunks.mark_unchanged();
            let (version, chunks) = self.shared.hub.since(self.version);
            match self.read().await {
                Ok(0) => {
                    self.version = version;
                    let wanted = chunks.iter().filter(|event| self.filter.wants(event));
                    self.ready.extend(wanted.map(|event| line(None, event)));
                    if self.ready.is_empty() && !self.wait().await? {
                        return Some(self.comment("heartbeat"));
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "the live stream waits for the journal");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Reads a page behind the cursor; returns how many events it had.
    async fn read(&mut self) -> Result<usize, ReadError> {
        let page = self.shared.reader.after(self.cursor, PAGE, None).await?;
        let read = page.len();
        for fresh in page {
            self.cursor = fresh.row.seq();
            let Row::Sound(stored) = fresh.row else { continue };
            if stored.event.kind != Kind::Event {
                continue;
            }
            self.shared.hub.replied(&stored.event);
            if self.filter.wants(&stored.event) {
                self.ready.push_back(line(Some(stored.seq), &stored.event));
                self.told = Some(stored.seq);
            }
        }
        Ok(read)
    }

    /// Waits for something new; `false`: only time has passed, `None`: closed.
    async fn wait(&mut self) -> Option<bool> {
        tokio::select! {
            changed = self.head.changed() => changed.ok().map(|()| true),
            changed = self.chunks.changed() => changed.ok().map(|()| true),
            _ = self.closing.wait_for(|closing| *closing) => None,
            () = sleep_until(self.heartbeat) => Some(false),
        }
    }

    /// A comment, and where the client stands if that is news to it.
    fn comment(&mut self, text: &str) -> Bytes {
        self.heartbeat = Instant::now() + HEARTBEAT;
        if self.told.replace(self.cursor) == Some(self.cursor) {
            return format!(": {text}\n\n").into();
        }
        format!(": {text}\nid: {}\n\n", self.cursor).into()
    }
}

/// One event of the stream.
fn line(seq: Option<u64>, event: &Event) -> Bytes {
    let mut text = Vec::with_capacity(event.body.len() + 512);
    if let Some(seq) = seq {
        text.extend_from_slice(format!("id: {seq}\n").as_bytes());
    }
    text.extend_from_slice(b"data: ");
    cloudevent::append_json(&mut text, event);
    text.extend_from_slice(b"\n\n");
    text.into()
}
