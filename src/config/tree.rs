//! Typed reading of the merged tree.
//!
//! Each reader takes the keys it knows out of a [`Table`]; [`Table::finish`] refuses what is left. Values from the
//! environment are strings and are parsed as what the key needs; values from files must have the key's type.
//!
//! serde's `Deserialize` on the types would be shorter, and isn't used: the `config` crate's deserializer takes text for a number
//! and a number for text, tells of an unknown field neither key nor origin, and quotes a value of the wrong type, which may be a
//! secret.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use config::{Map, Value, ValueKind};

use super::{Error, size};
use crate::clock;

/// Origin of what is in the built-in layer.
pub(super) const BUILT_IN: &str = "built-in default";
/// What the origin of a value from the environment begins with.
pub(super) const VARIABLE: &str = "variable ";

/// A table of the merged tree, from which keys are taken one by one.
pub(super) struct Table {
    /// Path of the table, empty at the root.
    pub(super) path: String,
    entries: BTreeMap<String, Value>,
    known: BTreeSet<&'static str>,
    origins: Rc<BTreeMap<String, String>>,
}

/// One value with its key and its origin.
pub(super) struct Field {
    pub(super) key: String,
    pub(super) origin: String,
    kind: ValueKind,
}

impl Table {
    pub(super) fn root(entries: Map<String, Value>, origins: BTreeMap<String, String>) -> Self {
        let entries = entries.into_iter().collect();
        Self { path: String::new(), entries, known: BTreeSet::new(), origins: Rc::new(origins) }
    }

    /// Every value in here and in the tables below.
    pub(super) fn values(&self) -> Vec<Field> {
        let mut values = Vec::new();
        for (name, value) in &self.entries {
            let field = self.field(name, value.clone());
            match field.kind {
                ValueKind::Table(_) => values.extend(self.inner(field).into_iter().flat_map(|inner| inner.values())),
                _ => values.push(field),
            }
        }
        values
    }

    /// The full name of a key of this table.
    pub(super) fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Where the table itself was first named in the layer that wins.
    pub(super) fn origin(&self) -> String {
        self.origins.get(&self.path).cloned().unwrap_or_else(|| BUILT_IN.to_owned())
    }

    /// A key's value, if it is given. Empty strings and lists count as given here.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Field> {
        self.known.insert(name);
        let value = self.entries.remove(name)?;
        Some(self.field(name, value))
    }

    /// The value of a key that must be there.
    pub(super) fn require(&mut self, name: &'static str, fix: &str) -> Result<Field, Error> {
        self.take(name).ok_or_else(|| Error::new(self.key(name), self.origin(), "is missing", fix))
    }

    /// A table inside of this one; empty when it is not given.
    pub(super) fn table(&mut self, name: &'static str) -> Result<Table, Error> {
        match self.take(name) {
            Some(field) => self.inner(field),
            None => Ok(self.empty(name)),
        }
    }

    /// All that is left in here as tables, by name: the names are the user's.
    pub(super) fn named_tables(self) -> Result<BTreeMap<String, Table>, Error> {
        let mut tables = BTreeMap::new();
        for (name, value) in &self.entries {
            let field = self.field(name, value.clone());
            if name.is_empty() || !name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_')) {
                let fix = "use lower-case letters, digits and _ only";
                return Err(Error::new(field.key, field.origin, "is not a valid name", fix));
            }
            tables.insert(name.clone(), self.inner(field)?);
        }
        Ok(tables)
    }

    /// All that is left in here as values, by name.
    pub(super) fn named_fields(self) -> Vec<(String, Field)> {
        self.entries.iter().map(|(name, value)| (name.clone(), self.field(name, value.clone()))).collect()
    }

    /// Refuses keys that nobody took.
    pub(super) fn finish(self) -> Result<(), Error> {
        for (name, value) in &self.entries {
            let field = self.field(name, value.clone());
            // A built-in key of `[sinks.stdout]` is no fault when the user made that sink one of another type.
            if field.origin == BUILT_IN {
                continue;
            }
            let known: Vec<_> = self.known.iter().copied().collect();
            let fix = format!("remove it or correct its name; known here: {}", known.join(", "));
            return Err(Error::new(field.key, field.origin, "unknown key", fix));
        }
        Ok(())
    }

    fn field(&self, name: &str, value: Value) -> Field {
        let key = self.key(name);
        let origin = value.origin().map(str::to_owned);
        let origin = origin.or_else(|| self.origins.get(&key).cloned()).unwrap_or_else(|| self.origin());
        Field { key, origin, kind: value.kind }
    }

    fn inner(&self, field: Field) -> Result<Table, Error> {
        match field.kind {
            ValueKind::Table(entries) => Ok(Table {
                path: field.key,
                entries: entries.into_iter().collect(),
                known: BTreeSet::new(),
                origins: Rc::clone(&self.origins),
            }),
            _ => Err(field.error("must be a table", "set the keys inside of it")),
        }
    }

    fn empty(&self, name: &str) -> Table {
        let origins = Rc::clone(&self.origins);
        Table { path: self.key(name), entries: BTreeMap::new(), known: BTreeSet::new(), origins }
    }
}

impl Field {
    pub(super) fn error(&self, problem: impl Into<String>, fix: impl Into<String>) -> Error {
        Error::new(self.key.clone(), self.origin.clone(), problem, fix)
    }

    /// Whether the value is the empty string or the empty list: the same as not given.
    pub(super) fn is_empty(&self) -> bool {
        match &self.kind {
            ValueKind::String(text) => text.is_empty(),
            ValueKind::Array(items) => items.is_empty(),
            _ => false,
        }
    }

    /// Text. Numbers are not text: nothing is guessed.
    pub(super) fn text(&self) -> Result<&str, Error> {
        match &self.kind {
            ValueKind::String(text) => Ok(text),
            _ => Err(self.error("must be a string", "put the value in quotes")),
        }
    }

    /// A list of texts; from the environment, comma-separated.
    pub(super) fn list(&self) -> Result<Vec<Field>, Error> {
        let element = |n: usize, origin: &str, text: &str| {
            let item = Field {
                key: format!("{}[{n}]", self.key),
                origin: origin.to_owned(),
                kind: ValueKind::String(text.to_owned()),
            };
            if text.trim().is_empty() {
                return Err(item.error("is an empty entry", "remove it, or give it a value"));
            }
            Ok(item)
        };
        match &self.kind {
            ValueKind::String(text) if self.is_variable() => {
                if text.is_empty() {
                    return Ok(Vec::new());
                }
                text.split(',').enumerate().map(|(n, item)| element(n, &self.origin, item.trim())).collect()
            }
            ValueKind::Array(items) => {
                let mut list = Vec::new();
                for (n, item) in items.iter().enumerate() {
                    let origin = item.origin().unwrap_or(&self.origin);
                    match &item.kind {
                        ValueKind::String(text) => list.push(element(n, origin, text)?),
                        _ => {
                            let key = format!("{}[{n}]", self.key);
                            return Err(Error::new(key, origin, "must be a string", "put the value in quotes"));
                        }
                    }
                }
                Ok(list)
            }
            _ => Err(self.error("must be a list of strings", r#"write it as ["one", "two"]"#)),
        }
    }

    pub(super) fn texts(&self) -> Result<Vec<String>, Error> {
        self.list()?.iter().map(|item| item.text().map(str::to_owned)).collect()
    }

    pub(super) fn boolean(&self) -> Result<bool, Error> {
        match &self.kind {
            ValueKind::Boolean(yes) => Ok(*yes),
            ValueKind::String(text) if self.is_variable() && text == "true" => Ok(true),
            ValueKind::String(text) if self.is_variable() && text == "false" => Ok(false),
            _ => Err(self.error("must be true or false", "write true or false, without quotes in a file")),
        }
    }

    /// A whole number within `range`.
    pub(super) fn number(&self, range: std::ops::RangeInclusive<u64>) -> Result<u64, Error> {
        let number = match &self.kind {
            ValueKind::I64(number) => u64::try_from(*number).ok(),
            ValueKind::String(text) if self.is_variable() => text.parse().ok(),
            _ => None,
        };
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            let fix = format!("use one from {} to {}, without quotes in a file", range.start(), range.end());
            self.error(format!("must be a whole number, not {}", self.shown()), fix)
        })
    }

    /// A size in bytes within `range`: bytes, or text with a unit.
    pub(super) fn size(&self, range: std::ops::RangeInclusive<u64>) -> Result<u64, Error> {
        let size = match &self.kind {
            ValueKind::I64(bytes) => u64::try_from(*bytes).ok(),
            ValueKind::String(text) => size::parse(text),
            _ => None,
        };
        let Some(size) = size else {
            let problem = format!("must be a size, not {}", self.shown());
            return Err(
                self.error(problem, r#"write bytes, or a number with a unit, such as "20GB", "20GiB" or "512KB""#)
            );
        };
        if !range.contains(&size) {
            let (from, to) = (size::shown(*range.start()), size::shown(*range.end()));
            return Err(self.error(format!("is out of range: {}", self.shown()), format!("use {from} to {to}")));
        }
        Ok(size)
    }

    /// A length of time within `range`.
    pub(super) fn duration(&self, range: std::ops::RangeInclusive<Duration>) -> Result<Duration, Error> {
        let parsed = match &self.kind {
            ValueKind::String(text) => humantime::parse_duration(text).ok(),
            _ => None,
        };
        let Some(duration) = parsed else {
            let problem = format!("must be a length of time, not {}", self.shown());
            return Err(self.error(problem, r#"write a number with a unit, such as "5s", "500ms" or "7d""#));
        };
        if !range.contains(&duration) {
            let (from, to) = (clock::length(*range.start()), clock::length(*range.end()));
            return Err(self.error(format!("is out of range: {}", self.shown()), format!("use {from} to {to}")));
        }
        Ok(duration)
    }

    pub(super) fn address(&self) -> Result<SocketAddr, Error> {
        self.text().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
            let problem = format!("must be an IP address and a port, not {}", self.shown());
            self.error(problem, r#"write it as "127.0.0.1:8080" or "[::1]:8080""#)
        })
    }

    /// A `http` or `https` URL. The value stands in no message: it may hold a secret.
    pub(super) fn url(&self) -> Result<url::Url, Error> {
        let fix = r#"write it as "https://host:port/path""#;
        let text = self.text()?;
        if text.is_empty() {
            return Err(self.error("is empty", fix));
        }
        let url = url::Url::parse(text).map_err(|why| self.error(format!("is not a URL: {why}"), fix))?;
        // For anything but these two, a host is not certain either.
        if !matches!(url.scheme(), "http" | "https") {
            return Err(self.error("must be a http or https URL", fix));
        }
        Ok(url)
    }

    /// The value for a message; only for keys that hold no secret.
    fn shown(&self) -> String {
        match &self.kind {
            ValueKind::String(text) => format!("{:?}", text.chars().take(80).collect::<String>()),
            ValueKind::I64(number) => number.to_string(),
            ValueKind::Boolean(yes) => yes.to_string(),
            ValueKind::Array(_) => "a list".into(),
            ValueKind::Table(_) => "a table".into(),
            _ => "a value of this type".into(),
        }
    }

    fn is_variable(&self) -> bool {
        self.origin.starts_with(VARIABLE)
    }
}
