//! Just enough HTTP/1.1 to know where a message ends. Both sides are ours or well known, so only `Content-Length` is
//! understood, and anything else is an error rather than a guess.

/// Recognises messages that look like the last one without searching through them again.
#[derive(Debug, Default, Clone)]
pub(crate) struct Framing {
    head: usize,
    length_at: usize,
    length_text: Vec<u8>,
    body: usize,
}

/// A complete message at the beginning of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message {
    /// Bytes up to and including the empty line.
    pub(crate) head: usize,
    /// Bytes after it.
    pub(crate) body: usize,
}

impl Framing {
    /// The complete message at the beginning of `bytes`, `None` if it is not all there yet.
    ///
    /// # Errors
    /// It has no `Content-Length`.
    pub(crate) fn message(&mut self, bytes: &[u8]) -> super::Result<Option<Message>> {
        if !self.looks_the_same(bytes) {
            let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                return Ok(None);
            };
            let head = head + 4;
            let Some((at, text)) = content_length(&bytes[..head]) else {
                return Err(format!("no Content-Length in {:?}", String::from_utf8_lossy(&bytes[..head])).into());
            };
            self.body = std::str::from_utf8(text)?.parse()?;
            self.length_text = text.to_vec();
            self.length_at = at;
            self.head = head;
        }
        let complete = bytes.len() >= self.head + self.body;
        Ok(complete.then_some(Message { head: self.head, body: self.body }))
    }

    fn looks_the_same(&self, bytes: &[u8]) -> bool {
        // The name and the line break around the number are compared too, so that nothing else is taken for it.
        self.head > 0
            && bytes.len() >= self.head
            && &bytes[self.head - 4..self.head] == b"\r\n\r\n"
            && bytes[self.length_at..].starts_with(&self.length_text)
            && bytes[self.length_at + self.length_text.len()] == b'\r'
            && ends_with_ignoring_case(&bytes[..self.length_at], b"\r\ncontent-length: ")
    }
}

fn ends_with_ignoring_case(bytes: &[u8], end: &[u8]) -> bool {
    bytes.len() >= end.len() && bytes[bytes.len() - end.len()..].eq_ignore_ascii_case(end)
}

/// Place and text of the header's value.
fn content_length(head: &[u8]) -> Option<(usize, &[u8])> {
    const NAME: &[u8] = b"\r\ncontent-length:";
    let at = head.windows(NAME.len()).position(|window| window.eq_ignore_ascii_case(NAME))? + NAME.len();
    let at = at + head[at..].iter().position(|byte| *byte != b' ')?;
    let end = at + head[at..].iter().position(|byte| *byte == b'\r')?;
    Some((at, &head[at..end]))
}

/// The status of a response.
pub(crate) fn status(head: &[u8]) -> u16 {
    head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|text| text.parse().ok()).unwrap_or(0)
}
