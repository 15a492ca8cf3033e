//! Opens the journal and starts its threads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::checkpoint::Checkpointer;
use super::files;
use super::queue::Queue;
use super::schema;
use super::tail::Tail;
use super::writer::{Answers, Writer};
use super::{Shared, Store};
use crate::config;
use crate::journal::{Ended, OpenError};
use crate::metrics::Metrics;

/// How long the end of the threads may take after their work is done.
const JOIN_PATIENCE: Duration = Duration::from_secs(5);

/// Groups that are committed but not yet answered; past it the writer waits for the runtime.
const WAITING_GROUPS: usize = 64;

/// The journal's threads.
#[derive(Debug)]
pub struct Running {
    ended: oneshot::Receiver<Result<(), Ended>>,
    answers: JoinHandle<()>,
}

impl Running {
    /// Waits for the writer's end.
    pub(in crate::journal) async fn ended(&mut self) -> Result<(), Ended> {
        let ended = (&mut self.ended).await.map_err(|_| Ended::Panicked)?;
        // The last answers are handed out before the process goes on to end.
        let _ = tokio::time::timeout(JOIN_PATIENCE, &mut self.answers).await;
        ended
    }
}

/// Opens the file and starts the writer.
pub(super) fn open(config: &config::Journal, metrics: Arc<Metrics>) -> Result<(Store, Running), OpenError> {
    let path = config.path.clone();
    let (connection, lock) = schema::open(&path)?;
    let sqlite = |error| files::explain(&path, error);
    let next_seq: i64 = connection
        .query_row(
            "SELECT max((SELECT value FROM meta WHERE key = 'next_seq'),
                        1 + (SELECT coalesce(max(seq), 0) FROM events),
                        1 + (SELECT coalesce(max(cursor), 0) FROM sinks))",
            [],
            |row| row.get(0),
        )
        .map_err(sqlite)?;
    let next_seq = next_seq.unsigned_abs();
    let page_bytes: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0)).map_err(sqlite)?;

    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .map(Arc::new)
        .map_err(|error| OpenError::Io { path: path.clone(), error })?;
    let queue = Arc::new(Queue::default());
    let shared = Arc::new(Shared::default());
    let tail = Arc::new(Tail::default());
    let (head_sender, head) = watch::channel(next_seq - 1);
    let (answer_sender, answers) = mpsc::channel(WAITING_GROUPS);
    let answers = tokio::spawn(hand_out(answers, head_sender));
    let (checkpointer, checkpoint_thread) = Checkpointer::start(path.clone(), file.clone(), page_bytes.unsigned_abs())?;
    let writer = Writer {
        connection,
        lock,
        path: path.clone(),
        max_bytes: config.max_bytes,
        queue: queue.clone(),
        shared: shared.clone(),
        tail: tail.clone(),
        answers: answer_sender,
        checkpointer,
        metrics,
        next_seq,
        full: false,
        warned: false,
        since_look: (0, 0),
    };
    shared.writable.store(true, Ordering::Relaxed);
    let (ended_sender, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("finhook-journal".to_owned())
        .spawn(move || {
            let result = writer.run();
            // The writer dropped its side of the channel: the copying thread is about to end.
            let _ = checkpoint_thread.join();
            let _ = ended_sender.send(result);
        })
        .map_err(|error| OpenError::Io { path: path.clone(), error })?;
    Ok((Store { queue, shared, tail, head, path: Arc::new(path), file }, Running { ended, answers }))
}

/// Hands out the answers of each group from inside the runtime, where waking a request costs no system call.
async fn hand_out(mut groups: mpsc::Receiver<Answers>, head: watch::Sender<u64>) {
    while let Some(answers) = groups.recv().await {
        for (reply, answer) in answers.appends {
            // Gone when the client hung up; the event is stored all the same.
            let _ = reply.send(Ok(answer));
        }
        head.send_if_modified(|newest| std::mem::replace(newest, answers.head) != answers.head);
    }
}
