//! What goes in and out of the journal's interface, and its errors.

use std::path::PathBuf;
use std::sync::Arc;

use crate::event::Stored;

/// What an append came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Stored now, under this sequence number.
    Stored {
        /// The event's place in the journal.
        seq: u64,
    },
    /// Its id was stored before. `same_body` is false when the bytes differ from the first one's.
    Duplicate {
        /// Whether the bytes are those of the first one (true when they are no longer known).
        same_body: bool,
    },
}

/// Why an event could not be stored. The sender must try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// More is waiting for the disk than the queue may hold.
    #[error("the journal's queue is full")]
    Busy,
    /// No room on the disk, or `journal.max_bytes` is reached.
    #[error("the journal is full")]
    Full,
    /// An I/O error: whether the event is on disk is unknown, and the process is about to end.
    #[error("the journal failed")]
    Failed,
    /// The journal is shutting down.
    #[error("the journal is closed")]
    Closed,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Too many changes are waiting.
    #[error("too many changes are waiting for the journal")]
    Busy,
    /// No room on the disk.
    #[error("the journal's disk is full")]
    Full,
    /// An I/O error; the process is about to end.
    #[error("the journal failed")]
    Failed,
    /// The journal is shutting down.
    #[error("the journal is closed")]
    Closed,
    /// The change itself was refused by the store, in its own words.
    #[error("{0}")]
    Refused(String),
}

/// The journal could not be read; the store's own words.
#[derive(Debug, thiserror::Error)]
#[error("the journal could not be read: {0}")]
pub struct ReadError(pub(super) String);

/// One row of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// As it was stored.
    Sound(Arc<Stored>),
    /// What is on disk is not what was stored.
    Damaged {
        /// Its place in the journal.
        seq: u64,
        /// Its lane, as far as that can be read.
        lane: u64,
    },
}

impl Row {
    /// Its place in the journal.
    #[must_use]
    pub fn seq(&self) -> u64 {
        match self {
            Self::Sound(stored) => stored.seq,
            Self::Damaged { seq, .. } => *seq,
        }
    }

    /// Its lane.
    #[must_use]
    pub fn lane(&self) -> u64 {
        match self {
            Self::Sound(stored) => stored.event.lane(),
            Self::Damaged { lane, .. } => *lane,
        }
    }
}

/// An event after a sink's cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fresh {
    /// The event.
    pub row: Row,
    /// Whether its lane has parked events.
    pub blocked: bool,
}

/// A lane whose oldest parked event is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueLane {
    /// The lane.
    pub lane: u64,
    /// Its retry state.
    pub state: LaneState,
}

/// A parked event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// The event.
    pub row: Row,
    /// The replay that asked for it, if one did.
    pub replay: Option<Arc<str>>,
}

/// A sink's number in the journal; a name keeps its number until it is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SinkNumber(pub i64);

/// A sink as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkState {
    /// Its number.
    pub number: SinkNumber,
    /// Its name in the configuration.
    pub name: String,
    /// Events up to this one were there before the sink was, and are not its own.
    pub start: u64,
    /// Everything up to this one is settled, parked or dead.
    pub cursor: u64,
    /// Paused by an operator.
    pub paused: bool,
}

/// Retry state of the oldest parked event of a lane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaneState {
    /// Attempts made at its oldest event.
    pub attempts: u32,
    /// Those of them that the sink rejected while it was otherwise healthy.
    pub rejections: u32,
    /// Time spent failing while the sink was otherwise healthy, in milliseconds.
    pub age_ms: i64,
    /// The last attempt, unix milliseconds; 0 before the first.
    pub last_ms: i64,
    /// The next attempt, unix milliseconds.
    pub next_ms: i64,
    /// Why the last attempt failed.
    pub error: Option<Arc<str>>,
}

/// An event that leaves memory for the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Park {
    /// Its lane.
    pub lane: u64,
    /// Its place in the journal.
    pub seq: u64,
}

/// An event that is given up on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// Its place in the journal.
    pub seq: u64,
    /// Attempts made.
    pub attempts: u32,
    /// When, unix milliseconds.
    pub died_ms: i64,
    /// Why.
    pub error: Arc<str>,
}

/// What happened at one sink since the last settlement; applied in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settlement {
    /// The new cursor, if it moved.
    pub cursor: Option<u64>,
    /// Events to park. A lane that has no row yet gets one that is due at once.
    pub park: Vec<Park>,
    /// Parked events that are settled: (lane, seq).
    pub done: Vec<(u64, u64)>,
    /// Events to give up on; remove them from their lanes by `done` as well.
    pub dead: Vec<Dead>,
    /// New states of lanes. A lane that has no parked event left loses its row instead.
    pub lanes: Vec<(u64, LaneState)>,
}

impl Settlement {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cursor.is_none()
            && self.park.is_empty()
            && self.done.is_empty()
            && self.dead.is_empty()
            && self.lanes.is_empty()
    }
}

/// What one step of a retry came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retried {
    /// Events that will be delivered.
    pub events: u64,
    /// Where the next step goes on; `None` when there is nothing left.
    pub next: Option<u64>,
}

/// What a purge removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Events.
    pub events: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// Why the log still holds what was deleted. Asking again helps.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// Some reader was always busy.
    #[error("the write-ahead log was in use the whole time")]
    Busy,
    /// The store could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The journal is ending.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Anything else, in the store's own words.
    #[error("{0}")]
    Store(String),
}

/// What a pass of retention removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    /// Events whose bytes were deleted.
    pub events: u64,
    /// Ids that are no longer recognised.
    pub ids: u64,
}

/// Why a pass of retention ended early. It is to be tried again.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// The journal could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The journal did not take a change.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why a journal could not be opened. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the file.
    #[error(
        "{path} is in use by another finhook process: stop that one first, or give this one a journal.path of its own"
    )]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// The file or its folder can't be used.
    #[error(
        "cannot open the journal {path}: {error}: journal.path must name a file in a folder that finhook may write to"
    )]
    Io {
        /// What was tried.
        path: PathBuf,
        /// Why it failed.
        error: std::io::Error,
    },
    /// Not a database, or not finhook's.
    #[error(
        "{path} is not a finhook journal ({why}): point journal.path elsewhere, or move that file away. If it was one, follow \
         \"When the journal is damaged\" in docs/RECOVERY.md"
    )]
    Foreign {
        /// The database file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// Written by a newer finhook.
    #[error(
        "{path} has format {found}, this finhook knows up to {known}: run the newer finhook that wrote it, or restore a backup; see \
         \"Stop, restart, upgrade\" in docs/OPERATING.md"
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest one that this finhook knows.
        known: i64,
    },
    /// Damaged.
    #[error(
        "the journal {path} is damaged: {why}. Stop finhook, copy {path} and {path}-wal elsewhere, and follow \
         \"When the journal is damaged\" in docs/RECOVERY.md"
    )]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What the check found, shortened.
        why: String,
    },
    /// SQLite would not do what durability needs.
    #[error("the journal {path} can't be made durable: {why}: put it on a local disk")]
    NotDurable {
        /// The database file.
        path: PathBuf,
        /// Which setting was refused.
        why: String,
    },
    /// Anything else that SQLite reports.
    #[error("cannot open the journal {path}: {error}: is its disk full, read-only or failing?")]
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// SQLite's words.
        error: String,
    },
}

/// A copy that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backup {
    /// Events in it.
    pub events: u64,
    /// Events in it whose bytes had changed on disk before.
    pub damaged: u64,
    /// Its size.
    pub bytes: u64,
}

/// Why no copy was made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The journal, or the copy, is not what it should be.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// Something is there already.
    #[error("{path} exists: it is left alone; name a new file")]
    Exists {
        /// The new file.
        path: PathBuf,
    },
    /// The new file can't be written.
    #[error("can't write {path}: {error}: name a file in a folder that finhook may write to, with room for it")]
    Target {
        /// The new file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Copying failed.
    #[error("copying {from} to {to} failed: {error}: is there room for it?")]
    Copy {
        /// The journal.
        from: PathBuf,
        /// The new file.
        to: PathBuf,
        /// The store's own words.
        error: String,
    },
}

/// The writer is gone for a reason it could not tell.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The disk failed.
    #[error("the journal {path} failed: {why}. The next start checks it; look at the disk first")]
    Failed {
        /// The database file.
        path: PathBuf,
        /// The store's own words.
        why: String,
    },
    /// A bug.
    #[error("the journal's writer panicked; this is a bug in finhook")]
    Panicked,
}
