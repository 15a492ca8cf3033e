//! Text on its way to a terminal: what comes from elsewhere never goes there as it came.

mod line;

use std::fmt::Write as _;
use std::io::IsTerminal;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

pub(crate) use line::{Days, EventLine};

/// Plain text of HTML, as lines no wider than `width` columns.
pub(crate) fn html(html: &str, width: usize) -> Vec<String> {
    let config = html2text::config::plain_no_decorate().link_footnotes(true).allow_width_overflow();
    let text = config.string_from_read(html.as_bytes(), width.max(20)).unwrap_or_else(|_| html.to_owned());
    text.trim_matches('\n').lines().map(|line| printable(line.trim_end())).collect()
}

/// Plain text as lines no wider than `width` columns, broken at spaces where there are any.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(20);
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let (mut line, mut columns) = (String::new(), 0);
        for word in printable(paragraph).split_inclusive(' ') {
            let length = word.trim_end().width();
            if columns > 0 && columns + length > width {
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
                columns = 0;
            }
            for character in word.chars() {
                let wide = character.width().unwrap_or(0);
                if columns + wide > width && character != ' ' {
                    lines.push(std::mem::take(&mut line));
                    columns = 0;
                }
                line.push(character);
                columns += wide;
            }
        }
        lines.push(line.trim_end().to_owned());
    }
    lines
}

/// On one line, with everything replaced that would steer a terminal or reorder what is seen: control characters (and
/// so every escape sequence) and the invisible marks for writing direction.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if steers(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Control characters, invisible marks for writing direction, separators of lines.
fn steers(c: char) -> bool {
    c.is_control() && c != '\t'
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{2028}' | '\u{2029}')
}

/// JSON for a terminal: the same value, with escapes in place of what would steer it. (JSON itself escapes only what is below
/// U+0020.)
pub(crate) fn escaped_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        // Line breaks between the tokens stay.
        if steers(c) && c != '\n' {
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// `1 event`, `2 events`.
pub(crate) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// How wide the terminal is, or what is taken for that where it isn't known.
pub(crate) fn width() -> usize {
    const UNKNOWN: usize = 120;
    terminal_size::terminal_size().map_or(UNKNOWN, |(width, _)| width.0.into())
}

/// The first `columns` characters, with a mark when there are more.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    text.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
}

/// How something is shown on a terminal; nothing changes in a pipe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    colours: bool,
}

impl Paint {
    /// Colours if stdout is a terminal and nobody asked for none (`NO_COLOR`).
    pub(crate) fn for_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colours: std::io::stdout().is_terminal() && !unwanted }
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.in_colour(text, "2")
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.in_colour(text, "1")
    }

    /// `code` is that of SGR, e.g. 32 for green.
    pub(crate) fn in_colour(self, text: &str, code: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HOSTILE: &str = "a\x1b[2Jb\x1b]0;title\x07c\u{9b}31md\u{202e}e\rf\u{8}g\u{2028}h";

    #[test]
    fn nothing_that_steers_a_terminal_is_left() {
        for text in [printable(HOSTILE), html(HOSTILE, 80).concat(), wrap(HOSTILE, 80).concat()] {
            assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}' || c == '\u{2028}'), "{text:?}");
            assert!(text.contains('a') && text.contains('h'), "{text:?}");
        }
        // As references, which the HTML parser turns into the characters themselves.
        let lines = html("<p>x&#27;[2Jy &#x9b;31m z&#7;</p>", 80);
        assert!(!lines.concat().chars().any(char::is_control), "{lines:?}");
    }

    #[test]
    fn json_for_a_terminal_is_the_same_value_and_steers_nothing() {
        let json = serde_json::to_string(&serde_json::json!({ "a": HOSTILE, "é漢": "\u{200f}ok" })).unwrap();
        let escaped = escaped_json(&json);
        assert!(!escaped.chars().any(steers), "{escaped}");
        assert!(escaped.contains("é漢"), "letters stay");
        let value: serde_json::Value = serde_json::from_str(&escaped).unwrap();
        assert_eq!(value, serde_json::from_str::<serde_json::Value>(&json).unwrap());
    }

    #[test]
    fn html_becomes_readable_text() {
        let lines =
            html("<p>Hello <b>you</b> &amp; all</p><ol><li>One</li><li>Two</li></ol><script>alert(1)</script>", 80);
        let text = lines.join("\n");
        for part in ["Hello", "you", "& all", "1. One", "2. Two"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("alert") && !text.contains('<'), "{text}");
    }

    #[test]
    fn long_lines_are_broken_at_spaces_and_long_words_anywhere() {
        assert_eq!(wrap("aaaa bbbb cccc dddd eeee ffff", 20), ["aaaa bbbb cccc dddd", "eeee ffff"]);
        assert_eq!(wrap(&"x".repeat(45), 20), ["x".repeat(20), "x".repeat(20), "x".repeat(5)]);
        assert_eq!(wrap(&"漢".repeat(11), 20), ["漢".repeat(10), "漢".to_owned()], "two columns each");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abcd", 4), "abcd");
    }
}
