//! The chunks of replies that are being written: in memory only, the newest of each reply.
//!
//! A chunk's text is cumulative, so the newest one says everything that the earlier ones did, and a reader who missed
//! some has lost nothing. Once the reply itself has come, its chunks are dropped, and late ones are not let in.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::event::Event;
use crate::fin;

/// Replies whose newest chunk is kept, and as many whose end is remembered.
const MAX_REPLIES: usize = 1024;
/// Bytes of the chunks that are kept.
const MAX_BYTES: usize = 8 << 20;
/// How long the chunk of a reply that never comes is kept.
const FORGET: Duration = Duration::from_secs(300);

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// The newest of its reply.
    Fresh,
    /// The newest of its reply, though some before it are missing.
    Gap,
    /// Not newer than what is there, its reply has come, or it is not a chunk.
    Late,
}

/// The newest chunk of each reply that is being written.
#[derive(Debug, Default)]
pub struct Hub {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    replies: HashMap<Key, Newest>,
    /// The same in the order in which they came.
    versions: BTreeMap<u64, Key>,
    /// Of their bodies.
    bytes: usize,
    done: VecDeque<Key>,
}

/// Conversation and `stream_id`.
type Key = (Box<str>, Box<str>);

#[derive(Debug)]
struct Newest {
    version: u64,
    index: u64,
    at: Instant,
    event: Arc<Event>,
}

impl Hub {
    /// Shows a chunk to the readers.
    pub fn chunk(&self, event: Event) -> Chunk {
        let Ok(body) = serde_json::from_slice::<fin::Event>(&event.body) else { return Chunk::Late };
        let (Some(stream), Some(index)) = (body.stream_id, body.chunk_index) else { return Chunk::Late };
        let key: Key = (body.conversation_id.into(), stream.into());
        let mut state = self.state();
        if state.done.contains(&key) {
            return Chunk::Late;
        }
        let expected = match state.replies.get(&key) {
            Some(newest) if index <= newest.index => return Chunk::Late,
            Some(newest) => newest.index + 1,
            None => 0,
        };
        state.remove(&key);
        state.make_room(event.body.len());
        state.version += 1;
        let version = state.version;
        state.bytes += event.body.len();
        state.versions.insert(version, key.clone());
        state.replies.insert(key, Newest { version, index, at: Instant::now(), event: Arc::new(event) });
        drop(state);
        self.changed.send_replace(version);
        if index == expected { Chunk::Fresh } else { Chunk::Gap }
    }

    /// Notes that a reply has come: `event` is a stored `fin_replied`; anything else changes nothing. Without a
    /// `stream_id` it ends all that is being written in its conversation.
    pub fn replied(&self, event: &Event) {
        if event.fields.event_name.as_deref() != Some(fin::REPLIED) {
            return;
        }
        let Some(conversation) = event.fields.conversation_id.as_deref() else { return };
        let stream = serde_json::from_slice::<fin::Event>(&event.body).ok().and_then(|body| body.stream_id);
        let mut state = self.state();
        let ended: Vec<Key> = match stream {
            Some(stream) => vec![(conversation.into(), stream.into())],
            None => state.replies.keys().filter(|(known, _)| &**known == conversation).cloned().collect(),
        };
        for key in ended {
            state.remove(&key);
            if state.done.contains(&key) {
                continue;
            }
            if state.done.len() >= MAX_REPLIES {
                state.done.pop_front();
            }
            state.done.push_back(key);
        }
    }

    /// Wakes when there is a new chunk; its value is a version for [`Hub::next`].
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The oldest of the newest chunks that came after `version`, with its own version.
    pub(super) fn next(&self, version: u64) -> Option<(u64, Arc<Event>)> {
        let state = self.state();
        let (version, key) = state.versions.range(version + 1..).next()?;
        Some((*version, Arc::clone(&state.replies.get(key)?.event)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove(&mut self, key: &Key) {
        if let Some(newest) = self.replies.remove(key) {
            self.versions.remove(&newest.version);
            self.bytes -= newest.event.body.len();
        }
    }

    /// Makes room for one more chunk: replies that have not moved for longest go first, as those that never came have.
    fn make_room(&mut self, bytes: usize) {
        while let Some((_, oldest)) = self.versions.first_key_value() {
            let has_room = self.replies.len() < MAX_REPLIES && self.bytes + bytes <= MAX_BYTES;
            let is_old = self.replies.get(oldest).is_some_and(|newest| newest.at.elapsed() >= FORGET);
            if has_room && !is_old {
                return;
            }
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::verify::Verified;

    fn event(body: serde_json::Value) -> Event {
        let bytes = Bytes::from(body.to_string());
        Event::receive(Verified::from_subscription(bytes), "fin".into(), 0, i64::MAX, None, None)
    }

    fn chunk(conversation: &str, stream: &str, index: u64) -> Event {
        event(json!({"event_name": "fin_reply_chunk", "conversation_id": conversation, "stream_id": stream,
            "chunk_index": index, "chunk_text": "a".repeat(index as usize)}))
    }

    fn replied(conversation: &str, stream: Option<&str>) -> Event {
        event(json!({"event_name": "fin_replied", "conversation_id": conversation, "stream_id": stream}))
    }

    fn shown(hub: &Hub, since: u64) -> Vec<u64> {
        let mut version = since;
        let newer = std::iter::from_fn(|| {
            let (newer, event) = hub.next(version)?;
            version = newer;
            Some(serde_json::from_slice::<fin::Event>(&event.body).unwrap().chunk_index.unwrap())
        });
        newer.collect()
    }

    #[test]
    fn a_slow_reader_gets_the_newest_chunk_of_each_reply_only() {
        let hub = Hub::default();
        for index in 0..5 {
            assert_eq!(hub.chunk(chunk("c", "s", index)), Chunk::Fresh);
        }
        hub.chunk(chunk("c", "t", 0));
        assert_eq!(shown(&hub, 0), [4, 0]);
        let version = *hub.changed().borrow();
        assert!(shown(&hub, version).is_empty(), "nothing new");
        hub.chunk(chunk("c", "s", 5));
        assert_eq!(shown(&hub, version), [5]);
    }

    #[test]
    fn gaps_are_noticed_and_older_chunks_never_replace_newer_ones() {
        let hub = Hub::default();
        assert_eq!(hub.chunk(chunk("c", "s", 2)), Chunk::Gap, "begins in the middle");
        assert_eq!(hub.chunk(chunk("c", "s", 1)), Chunk::Late);
        assert_eq!(hub.chunk(chunk("c", "s", 2)), Chunk::Late);
        assert_eq!(hub.chunk(chunk("c", "s", 3)), Chunk::Fresh);
        assert_eq!(hub.chunk(chunk("c", "s", 5)), Chunk::Gap);
        assert_eq!(shown(&hub, 0), [5]);
    }

    #[test]
    fn the_reply_drops_its_chunks_and_keeps_late_ones_out() {
        let hub = Hub::default();
        hub.chunk(chunk("c", "s", 0));
        hub.chunk(chunk("c", "t", 0));
        hub.replied(&replied("c", Some("s")));
        assert_eq!(hub.chunk(chunk("c", "s", 1)), Chunk::Late);
        assert_eq!(hub.chunk(chunk("c", "t", 1)), Chunk::Fresh, "another reply goes on");
        hub.replied(&replied("d", None));
        assert_eq!(shown(&hub, 0), [1], "another conversation");
        hub.replied(&replied("c", None));
        assert!(shown(&hub, 0).is_empty(), "without a stream_id all of the conversation's");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let hub = Hub::default();
        for number in 0..3 * MAX_REPLIES {
            hub.chunk(chunk("c", &number.to_string(), 0));
            hub.replied(&replied("d", Some(&number.to_string())));
        }
        let state = hub.state();
        assert_eq!((state.replies.len(), state.done.len()), (MAX_REPLIES, MAX_REPLIES));
        assert_eq!(state.versions.len(), MAX_REPLIES);
        drop(state);
        for number in 0..20 {
            hub.chunk(event(
                json!({"event_name": "fin_reply_chunk", "conversation_id": "large", "stream_id": number.to_string(),
                "chunk_index": 0, "chunk_text": "a".repeat(1 << 20)}),
            ));
        }
        let state = hub.state();
        let bytes: usize = state.replies.values().map(|newest| newest.event.body.len()).sum();
        assert!(bytes <= MAX_BYTES && bytes == state.bytes && state.replies.len() >= 7, "{bytes}");
    }
}
