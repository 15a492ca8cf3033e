//! One event as a line for people: `finhook tail`, and the `log` sink on a terminal.

use super::{Paint, cut, printable};
use crate::fin;

/// The fewest columns that are worth showing any of a text in.
const LEAST_TEXT: usize = 8;

/// What is shown of an event. Everything may come from strangers.
#[derive(Debug, Default)]
pub(crate) struct EventLine<'a> {
    /// When it was received: RFC 3339, in UTC.
    pub(crate) received: &'a str,
    /// The endpoint's name.
    pub(crate) endpoint: &'a str,
    /// `event_name`.
    pub(crate) event: &'a str,
    /// `status`.
    pub(crate) status: Option<&'a str>,
    /// `conversation_id`.
    pub(crate) conversation: &'a str,
    /// What it says, or why it is.
    pub(crate) text: &'a str,
}

impl EventLine<'_> {
    /// The day that it was received on.
    pub(crate) fn day(&self) -> &str {
        self.received.get(..10).unwrap_or_default()
    }

    /// Time, endpoint, name, status, conversation, and as much of the text as fits in `width` columns.
    pub(crate) fn shown(&self, width: usize, paint: Paint) -> String {
        let colour = match self.event {
            fin::REPLIED => "32",
            fin::STATUS_UPDATED => "33",
            fin::CSAT_REQUESTED => "35",
            fin::REPLY_CHUNK => "2",
            _ => "36",
        };
        let time = printable(self.received.get(11..23).unwrap_or_default());
        let endpoint = printable(self.endpoint);
        let name = format!("{:<18}", printable(self.event));
        let status = printable(self.status.unwrap_or("-"));
        // An id can be long; a third of the line tells it from others.
        let conversation = cut(&printable(self.conversation), (width / 3).max(LEAST_TEXT));
        let taken = [&time, &endpoint, &name, &status, &conversation].map(|part| part.chars().count() + 1).iter().sum();
        let room = width.saturating_sub(taken);
        let text = printable(self.text);
        // Of a reply that is being written the end is what is new.
        let skipped = if self.event == fin::REPLY_CHUNK { text.chars().count().saturating_sub(room) } else { 0 };
        let text: String = text.chars().skip(skipped).collect();
        let text = if room < LEAST_TEXT { String::new() } else { cut(&text, room) };
        let shown = [
            paint.dim(&time),
            paint.dim(&endpoint),
            paint.in_colour(&name, colour),
            paint.bold(&status),
            conversation,
            text,
        ];
        shown.join(" ").trim_end().to_owned()
    }
}

/// Says the day when it changes, as lines show the time only.
#[derive(Debug, Default)]
pub(crate) struct Days(String);

impl Days {
    /// A line to print before this event's, if its day is another than the last one's.
    pub(crate) fn changed(&mut self, event: &EventLine<'_>, paint: Paint) -> Option<String> {
        if event.day() == self.0 || event.day().is_empty() {
            return None;
        }
        event.day().clone_into(&mut self.0);
        Some(paint.dim(&format!("{} UTC", printable(&self.0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Paint = Paint { colours: false };

    fn line<'a>(event: &'a str, text: &'a str) -> EventLine<'a> {
        EventLine {
            received: "2026-01-24T10:00:00.120Z",
            endpoint: "fin",
            event,
            status: Some("thinking"),
            conversation: "123456",
            text,
        }
    }

    #[test]
    fn a_line_fits_the_width() {
        let long = "word ".repeat(100);
        for width in [40, 60, 80, 200] {
            let shown = line(fin::REPLIED, &long).shown(width, PLAIN);
            assert!(shown.chars().count() <= width.max(54), "{width}: {shown}");
            assert!(shown.starts_with("10:00:00.120 fin fin_replied        thinking 123456"), "{shown}");
        }
        assert!(line(fin::REPLIED, &long).shown(80, PLAIN).ends_with('…'));
        let growing = format!("{long}the end");
        assert!(line(fin::REPLY_CHUNK, &growing).shown(80, PLAIN).ends_with("the end"));
        let id = EventLine { conversation: &long, ..line(fin::REPLIED, "hello") };
        assert!(id.shown(80, PLAIN).contains("… hello"), "a long id leaves room");
    }

    #[test]
    fn the_day_is_said_once() {
        let mut days = Days::default();
        assert_eq!(days.changed(&line("x", ""), PLAIN).as_deref(), Some("2026-01-24 UTC"));
        assert_eq!(days.changed(&line("x", ""), PLAIN), None);
        let next = EventLine { received: "2026-01-25T00:00:00.000Z", ..line("x", "") };
        assert_eq!(days.changed(&next, PLAIN).as_deref(), Some("2026-01-25 UTC"));
    }
}
