//! The durable store: append, read from a cursor, settle, ask.
//!
//! This file is the interface, in words: what a caller may rely on, whatever stands behind it. Today that is SQLite
//! ([`sqlite`]), one file on one machine. The suite `tests/it/conformance` holds every store to these words.
//!
//! **Order.** Every event gets a sequence number. Numbers ascend in the order of storing, from 1, and are never used again,
//! also not after deletions and restarts. Whoever sees a number sees every smaller one that is still stored: a cursor is
//! never past an event that is yet to come.
//!
//! **Once.** An event's id is stored once for as long as it is recognised; deciding that and storing are one step.
//!
//! **Durable.** What is answered with `Ok` outlasts a crash of the process and of the machine. A change is made whole or
//! not at all. An error means that it was not made, unless it says that this is unknown.
//!
//! **Deliveries.** A sink's *cursor* says that everything up to it is settled (delivered, or not for this sink), *parked*
//! or *dead*. Parked events are those that wait behind a failed one of their conversation, a row each, grouped in *lanes*; a
//! lane keeps the retry state of its oldest event. A sink that keeps up therefore costs one small change a batch.
//!
//! **Bounds.** Every read is of a page, bounded in rows and in bytes of bodies. Every change that may be long goes in
//! steps, which the caller repeats, so that events are stored in between.

mod query;
pub mod retention;
pub mod sqlite;
mod types;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use uuid::Uuid;

use crate::config;
use crate::event::{Event, Stored};
use crate::metrics::Metrics;

pub use query::{Delivery, DeliveryState, EventState, Filter, Found, Listed, Order, Page, Resolved, SinkReport, Wants};
pub use types::{
    AppendError, Appended, Backup, BackupError, Dead, DueLane, Ended, EraseError, Expired, Fresh, LaneState, OpenError,
    Park, Parked, ReadError, Removed, RetentionError, Retried, Row, Settlement, SinkNumber, SinkState, WriteError,
};

/// Events in one step of a replay, or of a retry of dead letters.
pub const REPLAY_STEP: usize = 1000;
/// Events in one step of a purge.
pub const PURGE_STEP: usize = 256;

/// Events are stored about in the order in which they are received. Between two of them the clock may have been set by as
/// much, in milliseconds: whoever looks for a time looks this much further.
pub const CLOCK_SLACK_MS: i64 = 60 * 60 * 1000;

/// Does something with the store that stands behind a handle. With another store there is another arm.
macro_rules! on {
    ($handle:expr, $store:ident => $what:expr) => {
        match $handle {
            Self::Sqlite($store) => $what,
        }
    };
}

/// An open journal and what runs behind it.
#[derive(Debug)]
pub struct Opened {
    /// The handle to share.
    pub journal: Journal,
    /// Must be awaited: it ends after [`Journal::close`], or early with an error.
    pub running: Running,
}

/// Opens the journal that is configured, and starts what runs behind it. Must be called inside a tokio runtime, in which
/// its answers are then handed out.
///
/// # Errors
/// See [`OpenError`]; nothing is running then.
pub fn open(config: &config::Journal, metrics: Arc<Metrics>) -> Result<Opened, OpenError> {
    let (store, running) = sqlite::Store::open(config, metrics)?;
    Ok(Opened { journal: Journal::Sqlite(store), running: Running::Sqlite(running) })
}

/// Makes a consistent copy of the configured journal, whether a finhook runs on it or not, and checks it. Blocks for as long as
/// that takes. `to` must not exist; after an error it still doesn't.
///
/// # Errors
/// See [`BackupError`].
pub fn backup(config: &config::Journal, to: &Path) -> Result<Backup, BackupError> {
    sqlite::backup(&config.path, to)
}

/// A handle of the journal; cheap to clone. Everything that changes it goes through here.
#[derive(Debug, Clone)]
pub enum Journal {
    /// A file on this machine.
    Sqlite(sqlite::Store),
}

impl Journal {
    /// Stores an event: it is queued at once, and stored even when the returned future is dropped, which is done once the
    /// event is on disk. Events of one task are stored in the order of its calls.
    ///
    /// # Errors
    /// The event is not, or not surely, on disk: see [`AppendError`]. To be sent again as it is; the id tells.
    pub fn append(&self, event: Event) -> impl Future<Output = Result<Appended, AppendError>> + Send + use<> {
        on!(self, store => store.append(event))
    }

    /// The state of a sink, made now if the journal has never seen its name: it then begins after the newest event, or with
    /// the oldest when `from_start`. Of a known one nothing is written.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn sink(&self, name: &str, from_start: bool) -> Result<SinkState, WriteError> {
        on!(self, store => store.sink(name, from_start).await)
    }

    /// Records what happened at a sink. A cursor never moves back; what is recorded of events that were purged meanwhile is
    /// left out.
    ///
    /// # Errors
    /// See [`WriteError`]; it may be tried again as it is.
    pub async fn settle(&self, sink: SinkNumber, settlement: Arc<Settlement>) -> Result<(), WriteError> {
        on!(self, store => store.settle(sink, settlement).await)
    }

    /// Remembers that an operator paused a sink, or ended the pause. False when there is no such sink.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn set_paused(&self, name: &str, paused: bool) -> Result<bool, WriteError> {
        on!(self, store => store.set_paused(name, paused).await)
    }

    /// One step of forgetting a sink: its parked events, its dead letters, at last itself. True when it is gone. Its
    /// worker must not be running.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn forget_sink(&self, sink: SinkNumber) -> Result<bool, WriteError> {
        on!(self, store => store.forget_sink(sink).await)
    }

    /// Asks for these events, [`REPLAY_STEP`] at most, to be delivered to a sink once more, marked with the replay's id. They
    /// are parked in lanes of their own, made from the replay's id and the event's lane: within one replay a conversation
    /// keeps its order, and what comes newly waits for none of it. Events that are gone are left out. Returns how many
    /// there will be; the sink's worker must be woken.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn replay(&self, sink: SinkNumber, replay: Arc<str>, seqs: Vec<u64>) -> Result<u64, WriteError> {
        on!(self, store => store.replay(sink, replay, seqs).await)
    }

    /// One step of a retry: takes dead letters of a sink after the sequence number `after`, [`REPLAY_STEP`] at most, and
    /// parks them as [`Journal::replay`] does, with their attempts counted anew. `retry` is an id for all steps of one
    /// retry. The sink's worker must be woken.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn retry_dead(&self, sink: SinkNumber, retry: Arc<str>, after: u64) -> Result<Retried, WriteError> {
        on!(self, store => store.retry_dead(sink, retry, after).await)
    }

    /// Deletes events, [`PURGE_STEP`] at most, everything that was still to be delivered of them, and their dead letters.
    /// Their ids stay recognised. Copies of their bytes may be left until [`Journal::erase`]; the workers must be told.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn purge(&self, seqs: Vec<u64>) -> Result<Removed, WriteError> {
        on!(self, store => store.purge(seqs).await)
    }

    /// Leaves no copy of what was deleted in what the journal keeps.
    ///
    /// # Errors
    /// See [`EraseError`]; asking again helps.
    pub async fn erase(&self) -> Result<(), EraseError> {
        on!(self, store => store.erase().await)
    }

    /// What deletes in time, for a journal that was opened with the same settings.
    ///
    /// # Errors
    /// The journal can't be opened for reading.
    pub fn retention(&self, config: &config::Journal) -> Result<Retention, OpenError> {
        on!(self, store => store.retention(config).map(Retention::Sqlite))
    }

    /// What reads, with a connection of its own: it waits for no change, and no change waits for it.
    ///
    /// # Errors
    /// The journal can't be opened for reading.
    pub fn reader(&self) -> Result<Reader, OpenError> {
        on!(self, store => store.reader().map(Reader::Sqlite))
    }

    /// The newest stored sequence number, 0 in an empty journal; wakes whenever events were stored.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<u64> {
        on!(self, store => store.head())
    }

    /// Whether events can be stored at present.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        on!(self, store => store.is_writable())
    }

    /// Bytes that events and delivery state occupy.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        on!(self, store => store.bytes())
    }

    /// Lets what waits be stored and everything end; appends from now on are refused.
    pub fn close(&self) {
        on!(self, store => store.close())
    }
}

/// What runs behind the journal.
#[derive(Debug)]
pub enum Running {
    /// The threads of a file.
    Sqlite(sqlite::Running),
}

impl Running {
    /// Waits for its end. Cancel-safe.
    ///
    /// # Errors
    /// It ended because of the disk or a bug: the process must end too.
    pub async fn ended(&mut self) -> Result<(), Ended> {
        on!(self, running => running.ended().await)
    }
}

/// Deletes bodies and ids in time.
#[derive(Debug)]
pub enum Retention {
    /// In a file.
    Sqlite(sqlite::Retention),
}

impl Retention {
    /// Deletes all that is due at `now_ms`, unix milliseconds: bodies that every sink was done with a retention time ago
    /// and that nobody has parked or among its dead letters, and ids older than the dedupe window whose body is gone.
    ///
    /// # Errors
    /// See [`RetentionError`]; what was deleted until then stays deleted.
    pub async fn pass(&mut self, now_ms: i64) -> Result<Expired, RetentionError> {
        on!(self, retention => retention.pass(now_ms).await)
    }
}

/// Reads the journal. Clones share a connection and wait for each other.
#[derive(Debug, Clone)]
pub enum Reader {
    /// A file.
    Sqlite(sqlite::Reader),
}

/// For workers and live streams.
impl Reader {
    /// The events after `seq` in order, `limit` at most. `blocked_at` names a sink that has parked events, whose lanes must
    /// then be looked up.
    ///
    /// # Errors
    /// The journal could not be read.
    pub async fn after(&self, seq: u64, limit: usize, blocked_at: Option<SinkNumber>) -> Result<Vec<Fresh>, ReadError> {
        on!(self, reader => reader.after(seq, limit, blocked_at).await)
    }

    /// The lanes of a sink that are due at `now_ms`, longest due first, `limit` at most, and when the next one will be. A
    /// lane that is due after `horizon_ms` is due now: no lane waits that long, so the clock has jumped.
    ///
    /// # Errors
    /// The journal could not be read.
    pub async fn due(
        &self,
        sink: SinkNumber,
        now_ms: i64,
        horizon_ms: i64,
        limit: usize,
    ) -> Result<(Vec<DueLane>, Option<i64>), ReadError> {
        on!(self, reader => reader.due(sink, now_ms, horizon_ms, limit).await)
    }

    /// The oldest parked events of a lane after `after`, in order, `limit` at most, and whether there are more behind them.
    ///
    /// # Errors
    /// The journal could not be read.
    pub async fn parked(
        &self,
        sink: SinkNumber,
        lane: u64,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<Parked>, bool), ReadError> {
        on!(self, reader => reader.parked(sink, lane, after, limit).await)
    }

    /// Events beyond a sink's cursor that are parked for it or dead: a crash came before the cursor could move past them.
    ///
    /// # Errors
    /// The journal could not be read.
    pub async fn beyond(&self, sink: SinkNumber, cursor: u64) -> Result<HashSet<u64>, ReadError> {
        on!(self, reader => reader.beyond(sink, cursor).await)
    }

    /// How many events are parked for a sink.
    ///
    /// # Errors
    /// The journal could not be read.
    pub async fn count_parked(&self, sink: SinkNumber) -> Result<i64, ReadError> {
        on!(self, reader => reader.count_parked(sink).await)
    }
}

/// For operators. Little is indexed, so a list is a scan: one call looks at a bounded number of rows and says where to go
/// on; none holds a snapshot for long.
impl Reader {
    /// One page of the events that a filter means; `from` is the `next` of the page before. [`EventState::Purged`] finds
    /// nothing here: see [`Reader::purged`].
    ///
    /// # Errors
    /// The journal could not be read.
    pub async fn list(
        &self,
        filter: Filter,
        order: Order,
        from: Option<u64>,
        limit: usize,
        wants: Wants,
    ) -> Result<Page, ReadError> {
        on!(self, reader => reader.list(filter, order, from, limit, wants).await)
    }

    /// One page of the ids that are recognised but have no bytes any more, newest first: (id, sequence number). `from` is
    /// the last id of the page before; the second value is where to go on.
    ///
    /// # Errors
    /// The journal could not be read.
    pub async fn purged(
        &self,
        from: Option<Uuid>,
        limit: usize,
    ) -> Result<(Vec<(Uuid, u64)>, Option<Uuid>), ReadError> {
        on!(self, reader => reader.purged(from, limit).await)
    }

    /// An event by its id, with its standing at every sink. Its body only when it is asked for.
    ///
    /// # Errors
    /// The journal could not be read.
    pub async fn find(&self, id: Uuid, with_body: bool, wants: Wants) -> Result<Option<Found>, ReadError> {
        on!(self, reader => reader.find(id, with_body, wants).await)
    }

    /// The events after `seq` in order, a page of `limit` at most, without their bodies and so unverified; and the last number that was
    /// looked at: rows that can't be read are left out. For who follows at leisure: unlike [`Reader::after`] it keeps nothing in
    /// memory for whoever reads on.
    ///
    /// # Errors
    /// The journal could not be read.
    pub async fn skim(&self, seq: u64, limit: usize) -> Result<(Vec<Stored>, Option<u64>), ReadError> {
        on!(self, reader => reader.skim(seq, limit).await)
    }

    /// Stored events with their bodies and their standing at every sink, in the order of `seqs`. Those that are gone or damaged are
    /// left out, and so is what doesn't fit in a page any more: whoever asks goes on behind the last number that came back.
    ///
    /// # Errors
    /// The journal could not be read.
    pub async fn show(&self, seqs: Vec<u64>, wants: Wants) -> Result<Vec<(Listed, Vec<Delivery>)>, ReadError> {
        on!(self, reader => reader.show(seqs, wants).await)
    }

    /// Which of these sequence numbers are stored.
    ///
    /// # Errors
    /// The journal could not be read.
    pub async fn stored(&self, seqs: Vec<u64>) -> Result<HashSet<u64>, ReadError> {
        on!(self, reader => reader.stored(seqs).await)
    }

    /// What these ids stand for, in their order.
    ///
    /// # Errors
    /// The journal could not be read.
    pub async fn resolve(&self, ids: Vec<Uuid>) -> Result<Vec<Resolved>, ReadError> {
        on!(self, reader => reader.resolve(ids).await)
    }

    /// How every sink that the journal knows stands, by name.
    ///
    /// # Errors
    /// The journal could not be read.
    pub async fn sinks(&self) -> Result<Vec<SinkReport>, ReadError> {
        on!(self, reader => reader.sinks().await)
    }
}
