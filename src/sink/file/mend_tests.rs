#![allow(clippy::unwrap_used)]
use std::io::Cursor;

use proptest::prelude::*;

use super::*;

fn sound(bytes: &[u8]) -> usize {
    usize::try_from(sound_len(&mut Cursor::new(bytes), bytes.len() as u64).unwrap()).unwrap()
}

#[test]
fn a_whole_file_is_left_as_it_is() {
    for whole in ["", "{}\n", "{\"a\":1}\n{\"b\":2}\n"] {
        assert_eq!(sound(whole.as_bytes()), whole.len());
    }
}

#[test]
fn a_torn_last_line_is_cut_wherever_it_is_torn() {
    let whole = b"{\"a\":1}\n{\"b\":2}\n";
    for len in 0..whole.len() {
        assert_eq!(sound(&whole[..len]), if len < 8 { 0 } else { 8 }, "{len} bytes left");
    }
}

#[test]
fn a_torn_line_longer_than_what_is_read_at_once_is_cut_as_a_whole() {
    for torn in [CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
        let file = [b"{}\n".as_slice(), b"{\"", &vec![b'x'; torn]].concat();
        assert_eq!(sound(&file), 3);
        assert_eq!(sound(&file[3..]), 0);
    }
}

#[test]
fn zeros_in_place_of_data_are_cut_with_or_without_line_breaks_among_them() {
    for tail in ["\0\0\0", "\0\0\n", "{\"a\0\n", "\0\n\0\n{\"b\"", "{\"a\":\0\0\0\0"] {
        let file = format!("{{\"a\":1}}\n{tail}");
        assert_eq!(sound(file.as_bytes()), 8, "{tail:?}");
    }
    assert_eq!(sound(&[0; 10_000]), 0);
}

#[test]
fn a_file_that_is_no_archive_is_not_touched() {
    for other in ["SQLite format 3\0", "hello", "\n", "[1]\n"] {
        let result = sound_len(&mut Cursor::new(other.as_bytes()), other.len() as u64);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData, "{other:?}");
    }
}

proptest! {
    #[test]
    fn of_any_bytes_the_sound_part_is_a_prefix_of_whole_lines_and_mending_twice_is_mending_once(
        tail in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(0), any::<u8>()], 0..300),
    ) {
        let file = [b"{}\n".as_slice(), &tail].concat();
        let len = sound(&file);
        prop_assert!((3..=file.len()).contains(&len));
        prop_assert_eq!(file[len - 1], b'\n');
        prop_assert_eq!(sound(&file[..len]), len);
        // Nothing is cut but torn or zeroed lines.
        prop_assert!(file[len..].split_inclusive(|byte| *byte == b'\n').all(|l| l.contains(&0) || l.last() != Some(&b'\n')));
    }
}
