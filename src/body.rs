//! Reads a body of a request or an answer whole, and no more of it than is allowed.

use std::pin::{Pin, pin};

use bytes::Bytes;
use hyper::body::Body;

/// Room that is made for a body before any of it has come: a declared length is only a promise.
const FIRST_RESERVE: usize = 64 * 1024;

/// Why a body could not be read whole.
#[derive(Debug, thiserror::Error)]
pub enum BodyError<E> {
    /// More bytes than were allowed.
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
    /// It broke off or is malformed.
    #[error(transparent)]
    Broken(E),
}

/// Reads a whole body of at most `most` bytes, into memory of its own: exactly as much as it needs.
///
/// # Errors
/// When it is larger, at the byte that shows it, or can't be read.
pub async fn read<B: Body<Data = Bytes>>(body: B, most: usize) -> Result<Bytes, BodyError<B::Error>> {
    let mut body = pin!(body);
    let declared = body.size_hint().exact().map_or(0, |length| usize::try_from(length).unwrap_or(most));
    let mut whole: Vec<u8> = Vec::new();
    while !body.is_end_stream() {
        let Some(frame) = std::future::poll_fn(|cx| Pin::as_mut(&mut body).poll_frame(cx)).await else { break };
        let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else { continue };
        let length = whole.len() + data.len();
        if length > most {
            return Err(BodyError::TooLarge(most));
        }
        if length == declared && whole.is_empty() {
            // Copied, so that a stored event keeps no read buffer alive and the connection can go on using it.
            return Ok(Bytes::copy_from_slice(&data));
        }
        if whole.is_empty() {
            whole.reserve_exact(declared.min(FIRST_RESERVE).max(data.len()));
        } else if length > whole.capacity() && declared > length {
            whole.reserve_exact(declared - whole.len());
        }
        whole.extend_from_slice(&data);
    }
    // Of its own size: it is kept until it is stored, and counted by its length.
    whole.shrink_to_fit();
    Ok(Bytes::from(whole))
}
