//! One reader of the live stream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::lines::{NoRoom, Of, Room};
use super::{Filter, Place, Shared};
use crate::event::Kind;
use crate::journal::{ReadError, Row};

/// Events read at once. Few, as each may be as large as `server.max_body_bytes`.
const PAGE: usize = 8;
/// Pages that all readers together hold at once.
pub(super) const PAGES: usize = 2;
/// How long nothing may be sent before a comment is.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Between two tries to read the journal.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads the journal from a cursor, and the hub's chunks whenever it has caught up.
pub(super) struct Follower {
    shared: Arc<Shared>,
    filter: Filter,
    /// Whether bodies are kept from the reader, and with them chunks, which are nothing else.
    masked: bool,
    head: watch::Receiver<u64>,
    chunks: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    /// Everything up to here has been read.
    cursor: u64,
    /// Where the client knows itself to be.
    told: Option<u64>,
    /// The hub's chunks up to here have been read.
    version: u64,
    /// Lines of the page that was read last.
    ready: VecDeque<(u64, Bytes)>,
    /// Room for the next line, where that had to be waited for.
    reserved: Option<Room>,
    heartbeat: Instant,
    _place: Place,
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, filter: Filter, cursor: u64, masked: bool, place: Place) -> Self {
        Self {
            head: shared.head.clone(),
            chunks: shared.hub.changed(),
            closing: shared.closing.subscribe(),
            shared,
            filter,
            masked,
            cursor,
            told: None,
            version: 0,
            ready: VecDeque::new(),
            reserved: None,
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
            if let Some((seq, line)) = self.ready.pop_front() {
                self.told = Some(seq);
                self.heartbeat = Instant::now() + HEARTBEAT;
                return Some(line);
            }
            // Before the journal: a chunk must not be shown after the reply that replaces it.
            self.head.mark_unchanged();
            self.chunks.mark_unchanged();
            let chunk = self.shared.hub.next(self.version);
            match self.read().await {
                Ok(Read::Nothing) => {
                    if let Some((version, event)) = chunk {
                        let wanted = !self.masked && self.filter.wants(&event);
                        let line = wanted.then(|| self.line(Of::Chunk(version), &event));
                        match line {
                            Some(Ok(line)) => {
                                self.version = version;
                                self.heartbeat = Instant::now() + HEARTBEAT;
                                return Some(line);
                            }
                            Some(Err(needed)) => self.reserve(needed).await?,
                            None => self.version = version,
                        }
                    } else if !self.wait().await? {
                        return Some(self.comment("heartbeat"));
                    }
                }
                Ok(Read::Some) => {}
                Ok(Read::NoRoom(needed)) => self.reserve(needed).await?,
                Err(error) => {
                    tracing::warn!(%error, "the live stream waits for the journal");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Reads a page behind the cursor, and makes lines of it for as long as there is room.
    async fn read(&mut self) -> Result<Read, ReadError> {
        if *self.head.borrow() <= self.cursor {
            return Ok(Read::Nothing);
        }
        // Never closed.
        let _turn = self.shared.pages.acquire().await;
        let page = self.shared.reader.after(self.cursor, PAGE, None).await?;
        if page.is_empty() {
            return Ok(Read::Nothing);
        }
        for fresh in page {
            let seq = fresh.row.seq();
            if let Row::Sound(stored) = fresh.row
                && stored.event.kind == Kind::Event
            {
                if self.filter.wants(&stored.event) {
                    let of = if self.masked { Of::Masked(seq) } else { Of::Stored(seq) };
                    match self.shared.lines.get(of, &stored.event, &mut self.reserved) {
                        Ok(line) => self.ready.push_back((seq, line)),
                        // The rest is read again, once there is room.
                        Err(_) if !self.ready.is_empty() => return Ok(Read::Some),
                        Err(needed) => return Ok(Read::NoRoom(needed)),
                    }
                }
                self.shared.hub.replied(&stored.event);
            }
            self.cursor = seq;
        }
        Ok(Read::Some)
    }

    fn line(&mut self, of: Of, event: &crate::event::Event) -> Result<Bytes, NoRoom> {
        self.shared.lines.get(of, event, &mut self.reserved)
    }

    /// Waits for room; `None`: closed.
    async fn reserve(&mut self, needed: NoRoom) -> Option<()> {
        tokio::select! {
            room = self.shared.lines.reserve(needed) => self.reserved = room,
            _ = self.closing.wait_for(|closing| *closing) => return None,
        }
        Some(())
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

/// What came of reading on.
enum Read {
    /// There is nothing behind the cursor.
    Nothing,
    /// Something; lines of it may be ready.
    Some,
    /// The next line needs so much room.
    NoRoom(NoRoom),
}
