//! Time, as the whole program tells, reads and shows it.
//!
//! Moments are unix milliseconds, in text RFC 3339 in UTC, always with milliseconds: so texts sort as the moments do.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The last millisecond of the year 9999: RFC 3339 has no later years.
const LAST_MS: i64 = 253_402_300_799_999;

/// Now, in unix milliseconds.
#[must_use]
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A moment as RFC 3339; none before 1970 or after 9999.
#[must_use]
pub fn rfc3339(unix_ms: i64) -> Option<String> {
    let unix_ms = u64::try_from(unix_ms.min(LAST_MS + 1)).ok().filter(|ms| *ms <= LAST_MS.unsigned_abs())?;
    Some(humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string())
}

/// The moment that RFC 3339 text means, in unix milliseconds, rounded down.
///
/// The grammar is the RFC's own, with `T` and `Z` in either case; of the other separators that its section 5.6 leaves to
/// applications none is taken.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    // The time crate takes any byte as the separator.
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't')) {
        return None;
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

/// The moment that a person means, in unix milliseconds: RFC 3339, or how long before `now_ms`, such as `15m`.
#[must_use]
pub fn parse_or_ago(text: &str, now_ms: i64) -> Option<i64> {
    parse(text).or_else(|| {
        let ago = humantime::parse_duration(text).ok()?;
        Some(now_ms.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)))
    })
}

/// A length of time in one unit, the largest that it is a whole number of: "90d", "75s", "1500ms".
#[must_use]
pub fn length(value: Duration) -> String {
    if !value.subsec_nanos().is_multiple_of(1_000_000) {
        return humantime::format_duration(value).to_string();
    }
    let ms = value.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    let whole = units.iter().find(|(unit, _)| ms.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) if ms > 0 => format!("{}{name}", ms / unit),
        _ => "0s".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_moment_always_has_its_milliseconds() {
        assert_eq!(rfc3339(1_737_712_800_000).unwrap(), "2025-01-24T10:00:00.000Z");
        assert_eq!(rfc3339(1_737_712_800_980).unwrap(), "2025-01-24T10:00:00.980Z");
        assert_eq!(rfc3339(LAST_MS).unwrap(), "9999-12-31T23:59:59.999Z");
        for none in [-1, LAST_MS + 1, i64::MIN, i64::MAX] {
            assert_eq!(rfc3339(none), None);
        }
    }

    #[test]
    fn times_are_rfc_3339_and_nothing_else() {
        for (text, ms) in [
            ("2025-01-24T10:00:00.123Z", 1_737_712_800_123),
            ("2025-01-24T10:00:00Z", 1_737_712_800_000),
            ("2025-01-24t10:00:00z", 1_737_712_800_000),
            ("2025-01-24T10:00:00.1234567890123Z", 1_737_712_800_123),
            ("2025-01-24T15:30:00.123+05:30", 1_737_712_800_123),
            ("2025-01-24T10:00:00-00:00", 1_737_712_800_000),
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.9999Z", -1),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000),
            // A leap second is taken for the last millisecond before it ends.
            ("2016-12-31T23:59:60Z", 1_483_228_799_999),
        ] {
            assert_eq!(parse(text), Some(ms), "{text}");
        }
        for text in [
            "",
            "2025-01-24",
            "2025-01-24 10:00:00Z",
            "2025-01-24_10:00:00Z",
            "2025-01-24T10:00:00",
            "2025-01-24T10:00Z",
            "2025-01-24T10:00:00.Z",
            "2025-01-24T10:00:00,1Z",
            "2025-1-24T10:00:00Z",
            "2025-02-30T10:00:00Z",
            "2025-01-24T24:00:00Z",
            "2025-01-24T10:60:00Z",
            "2025-01-24T10:00:61Z",
            "2025-01-24T12:00:60Z",
            "2025-01-24T10:00:00+24:00",
            "2025-01-24T10:00:00+01:60",
            "2025-01-24T10:00:00+0100",
            "2025-01-24T10:00:00+01",
            "2025-01-24T10:00:00Z ",
            " 2025-01-24T10:00:00Z",
            "+2025-01-24T10:00:00Z",
            "-2025-01-24T10:00:00Z",
            "12025-01-24T10:00:00Z",
            "2025-01-24T10:00:00ZZ",
            "20250124T100000Z",
            "1737712800123",
            "2025-01-24\u{e9}10:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn people_say_when_or_how_long_ago() {
        assert_eq!(parse_or_ago("1970-01-01T00:00:01.5Z", 0), Some(1500));
        assert_eq!(parse_or_ago("15m", 3_600_000), Some(2_700_000));
        for unclear in ["yesterday", "", "12", "2025-01-24 10:00:00Z"] {
            assert_eq!(parse_or_ago(unclear, 0), None, "{unclear}");
        }
    }

    #[test]
    fn a_length_of_time_is_shown_in_its_largest_whole_unit() {
        for (ms, shown) in [(0, "0s"), (1, "1ms"), (1500, "1500ms"), (75_000, "75s"), (7_776_000_000, "90d")] {
            assert_eq!(length(Duration::from_millis(ms)), shown);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_time_reader_panic(text in "[0-9TZtz:+.\\-é ]{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn a_moment_reads_back_as_what_it_was_and_sorts_as_text(one in 0..=LAST_MS, other in 0..=LAST_MS) {
            let (a, b) = (rfc3339(one).unwrap(), rfc3339(other).unwrap());
            prop_assert_eq!((parse(&a), parse(&b)), (Some(one), Some(other)));
            prop_assert_eq!(one.cmp(&other), a.cmp(&b));
        }

        #[test]
        fn a_length_of_time_reads_back_as_what_it_was(nanos in 0..3 * 10_u64.pow(18)) {
            // Up to 95 years: by the nanosecond, the millisecond and the second.
            let millis = nanos / 1_000_000;
            let exact = [Duration::from_nanos(nanos), Duration::from_millis(millis), Duration::from_secs(millis / 1000)];
            for value in exact {
                prop_assert_eq!(humantime::parse_duration(&length(value)).unwrap(), value);
            }
        }
    }
}
