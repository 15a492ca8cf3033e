//! Finding the sound part of an archive after a crash.
//!
//! What a crash leaves behind the last synced line is a part of the lines that were being written, and after a power
//! cut perhaps zeros in place of data. So the last line is not sound if it has no line break at its end, or if it
//! holds a zero byte, which no line that was ever written does: JSON escapes it.

use std::io::{self, Read, Seek, SeekFrom};

const CHUNK: usize = 64 * 1024;

/// The length of the sound part: up to and with the last line break that ends a line without a zero byte.
///
/// # Errors
/// I/O, and `InvalidData` for a file that does not begin as an archive does: cutting someone else's file would be
/// worse than refusing it.
pub fn sound_len(file: &mut (impl Read + Seek), len: u64) -> io::Result<u64> {
    let mut chunk = Vec::new();
    read_at(file, 0, len.min(1), &mut chunk)?;
    if !matches!(chunk.first(), None | Some(b'{' | 0)) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it holds something that is not an event"));
    }
    let mut end = line_start(file, len)?.0;
    loop {
        // `end` stands behind a line break, or at 0.
        let (start, has_zero) = line_start(file, end.saturating_sub(1))?;
        if end == 0 || !has_zero {
            return Ok(end);
        }
        end = start;
    }
}

/// Where the line begins that `end` is in, and whether there is a zero byte between the two.
fn line_start(file: &mut (impl Read + Seek), end: u64) -> io::Result<(u64, bool)> {
    let mut chunk = Vec::new();
    let mut has_zero = false;
    let mut to = end;
    while to > 0 {
        let from = to.saturating_sub(CHUNK as u64);
        read_at(file, from, to - from, &mut chunk)?;
        let newline = chunk.iter().rposition(|byte| *byte == b'\n');
        let line = &chunk[newline.map_or(0, |at| at + 1)..];
        has_zero |= line.contains(&0);
        if newline.is_some() {
            return Ok((to - line.len() as u64, has_zero));
        }
        to = from;
    }
    Ok((0, has_zero))
}

fn read_at(file: &mut (impl Read + Seek), from: u64, len: u64, chunk: &mut Vec<u8>) -> io::Result<()> {
    chunk.clear();
    file.seek(SeekFrom::Start(from))?;
    file.take(len).read_to_end(chunk)?;
    if chunk.len() as u64 == len { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
#[path = "mend_tests.rs"]
mod tests;
