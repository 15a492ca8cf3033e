//! What is kept of an archive whose end a crash may have torn.
#![no_main]

use std::io::{Cursor, ErrorKind};

use finhook::sink::file::mend::sound_len;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // Lines longer than the chunks in which the file is read: every ~ stands for 40,000 bytes.
    let file: Vec<u8> =
        data.iter().flat_map(|byte| std::iter::repeat_n(*byte, if *byte == b'~' { 40_000 } else { 1 })).collect();
    match sound_len(&mut Cursor::new(&file), file.len() as u64) {
        Ok(len) => {
            assert_eq!(len as usize, expected(&file));
            // What is sound stays as it is.
            let sound = &file[..len as usize];
            assert_eq!(sound_len(&mut Cursor::new(sound), len).expect("a sound file"), len);
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert!(!matches!(file[0], b'{' | 0), "an archive was refused");
        }
    }
});

/// Up to the last line break of a line without a zero byte.
fn expected(file: &[u8]) -> usize {
    let mut sound = 0;
    let mut end = 0;
    for line in file.split_inclusive(|byte| *byte == b'\n') {
        end += line.len();
        if line.ends_with(b"\n") && !line.contains(&0) {
            sound = end;
        }
    }
    sound
}
