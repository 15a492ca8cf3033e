//! The lines of the stream, made once for all readers, within a bound in bytes.
//!
//! A reader that takes nothing keeps the lines that it was about to get. Those that stand at the same event share them, so it is
//! readers at different places that cost memory: [`MAX_BYTES`] all together. Who finds no room waits for it, holding nothing; the
//! listener cuts off whoever takes nothing for long, so there will be room. A reader that was cut off reads on from the journal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::event::Event;
use crate::sink::cloudevent;

/// Lines that readers have not taken yet, all together. One that is longer by itself counts as that much.
pub(super) const MAX_BYTES: usize = 16 << 20;
/// What a line may be longer than its event's body: the attributes, each within its own bound.
const OVERHEAD: usize = 16 << 10;
/// A unit of room, in bytes.
const UNIT: usize = 1 << 10;

/// What a line is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Of {
    /// A stored event, by its sequence number.
    Stored(u64),
    /// The same without its body.
    Masked(u64),
    /// A chunk, by its version in the hub.
    Chunk(u64),
}

/// Room for one line.
#[derive(Debug)]
pub(super) struct Room(OwnedSemaphorePermit);

/// A line was not made for want of room: so much is needed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoRoom(u32);

/// Lines that some reader has.
#[derive(Debug)]
pub(super) struct Lines {
    shared: Arc<Mutex<HashMap<Of, Weak<Line>>>>,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct Line {
    of: Of,
    text: Vec<u8>,
    _room: Room,
    among: Weak<Mutex<HashMap<Of, Weak<Line>>>>,
}

/// A reader's share of a line.
struct Share(Arc<Line>);

impl Default for Lines {
    fn default() -> Self {
        Self { shared: Arc::default(), room: Arc::new(Semaphore::new(MAX_BYTES / UNIT)) }
    }
}

impl Lines {
    /// The line of an event; made now unless another reader has it. `reserved`: room that was waited for.
    ///
    /// # Errors
    /// It would have to be made, and there is no room.
    pub(super) fn get(&self, of: Of, event: &Event, reserved: &mut Option<Room>) -> Result<Bytes, NoRoom> {
        // Nothing that runs under the lock can panic half way through a change.
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = shared.get(&of).and_then(Weak::upgrade) {
            return Ok(Bytes::from_owner(Share(line)));
        }
        let needed = units(event);
        let room = match reserved.take() {
            Some(room) if room.0.num_permits() >= needed as usize => room,
            _ => Room(Arc::clone(&self.room).try_acquire_many_owned(needed).map_err(|_| NoRoom(needed))?),
        };
        let line = Arc::new(Line { of, text: text(of, event), _room: room, among: Arc::downgrade(&self.shared) });
        shared.insert(of, Arc::downgrade(&line));
        Ok(Bytes::from_owner(Share(line)))
    }

    /// Waits for room. Whoever waits must hold no line: it might be the room that is waited for.
    pub(super) async fn reserve(&self, needed: NoRoom) -> Option<Room> {
        Arc::clone(&self.room).acquire_many_owned(needed.0).await.ok().map(Room)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(among) = self.among.upgrade() else { return };
        let mut among = among.lock().unwrap_or_else(PoisonError::into_inner);
        // Another reader may have made it anew meanwhile.
        if among.get(&self.of).is_some_and(|line| line.strong_count() == 0) {
            among.remove(&self.of);
        }
    }
}

impl AsRef<[u8]> for Share {
    fn as_ref(&self) -> &[u8] {
        &self.0.text
    }
}

fn units(event: &Event) -> u32 {
    let bytes = (event.body.len() + OVERHEAD).min(MAX_BYTES);
    u32::try_from(bytes / UNIT).unwrap_or(u32::MAX)
}

fn text(of: Of, event: &Event) -> Vec<u8> {
    let mut text = Vec::with_capacity(event.body.len() + 512);
    if let Of::Stored(seq) | Of::Masked(seq) = of {
        text.extend_from_slice(format!("id: {seq}\n").as_bytes());
    }
    text.extend_from_slice(b"data: ");
    match of {
        Of::Masked(_) => cloudevent::append_masked_json(&mut text, event),
        Of::Stored(_) | Of::Chunk(_) => cloudevent::append_json(&mut text, event),
    }
    text.extend_from_slice(b"\n\n");
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::verify::Verified;

    fn event(bytes: usize) -> Event {
        let body = serde_json::json!({ "event_name": "x", "text": "x".repeat(bytes) }).to_string();
        Event::receive(Verified::from_subscription(body.into()), "fin".into(), 0, i64::MAX, None, None)
    }

    #[test]
    fn readers_share_a_line_and_its_room_is_free_when_the_last_has_taken_it() {
        let (lines, event) = (Lines::default(), event(1 << 20));
        let all = lines.room.available_permits();
        let first = lines.get(Of::Stored(1), &event, &mut None).unwrap();
        let left = lines.room.available_permits();
        assert!(left < all);
        let second = lines.get(Of::Stored(1), &event, &mut None).unwrap();
        assert_eq!(first.as_ptr(), second.as_ptr(), "made once");
        assert_eq!(lines.room.available_permits(), left);
        assert_ne!(lines.get(Of::Chunk(1), &event, &mut None).unwrap().as_ptr(), first.as_ptr());
        drop(first);
        assert_eq!(lines.room.available_permits(), left, "one still has it");
        drop(second);
        assert_eq!((lines.room.available_permits(), lines.shared.lock().unwrap().len()), (all, 0));
    }

    #[tokio::test]
    async fn what_readers_have_not_taken_is_bounded_in_bytes() {
        let (lines, event) = (Lines::default(), event(1 << 20));
        let mut held = Vec::new();
        let full = (0..).find_map(|seq| match lines.get(Of::Stored(seq), &event, &mut None) {
            Ok(line) => {
                held.push(line);
                None
            }
            Err(full) => Some((seq, full)),
        });
        let (seq, full) = full.unwrap();
        assert!((MAX_BYTES >> 20) - 1 <= held.len() && held.iter().map(Bytes::len).sum::<usize>() <= MAX_BYTES);
        let mut waits = Box::pin(lines.reserve(full));
        assert!(futures_util::poll!(&mut waits).is_pending());
        held.pop();
        let mut reserved = waits.await;
        assert!(lines.get(Of::Stored(seq), &event, &mut reserved).is_ok());
        assert!(reserved.is_none());
    }

    #[test]
    fn a_line_longer_than_all_the_room_takes_all_of_it() {
        let lines = Lines::default();
        let long = lines.get(Of::Stored(1), &event(MAX_BYTES), &mut None).unwrap();
        assert!(lines.get(Of::Stored(2), &event(1), &mut None).is_err());
        drop(long);
        assert!(lines.get(Of::Stored(2), &event(1), &mut None).is_ok());
    }
}
