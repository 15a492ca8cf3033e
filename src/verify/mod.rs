//! The proof that bytes are authentic.

use bytes::Bytes;

/// Bytes that were signed with a configured secret. Only this module can make one.
#[derive(Debug, Clone)]
pub struct Verified {
    body: Bytes,
}

impl Verified {
    /// The authentic bytes.
    pub fn into_body(self) -> Bytes {
        self.body
    }
}
