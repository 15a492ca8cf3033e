//! A key that a TOML file gives twice: its full name, and where it stands first. The parser tells only the second place.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// The key at `second`, by its full name if that can be told, and the line on which it stands first.
pub(super) fn find(text: &str, second: Range<usize>) -> (String, Option<usize>) {
    let begin = text.get(..second.start).and_then(|before| before.rfind('\n')).map_or(0, |n| n + 1);
    let here = text.get(begin..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let before = text.get(..begin).unwrap_or_default();
    let header = if is_header(here) { None } else { before.lines().rev().find(|line| is_header(line)) };
    let header = header.unwrap_or_default();
    // Without the first of the two, the parser gives the second its place.
    let alone = format!("{header}\n{here}");
    let table = DeTable::parse_recoverable(&alone).0;
    let Some(path) = path_at(table.get_ref(), header.len() + 1 + (second.start - begin)) else {
        return (text.get(second).unwrap_or_default().to_owned(), None);
    };
    let ends: Vec<usize> = before.match_indices('\n').map(|(n, _)| n + 1).collect();
    let first = ends.partition_point(|end| !holds(before.get(..*end).unwrap_or_default(), &path));
    (path.join("."), (first < ends.len()).then_some(first + 1))
}

fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[') && DeTable::parse(line).is_ok()
}

/// The path of the key that begins at this place.
fn path_at(table: &DeTable<'_>, place: usize) -> Option<Vec<String>> {
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref().to_string();
        if key.span().start == place {
            return Some(vec![name]);
        }
        let inner = match value.get_ref() {
            DeValue::Table(inner) => path_at(inner, place),
            DeValue::Array(items) => items.iter().find_map(|item| path_at(item.get_ref().as_table()?, place)),
            _ => None,
        };
        inner.map(|rest| [vec![name], rest].concat())
    })
}

fn holds(text: &str, path: &[String]) -> bool {
    let root = DeTable::parse_recoverable(text).0;
    let mut table = Some(root.get_ref());
    path.iter().all(|name| {
        let value = table.and_then(|table| table.get(name.as_str()));
        table = value.and_then(|value| value.get_ref().as_table());
        value.is_some()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_that_is_given_twice_is_named_with_its_first_place() {
        for (text, key, line) in [
            ("[server]\na = 1\n[log]\n[server]\nb = 2\n", "server", Some(1)),
            ("[log]\n[server]\na = 1\n\na = 2\n", "server.a", Some(3)),
            ("a = 1\n[a]\n", "a", Some(1)),
            ("[a]\nb.c = 1\n[a.b]\n", "a.b", Some(2)),
            ("[sinks.b]\nx = 1\n[sinks.\"c\"]\n[sinks.b]\n", "sinks.b", Some(1)),
            // Two in one inline table.
            ("[a]\nb = { x = 1, x = 2 }\n", "x", None),
        ] {
            let error = DeTable::parse(text).unwrap_err();
            assert_eq!(error.message(), "duplicate key");
            assert_eq!(find(text, error.span().unwrap()), (key.to_owned(), line), "{text}");
        }
    }
}
