//! Sizes as people write them: `20GB`, `20GiB`, `512KB`, or bytes.

/// By the decimal and the binary units' names, largest first.
const UNITS: [(&str, u64); 11] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("PB", 1_000_000_000_000_000),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

/// The bytes that are meant: a whole number, and a unit in either case; without a unit, bytes.
pub(super) fn parse(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let factor = match UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
        Some((_, factor)) => *factor,
        None if unit.is_empty() => 1,
        None => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A size in the first unit that it is a whole number of.
pub(super) fn shown(bytes: u64) -> String {
    match UNITS.iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) if *factor > 1 => format!("{}{unit}", bytes / factor),
        _ => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_size_is_bytes_or_a_whole_number_with_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("7B", 7),
            ("512KB", 512_000),
            ("512kb", 512_000),
            ("20GB", 20_000_000_000),
            ("20 GiB", 20 << 30),
            ("3PiB", 3 << 50),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in ["", "GB", "20G", "1.5GB", "-1", "-1KB", "20GBs", "20 G B", " 5", "99999999999PB", "५KB", "0x5"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_size_is_shown_in_a_whole_unit() {
        for (bytes, text) in [(0, "0"), (1, "1"), (1 << 30, "1GiB"), (512_000, "500KiB"), (20_000_000, "20MB")] {
            assert_eq!(shown(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn a_size_reads_back_as_what_it_was(number in 0_u64..1 << 20, unit in 0_usize..UNITS.len()) {
            let bytes = number.saturating_mul(UNITS[unit].1);
            prop_assert_eq!(parse(&shown(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_makes_the_size_reader_panic(text in "\\PC{0,20}|[0-9]{0,25}[KMGi]{0,3}B?") {
            let _ = parse(&text);
        }
    }
}
