//! Keeps up with the journal, and forgets what it has deleted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use super::Failed;
use super::store::{Member, Store};
use crate::journal::{ReadError, Reader};
use crate::serve::Seldom;

/// Events read at once.
const PAGE: usize = 2500;
/// How long events gather before they are read. Conversations lie anywhere in the file: what a change costs is the number of
/// pages that it touches, so one change for many events.
const GATHER: Duration = Duration::from_millis(500);
/// For each moment of work so many of rest, while events come.
const REST: u32 = 19;
/// With more events in [`GATHER`] than these, four times what Fin sends at most, it waits until there are fewer: then all
/// that there is of the machine goes into storing and delivering them.
const BUSY: u64 = 5000;
/// After a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// How often what retention has deleted is forgotten.
const SWEEP: Duration = Duration::from_secs(60 * 60);

/// What is to be run for as long as the process lives.
#[derive(Debug)]
pub struct Follower {
    store: Store,
    reader: Reader,
    head: watch::Receiver<u64>,
    cursor: Arc<AtomicU64>,
    sweeps: mpsc::Receiver<oneshot::Sender<()>>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Store(#[from] Failed),
    #[error(transparent)]
    Journal(#[from] ReadError),
}

impl Follower {
    pub(super) fn new(
        store: Store,
        reader: Reader,
        head: watch::Receiver<u64>,
        cursor: Arc<AtomicU64>,
        sweeps: mpsc::Receiver<oneshot::Sender<()>>,
    ) -> Self {
        Self { store, reader, head, cursor, sweeps }
    }

    /// Follows for ever; dropping the future ends it. No failure of its own ends it: it is logged once a minute, and tried again.
    pub async fn run(mut self) -> std::convert::Infallible {
        let mut failing = Seldom::default();
        loop {
            let Err(error) = self.follow().await;
            if let Some(times) = failing.happened() {
                tracing::warn!(
                    %error,
                    times,
                    "the conversations can't be kept up to date: look at the disk of journal.path; events are stored and delivered \
                     all the same. Said once a minute at most"
                );
            }
            sleep(PAUSE).await;
        }
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible, Error> {
        let mut cursor = self.start().await?;
        let mut before = *self.head.borrow();
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.cursor.store(cursor, Ordering::Relaxed);
            let newest = *self.head.borrow_and_update();
            if newest > cursor {
                if newest - before > BUSY {
                    sleep(GATHER).await;
                } else {
                    cursor = self.page(cursor, newest).await?;
                }
                before = newest;
                // Sweeps need not wait until all is read.
                if let Ok(done) = self.sweeps.try_recv() {
                    self.sweep().await?;
                    let _ = done.send(());
                }
                continue;
            }
            tokio::select! {
                changed = self.head.changed() => match changed {
                    Ok(()) => {
                        before = cursor;
                        sleep(GATHER).await;
                    }
                    // The journal is closed: the process is ending.
                    Err(_) => std::future::pending().await,
                },
                Some(done) = self.sweeps.recv() => {
                    self.sweep().await?;
                    // Whoever asked may have gone.
                    let _ = done.send(());
                }
                _ = sweep.tick() => self.sweep().await?,
            }
        }
    }

    /// Where to go on: at the kept position, if that is of this journal.
    async fn start(&self) -> Result<u64, Error> {
        let Some((cursor, id)) = self.store.ask(|store| store.position()).await? else { return Ok(0) };
        let newest = *self.head.borrow();
        let (there, _) = self.reader.skim(cursor.saturating_sub(1), 1).await?;
        // Or deleted since.
        let same = there.first().is_none_or(|stored| stored.seq != cursor || stored.event.id == id);
        if cursor <= newest && same {
            return Ok(cursor);
        }
        tracing::info!("the conversations are of another journal: they are made anew");
        self.store.begin_anew().await?;
        Ok(0)
    }

    /// Takes in what stands behind the cursor, up to `newest` at least if nothing does; where the cursor is then.
    async fn page(&self, cursor: u64, newest: u64) -> Result<u64, Error> {
        let began = Instant::now();
        let (events, last) = self.reader.skim(cursor, PAGE).await?;
        let Some(last) = last else { return Ok(newest) };
        let id = events.last().filter(|stored| stored.seq == last).map_or(Uuid::nil(), |stored| stored.event.id);
        self.store.ask(move |store| store.take(&events, last, id)).await?;
        let work = began.elapsed();
        let quiet = *self.head.borrow() == newest;
        sleep(if quiet { work } else { (work * REST).max(GATHER) }).await;
        Ok(last)
    }

    /// Forgets what the journal has deleted, in steps.
    async fn sweep(&self) -> Result<(), Error> {
        let mut after: Member = (i64::MIN, 0);
        loop {
            let began = Instant::now();
            let members = self.store.ask(move |store| store.members(after, PAGE)).await?;
            let Some(last) = members.last() else { break };
            after = *last;
            let there = self.reader.stored(members.iter().map(|(_, seq)| *seq).collect()).await?;
            let gone: Vec<Member> = members.into_iter().filter(|(_, seq)| !there.contains(seq)).collect();
            if !gone.is_empty() {
                self.store.ask(move |store| store.forget(&gone)).await?;
            }
            sleep(began.elapsed()).await;
        }
        Ok(self.store.ask(|store| store.fold()).await?)
    }
}
