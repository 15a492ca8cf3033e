//! The configuration reference: `docs/CONFIGURATION.md` is made from the comments of `config/default.toml`, and has every key
//! that the program knows. `WRITE_DOCS=1 tests/run the_configuration_reference` writes it anew.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::support::command::Sandbox;

const REFERENCE: &str = "docs/CONFIGURATION.md";
const INTRODUCTION: &str = "# Configuration reference

Made from `config/default.toml`, whose values are built in: change that file, and run `WRITE_DOCS=1 tests/run the_configuration_reference`.

";

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap_or_default()
}

/// A key with its value and its comment, as they stand in the file.
struct Row {
    key: String,
    value: String,
    meaning: String,
}

/// A table of the configuration.
struct Section {
    /// Such as `sinks.archive`.
    name: String,
    /// Whether its values are built in; else they are examples, but for the keys that say "default".
    built_in: bool,
    text: Vec<String>,
    rows: Vec<Row>,
}

fn sections() -> (Vec<String>, Vec<Section>) {
    let (mut sections, mut text): (Vec<Section>, Vec<String>) = (Vec::new(), Vec::new());
    let mut introduction = None;
    for line in read("config/default.toml").lines() {
        let (built_in, bare) = match line.strip_prefix("# ") {
            Some(bare) => (false, bare),
            None => (true, line),
        };
        let name = bare.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name);
        if line.is_empty() && introduction.is_none() {
            introduction = Some(std::mem::take(&mut text));
        } else if let Some(name) = name {
            let text = std::mem::take(&mut text);
            sections.push(Section { name: name.to_owned(), built_in, text, rows: Vec::new() });
        } else if bare == "Every sink may also have these:" {
            let text = vec!["Every sink may also have these.".to_owned()];
            sections.push(Section { name: "sinks.NAME".to_owned(), built_in, text, rows: Vec::new() });
        } else if let (Some(section), Some((key, rest))) = (sections.last_mut(), assignment(bare)) {
            let (value, meaning) = rest.split_once("  #").unwrap_or((rest, ""));
            section.rows.push(Row { key, value: value.trim().to_owned(), meaning: meaning.trim().to_owned() });
        } else if let (Some(section), Some(more)) = (sections.last_mut(), bare.trim_start().strip_prefix("# ")) {
            let meaning = &mut section.rows.last_mut().expect("a comment before the first key").meaning;
            *meaning = format!("{meaning} {more}").trim().to_owned();
        } else if line.is_empty() {
            // What is said after the keys belongs to the section before.
            if let Some(section) = sections.last_mut() {
                section.text.append(&mut text);
            }
        } else {
            text.push(bare.trim_start_matches('#').to_owned());
        }
    }
    (introduction.unwrap(), sections)
}

fn assignment(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.split_once(" = ")?;
    key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_').then(|| (key.to_owned(), value))
}

/// A row for each key, those of inline tables by themselves.
fn flat(row: &Row) -> Vec<(String, String)> {
    let value = toml::from_str::<toml::Table>(&format!("x = {}", row.value)).unwrap().remove("x").unwrap();
    match value {
        toml::Value::Table(inner) => {
            inner.iter().map(|(key, value)| (format!("{}.{key}", row.key), value.to_string())).collect()
        }
        _ => vec![(row.key.clone(), row.value.clone())],
    }
}

fn reference() -> String {
    let (introduction, sections) = sections();
    let mut text = INTRODUCTION.to_owned();
    let code =
        introduction.iter().map(|line| line.strip_prefix("finhook's configuration, key by key. ").unwrap_or(line));
    let _ = writeln!(text, "```text\n{}\n```", code.collect::<Vec<_>>().join("\n"));
    for section in sections {
        let Section { name, built_in, text: prose, rows } = section;
        let value = if built_in { "Built in" } else { "Default, or example" };
        let shown = name.replace(".archive", ".NAME").replace(".backend", ".NAME");
        let kind =
            rows.iter().find(|row| row.key == "type").map_or(String::new(), |row| format!(", type {}", row.value));
        let _ = write!(
            text,
            "\n## `[{shown}]`{kind}\n\n{}\n\n| Key | {value} | Meaning | Variable |\n| --- | --- | --- | --- |\n",
            prose.join("\n").trim()
        );
        for row in &rows {
            for (key, value) in flat(row) {
                let variable = format!("{shown}.{key}").to_uppercase().replace('.', "__").replace('-', "_");
                let row =
                    format!("| `{key}` | `{value}` | {} | `FINHOOK__{variable}` |", row.meaning.replace('|', "\\|"));
                let _ = writeln!(text, "{row}");
            }
        }
    }
    text
}

#[test]
fn the_configuration_reference_is_what_the_built_in_file_says() {
    let made = reference();
    if std::env::var_os("WRITE_DOCS").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(REFERENCE), &made).unwrap();
    }
    assert!(
        read(REFERENCE) == made,
        "{REFERENCE} is not what config/default.toml says: see the top of this test's file"
    );
}

#[test]
fn the_configuration_reference_has_every_key_that_the_program_knows() {
    let reference = reference();
    let mut documented = BTreeSet::new();
    let mut section = "";
    for line in reference.lines() {
        if let Some(heading) = line.strip_prefix("## `[") {
            section = heading.split(['.', ']']).next().unwrap();
        } else if let Some((key, _)) = line.strip_prefix("| `").and_then(|row| row.split_once('`')) {
            documented.insert(format!("{section}.{key}"));
        }
    }
    let sink =
        |kind: &str, more: &str| format!("[sinks.a]\ntype = \"{kind}\"\npath = \"x\"\nurl = \"http://h/\"\n{more}");
    let mut seen = 0;
    for (toml, table) in [
        ("[log]\nzz = 1\n".to_owned(), "log."),
        ("[server]\nzz = 1\n".to_owned(), "server."),
        ("[admin]\nzz = 1\n".to_owned(), "admin."),
        ("[endpoints.fin]\nzz = 1\n".to_owned(), "endpoints."),
        ("[journal]\nzz = 1\n".to_owned(), "journal."),
        ("[gateway]\nzz = 1\n".to_owned(), "gateway."),
        (sink("log", ""), "sinks."),
        (sink("file", ""), "sinks."),
        (sink("http", ""), "sinks."),
        (sink("http", "retry = { zz = 1 }\n"), "sinks.retry."),
        (sink("http", "match = { zz = 1 }\n"), "sinks.match."),
    ] {
        let refused = Sandbox::with_config(&toml).run(&["check"]).stderr;
        let (_, known) = refused.trim_end().split_once("known here: ").unwrap_or_else(|| panic!("{toml}: {refused}"));
        for key in known.split(", ") {
            let there = [format!("{table}{key}"), format!("{table}{key}_file")];
            let within = format!("{table}{key}.");
            let found = there.iter().any(|key| documented.contains(key))
                || documented.iter().any(|name| name.starts_with(&within));
            assert!(found, "{table}{key} of {toml}");
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen}");
}
