//! One layer of the configuration: values, each with its origin spelled out for people.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use config::{Map, Source, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Error;
use super::duplicate;
use super::tree::{BUILT_IN, VARIABLE};

/// What variables that hold configuration begin with.
pub(super) const PREFIX: &str = "FINHOOK__";

/// The option that adds a sink, as it stands in origins.
pub(super) const FORWARD_TO: &str = "--forward-to";
/// A variable that is not finhook's alone.
const PORT: &str = "PORT";
/// The name of that sink.
const FORWARD: &str = "forward";

/// One layer: values with their origins, and the origins of the tables, which merging would lose.
#[derive(Clone, Default)]
pub(super) struct Layer {
    entries: Map<String, Value>,
    /// Path and origin of each table that this layer names.
    pub(super) tables: BTreeMap<String, String>,
}

impl fmt::Debug for Layer {
    /// Without the values: there are secrets among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").field("tables", &self.tables).finish_non_exhaustive()
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.entries.clone())
    }
}

impl Layer {
    /// `file` is `None` for the built-in layer.
    pub(super) fn from_toml(text: &str, file: Option<&Path>) -> Result<Self, Error> {
        let lines = Lines { text, file };
        let table = DeTable::parse(text).map_err(|e| {
            let origin = lines.origin(e.span().map_or(0, |span| span.start));
            if let (Some(span), "duplicate key") = (e.span(), e.message()) {
                let (key, first) = duplicate::find(text, span);
                let first = first.map_or_else(String::new, |line| format!(": first on line {line}"));
                return Error::new(key, origin, format!("is given twice{first}"), "keep one of them");
            }
            // The error's own `Display` quotes the line, which may hold a secret.
            Error::new("configuration", origin, format!("is not TOML: {}", e.message()), "correct the syntax")
        })?;
        let mut layer = Self::default();
        for (key, value) in table.get_ref() {
            let origin = lines.origin(key.span().start);
            // The `config` crate takes a key at the top for a path, such as `a.b[1]`.
            plain(key.get_ref(), &origin)?;
            let value = layer.value(key.get_ref(), &origin, value, &lines)?;
            layer.entries.insert(key.get_ref().to_string(), value);
        }
        Ok(layer)
    }

    fn value(
        &mut self,
        path: &str,
        origin: &str,
        value: &Spanned<DeValue<'_>>,
        lines: &Lines<'_>,
    ) -> Result<Value, Error> {
        let kind = match value.get_ref() {
            DeValue::String(text) => ValueKind::String(text.to_string()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => ValueKind::I64(number),
                Err(_) => return Err(Error::new(path, origin, "the number is too large", "use a smaller one")),
            },
            DeValue::Boolean(yes) => ValueKind::Boolean(*yes),
            // No key takes one of these. As a kind that none of the typed readers accepts, each is refused there.
            DeValue::Float(_) | DeValue::Datetime(_) => ValueKind::Nil,
            DeValue::Array(items) => {
                let mut values = Vec::new();
                for (n, item) in items.iter().enumerate() {
                    let origin = lines.origin(item.span().start);
                    values.push(self.value(&format!("{path}[{n}]"), &origin, item, lines)?);
                }
                ValueKind::Array(values)
            }
            DeValue::Table(table) => {
                self.tables.insert(path.to_owned(), origin.to_owned());
                let mut entries = Map::new();
                for (key, value) in table {
                    let origin = lines.origin(key.span().start);
                    let path = format!("{path}.{}", key.get_ref());
                    entries.insert(key.get_ref().to_string(), self.value(&path, &origin, value, lines)?);
                }
                ValueKind::Table(entries)
            }
        };
        Ok(Value::new(Some(&origin.to_owned()), kind))
    }

    /// From the environment variables that hold configuration; others are not looked at.
    pub(super) fn from_vars(vars: &[(OsString, OsString)]) -> Result<Self, Error> {
        let mut sorted = BTreeMap::new();
        for (name, value) in vars {
            let name = name.to_string_lossy();
            let Some(path) = name.strip_prefix(PREFIX) else { continue };
            let origin = format!("{VARIABLE}{name}");
            let path = path.to_lowercase();
            let Some(value) = value.to_str() else {
                return Err(Error::new(path.replace("__", "."), origin, "the value is not UTF-8", "use UTF-8"));
            };
            if let Some((other, _)) = sorted.insert(path.clone(), (origin.clone(), value.to_owned())) {
                let problem = format!("is also set by {other}: case does not matter");
                return Err(Error::new(path.replace("__", "."), origin, problem, "unset one of them"));
            }
        }
        let mut layer = Self::default();
        for (path, (origin, value)) in sorted {
            let mut keys: Vec<String> = path.split("__").map(str::to_owned).collect();
            // A shell's variables can't hold the hyphens of a header's name.
            if keys.len() == 4 && keys[0] == "sinks" && keys[2] == "headers" {
                keys[3] = keys[3].replace('_', "-");
            }
            plain(&keys[0], &origin)?;
            layer.insert(&keys, &origin, value)?;
        }
        Ok(layer)
    }

    /// The sink that `serve --forward-to` adds.
    pub(super) fn forward_to(url: String) -> Result<Self, Error> {
        let mut layer = Self::default();
        for (key, value) in [("type", "http".to_owned()), ("url", url)] {
            layer.insert(&["sinks", FORWARD, key].map(str::to_owned), FORWARD_TO, value)?;
        }
        Ok(layer)
    }

    /// `PORT`, by which platforms such as Cloud Run say where a container is to listen. All that is finhook's own wins over it.
    pub(super) fn port(vars: &[(OsString, OsString)]) -> Result<Self, Error> {
        let mut layer = Self::default();
        let port = vars.iter().find(|(name, _)| name == PORT).map(|(_, value)| value.to_string_lossy());
        if let Some(port) = port.filter(|port| !port.is_empty()) {
            let origin = format!("{VARIABLE}{PORT}");
            layer.insert(&["server", "bind"].map(str::to_owned), &origin, format!("0.0.0.0:{port}"))?;
        }
        Ok(layer)
    }

    fn insert(&mut self, keys: &[String], origin: &str, value: String) -> Result<(), Error> {
        let path = keys.join(".");
        let clash = || {
            let fix = "unset one of them";
            Error::new(path.clone(), origin, "other variables set this key as a value, or keys inside of it", fix)
        };
        let Some((last, parents)) = keys.split_last() else { return Ok(()) };
        let mut entries = &mut self.entries;
        for (n, key) in parents.iter().enumerate() {
            // A variable that is there but empty, as compose files leave behind, configures nothing.
            if !value.is_empty() {
                self.tables.insert(keys[..=n].join("."), origin.to_owned());
            }
            let table = Value::new(Some(&origin.to_owned()), ValueKind::Table(Map::new()));
            match &mut entries.entry(key.clone()).or_insert(table).kind {
                ValueKind::Table(inner) => entries = inner,
                _ => return Err(clash()),
            }
        }
        if entries.contains_key(last) {
            return Err(clash());
        }
        entries.insert(last.clone(), Value::new(Some(&origin.to_owned()), ValueKind::String(value)));
        Ok(())
    }
}

/// Refuses keys at the top that the `config` crate would take for a path.
fn plain(key: &str, origin: &str) -> Result<(), Error> {
    if !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
        return Ok(());
    }
    Err(Error::new(key, origin, "unknown key", "remove it"))
}

struct Lines<'a> {
    text: &'a str,
    file: Option<&'a Path>,
}

impl Lines<'_> {
    fn origin(&self, offset: usize) -> String {
        let Some(file) = self.file else { return BUILT_IN.into() };
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        format!("{}, line {line}", file.display())
    }
}
