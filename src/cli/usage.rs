//! What is typed, read: wrong usage is found before anything is tried.

use url::Url;

use super::{Failure, WRONG_USAGE};
use crate::admin::{ConversationQuery, ListQuery, Selection};
use crate::clock;
use crate::live;
use crate::serve::Problem;

/// Longest and shortest times that make sense for a stand-in.
const SPEEDS: std::ops::RangeInclusive<f64> = 0.001..=10_000.0;

/// A place to talk to by HTTP; without a scheme: http.
pub(super) fn web_url(text: &str) -> Result<Url, String> {
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&text).map_err(|error| format!("{error}; use one such as http://127.0.0.1:9090"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("use a http or https URL such as http://127.0.0.1:9090".to_owned());
    }
    Ok(url)
}

/// How many times as fast as Fin.
pub(super) fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed| SPEEDS.contains(speed));
    speed.ok_or_else(|| format!("use a number between {} and {}", SPEEDS.start(), SPEEDS.end()))
}

/// What clap would have said, had it known.
pub(super) fn wrong(message: impl Into<String>) -> Failure {
    Failure { code: WRONG_USAGE, message: message.into() }
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|limit| *limit > 0).ok_or_else(|| "use a whole number above 0".to_owned())
}

pub(super) fn conversations(query: &ConversationQuery) -> Result<(), Failure> {
    query.check().map_err(told)
}

pub(super) fn list(query: &ListQuery) -> Result<(), Failure> {
    query.check().map_err(told)
}

pub(super) fn selection(selection: &Selection, to_purge: bool) -> Result<(), Failure> {
    selection.check(to_purge).map_err(told)
}

pub(super) fn event_id(id: &str) -> Result<String, String> {
    match uuid::Uuid::try_parse(id) {
        Ok(id) => Ok(id.to_string()),
        Err(_) => Err("an event's id is a UUID, as in the answer to its webhook".to_owned()),
    }
}

/// The filters of the live stream, as its query.
pub(super) fn live_query(query: &str) -> Result<(), Failure> {
    live::Filter::parse(query, clock::now_ms()).map(drop).map_err(|bad| wrong(bad.text()))
}

fn told(problem: Problem) -> Failure {
    wrong(problem.detail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_place_may_be_typed_without_its_scheme() {
        for (typed, meant) in [
            ("127.0.0.1:38480", "http://127.0.0.1:38480/"),
            ("localhost:9090/x", "http://localhost:9090/x"),
            ("https://a.example/", "https://a.example/"),
        ] {
            assert_eq!(web_url(typed).unwrap().as_str(), meant);
        }
        for wrong in ["ftp://a", "http://", "", "a b"] {
            assert!(web_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_speed_is_a_number_above_zero() {
        assert_eq!(speed("2.5"), Ok(2.5));
        for wrong in ["0", "-1", "NaN", "inf", "fast"] {
            assert!(speed(wrong).is_err(), "{wrong}");
        }
    }
}
