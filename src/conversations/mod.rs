//! Conversations and how they stand: what the journal's events say of them, kept at hand.
//!
//! The journal is in the order of storing and indexes nothing else on the way to a 200. So this follows it as a sink does,
//! with a cursor, and keeps a row for each conversation and one for each of its events, in an SQLite file beside the
//! journal's. All of it can be made again from the journal: a file that is missing, damaged or of another journal is begun
//! anew, and nothing waits for its disk. No body is in it.
//!
//! - [`store`]: the file. [`follow`]: how it keeps up, and forgets what the journal has deleted.
//! - [`transcript`]: from the events of a conversation to what was said.
//!
//! Invariants:
//! - It works for a twentieth of the time while events come, and not at all while very many do: whatever comes, events are stored and delivered first.
//! - What the journal has purged is gone from here once [`Conversations::sweep`] is done.

mod follow;
mod store;
pub mod transcript;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::journal::{Journal, OpenError};
pub use follow::Follower;
use store::Store;

/// How a conversation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Its number here: for pages, and of no meaning elsewhere.
    pub number: i64,
    /// Name of the endpoint that its events came in by.
    pub endpoint: String,
    /// `conversation_id`.
    pub id: String,
    /// The `status` of its newest event that has one.
    pub state: Option<String>,
    /// The `reason` that came with that.
    pub reason: Option<String>,
    /// Name of its newest event.
    pub last_event: String,
    /// Time of its first event, unix milliseconds: when that was created, or else received.
    pub first_ms: i64,
    /// The same of its latest.
    pub last_ms: i64,
    /// Its events that are stored.
    pub events: u64,
    /// Since when it has been the user's turn, unix milliseconds; only while it is.
    pub awaiting_ms: Option<i64>,
}

/// Which conversations are meant; all that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Name of the endpoint.
    pub endpoint: Option<String>,
    /// The state.
    pub state: Option<String>,
    /// What the id begins with.
    pub prefix: Option<String>,
    /// Their latest event is of then or later, unix milliseconds.
    pub since_ms: Option<i64>,
    /// Their latest event is of before then, unix milliseconds.
    pub until_ms: Option<i64>,
}

/// Where a page ends: the time of the latest event, and the number, of its last conversation.
pub type Cursor = (i64, i64);

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// What was found, latest first; may be none although there are more pages.
    pub conversations: Vec<Conversation>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// The file can't be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the conversations can't be read: {0}")]
pub struct Failed(String);

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self(error.to_string())
    }
}

/// A handle of the conversations; cheap to clone.
#[derive(Debug, Clone)]
pub struct Conversations {
    store: Store,
    /// The newest event that is taken in.
    cursor: Arc<AtomicU64>,
    head: tokio::sync::watch::Receiver<u64>,
    sweeps: mpsc::Sender<oneshot::Sender<()>>,
}

impl Conversations {
    /// Those of a journal, whose file is at `path`, and what keeps them up to date. Blocks to open the file.
    ///
    /// # Errors
    /// The journal can't be opened for reading.
    pub fn open(path: &Path, journal: &Journal) -> Result<(Self, Follower), OpenError> {
        let mut file = path.as_os_str().to_owned();
        file.push(".conversations");
        let store = Store::new(file.into());
        let cursor = Arc::new(AtomicU64::new(0));
        // Who sweeps waits for the answer, so there are few.
        let (sweeps, asked) = mpsc::channel(8);
        let follower = Follower::new(store.clone(), journal.reader()?, journal.head(), Arc::clone(&cursor), asked);
        Ok((Self { store, cursor, head: journal.head(), sweeps }, follower))
    }

    /// One page of the conversations that a filter means, latest first. Each call looks at a bounded number of them.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn list(&self, filter: Filter, from: Option<Cursor>, limit: usize) -> Result<Page, Failed> {
        self.store.ask(move |store| store.list(&filter, from, limit)).await
    }

    /// The conversations of this id: one for each endpoint that has it, or that of one endpoint.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn find(&self, id: String, endpoint: Option<String>) -> Result<Vec<Conversation>, Failed> {
        self.store.ask(move |store| store.find(&id, endpoint.as_deref())).await
    }

    /// The sequence numbers of a conversation's events behind `after`, in order, `limit` at most.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn events(&self, number: i64, after: u64, limit: usize) -> Result<Vec<u64>, Failed> {
        self.store.ask(move |store| store.events(number, after, limit)).await
    }

    /// Stored events that are not taken in yet.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.head.borrow().saturating_sub(self.cursor.load(Ordering::Relaxed))
    }

    /// Forgets what the journal has deleted; done when that is so.
    pub async fn sweep(&self) {
        let (done, answer) = oneshot::channel();
        if self.sweeps.send(done).await.is_ok() {
            // An error means that the process is ending: the next start begins with a sweep.
            let _ = answer.await;
        }
    }
}
