//! The small parts that pages are made of.

use maud::{Markup, PreEscaped, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::form_urlencoded;

use super::visit::Visit;
use crate::journal::DeliveryState;

/// What is encoded in a part of a path: all that could mean something there.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// The sign of the project, beside its name.
pub(super) fn logo() -> Markup {
    PreEscaped(include_str!("icon.svg").replace("<svg ", "<svg aria-hidden=\"true\" width=\"20\" height=\"20\" "))
}

/// What makes a form this session's.
pub(super) fn csrf(visit: &Visit) -> Markup {
    html! { input type="hidden" name="csrf" value=(visit.csrf); }
}

/// A path with a stranger's text as its last part.
pub(super) fn path(folder: &str, last: &str) -> String {
    format!("{folder}/{}", utf8_percent_encode(last, PART))
}

/// A path with a query; what is not given is left out.
pub(super) fn link<'a>(path: &str, query: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> String {
    let mut serializer = form_urlencoded::Serializer::new(String::new());
    for (name, value) in query {
        if let Some(value) = value {
            serializer.append_pair(name, value);
        }
    }
    let query = serializer.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// A moment in RFC 3339: day and time, with the rest for whoever asks. All of them are UTC.
pub(super) fn time(at: Option<&str>) -> Markup {
    let Some(at) = at else { return html! { span.none { "–" } } };
    let (day, time) = at.split_once('T').unwrap_or(("", at));
    let time = time.split(['.', 'Z']).next().unwrap_or(time);
    html! { time datetime=(at) title=(at) { span.day { (day) } " " (time) } }
}

/// Somebody else's text, on one line, which can't turn what stands beside it around.
pub(super) fn text(text: Option<&str>) -> Markup {
    match text {
        Some(text) if !text.is_empty() => html! { bdi { (text) } },
        _ => html! { span.none { "–" } },
    }
}

/// The same of an identifier.
pub(super) fn id(text: &str) -> Markup {
    html! { bdi.id { (text) } }
}

/// A state: a word in a colour that helps those who see it.
pub(super) fn badge(state: &str) -> Markup {
    let tone = match state {
        "delivered" | "running" | "complete" | "resolved" => "good",
        "dead" | "failing" | "quarantined" | "escalated" => "bad",
        "retrying" | "waiting" | "paused" | "awaiting_user_reply" | "stale" => "warn",
        "pending" | "thinking" | "replying" => "busy",
        _ => "calm",
    };
    html! { span class={ "badge " (tone) } { bdi { (state.replace('_', " ")) } } }
}

/// The word that the API has for it.
pub(super) fn word(state: impl serde::Serialize) -> String {
    serde_json::to_value(state).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// How a delivery stands, in one sign, and in words for those who don't see it.
pub(super) fn mark(sink: &str, state: DeliveryState, error: Option<&str>) -> Markup {
    let (sign, tone) = match state {
        DeliveryState::Delivered => ("✓", "good"),
        DeliveryState::Dead => ("✕", "bad"),
        DeliveryState::Retrying => ("↻", "warn"),
        DeliveryState::Waiting | DeliveryState::Pending => ("…", "busy"),
        DeliveryState::Skipped => return html! {},
    };
    html! {
        span class={ "mark " (tone) } {
            span aria-hidden="true" { (sign) } " " (sink)
            @if state != DeliveryState::Delivered { ": " (word(state)) }
            @if let Some(error) = error { ", " bdi { (error) } }
        }
    }
}

/// A number for people: `12,345`.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size for people.
pub(super) fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
    let bytes_f = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes_f / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes_f / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes_f / 1_073_741_824.0),
    }
}

/// A length of time for people, in its two largest units.
pub(super) fn length(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an age")]
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min", whole / 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// What a change came to, said on the page that it leads back to: a word of ours from the URL, and a number.
pub(super) fn done(query: Option<&str>) -> Markup {
    let pairs: Vec<_> = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect();
    let get = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| &**value);
    let Some(done) = get("done") else { return html! {} };
    let count = get("n").and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    let events = if count == 1 { "1 event".to_owned() } else { format!("{} events", number(count)) };
    let said = match done {
        "pause" => "The sink is paused.".to_owned(),
        "resume" => "The sink is resumed.".to_owned(),
        "retry-dead" => format!("{events} will be tried again."),
        "replay" => format!("{events} will be sent again."),
        "purge" => format!("{events} purged. Files of file sinks, and what was delivered elsewhere, are not covered."),
        _ => return html! {},
    };
    html! { p.done role="status" { (said) } }
}

/// A field of a filter.
pub(super) fn field(name: &str, label: &str, value: Option<&str>, hint: &str) -> Markup {
    let id = format!("filter-{name}");
    html! {
        div.field {
            label for=(id) { (label) }
            input id=(id) type="text" name=(name) value=[value] placeholder=(hint) autocomplete="off" spellcheck="false" autocapitalize="none";
        }
    }
}

/// A choice of a filter, with nothing chosen as its first.
pub(super) fn choice<'a>(
    name: &str,
    label: &str,
    chosen: Option<&str>,
    choices: impl IntoIterator<Item = &'a str>,
) -> Markup {
    let id = format!("filter-{name}");
    html! {
        div.field {
            label for=(id) { (label) }
            select id=(id) name=(name) {
                option value="" { "any" }
                @for one in choices { option value=(one) selected[chosen == Some(one)] { (one.replace('_', " ")) } }
            }
        }
    }
}

/// Links to the next page and back to the first.
pub(super) fn pages(first: Option<String>, next: Option<String>, empty: bool) -> Markup {
    html! {
        nav.pages aria-label="Pages" {
            @if let Some(first) = first { a href=(first) { "← Newest" } }
            @if let Some(next) = next {
                a href=(next) rel="next" { @if empty { "Nothing in this part: look further back →" } @else { "Older →" } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_read_is_short_and_right() {
        assert_eq!([number(0), number(999), number(1000), number(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([size(1023), size(1536), size(5 << 20)], ["1023 B", "1.5 KiB", "5.0 MiB"]);
        assert_eq!(
            [length(0.4), length(75.0), length(3700.0), length(90_000.0)],
            ["0 s", "1 min", "1 h 1 min", "1 d 1 h"]
        );
        let shown = time(Some("2026-01-31T12:00:01.250Z")).into_string();
        assert!(shown.contains(">2026-01-31</span> 12:00:01<") && shown.contains("title=\"2026-01-31T12:00:01.250Z\""));
    }

    #[test]
    fn strangers_texts_are_escaped_wherever_they_are_put() {
        let evil = "\"><script>alert(1)</script>&'";
        for shown in [text(Some(evil)), id(evil), badge(evil), time(Some(evil)), field("a", "b", Some(evil), "")] {
            let shown = shown.into_string();
            assert!(!shown.contains("<script") && !shown.contains("\">alert"), "{shown}");
        }
        assert_eq!(path("/events", "a/b?c"), "/events/a%2Fb%3Fc");
        assert_eq!(link("/events", [("user", Some("a&b=c")), ("sink", None)]), "/events?user=a%26b%3Dc");
    }

    #[test]
    fn what_a_url_says_was_done_is_one_of_our_own_sentences() {
        assert!(done(Some("done=purge&n=1200")).into_string().contains("1,200 events purged"));
        for none in [None, Some("done=<b>Your account is locked</b>"), Some("n=3")] {
            assert_eq!(done(none).into_string(), "");
        }
    }
}
