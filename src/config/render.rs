//! The effective configuration as TOML, for people: each value with its origin, every secret redacted. The keys are those of
//! the types.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::error::one_line;
use super::tree::BUILT_IN;
use super::{Admin, Config, Egress, Endpoint, Gateway, Journal, Log, Server, Sink};
use crate::verify::Scheme;
use crate::{certificate, clock};

const REDACTED: &str = "<redacted>";

/// The sections, as they are written.
#[derive(Serialize)]
struct Sections<'c> {
    log: &'c Log,
    server: &'c Server,
    admin: &'c Admin,
    endpoints: &'c BTreeMap<String, Endpoint>,
    journal: &'c Journal,
    sinks: BTreeMap<&'c str, OnOrOff<&'c Sink>>,
    egress: &'c Egress,
    gateway: OnOrOff<&'c Gateway>,
}

/// What may be turned off, by the key that does it.
#[derive(Serialize)]
#[serde(untagged)]
enum OnOrOff<T> {
    On(T),
    Disabled { enabled: bool },
    Unbound { bind: &'static str },
}

pub(super) fn toml(config: &Config) -> String {
    let Config { log, server, admin, endpoints, journal, sinks, disabled_sinks, egress, gateway, origins } = config;
    let on = sinks.iter().map(|(name, sink)| (name.as_str(), OnOrOff::On(sink)));
    let off = disabled_sinks.iter().map(|name| (name.as_str(), OnOrOff::Disabled { enabled: false }));
    let sinks = on.chain(off).collect();
    let gateway = gateway.as_ref().map_or(OnOrOff::Unbound { bind: "" }, OnOrOff::On);
    let sections = Sections { log, server, admin, endpoints, journal, sinks, egress, gateway };
    // Numbers that were loaded fit: they came from an `i64`. Paths that are no UTF-8 can't come from TOML.
    let sections = toml::Table::try_from(sections).unwrap_or_default();
    let mut text = String::new();
    write(&sections, "", origins, &mut text);
    text
}

fn write(table: &toml::Table, path: &str, origins: &BTreeMap<String, String>, text: &mut String) {
    let full = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let (tables, values): (Vec<_>, Vec<_>) = table.iter().partition(|(_, value)| value.is_table());
    if !path.is_empty() && (tables.is_empty() || !values.is_empty()) {
        let gap = if text.is_empty() { "" } else { "\n" };
        let _ = writeln!(text, "{gap}[{path}]");
    }
    for (key, value) in values {
        let line = toml::Table::from_iter([(key.clone(), value.clone())]).to_string();
        let _ = writeln!(text, "{}  # {}", line.trim_end(), one_line(origin(&full(key), origins)));
    }
    for (key, inner) in tables {
        if let Some(inner) = inner.as_table() {
            write(inner, &full(key), origins, text);
        }
    }
}

/// A secret is shown by its own key also where the twin that ends in `_file` gave it.
fn origin<'o>(key: &str, origins: &'o BTreeMap<String, String>) -> &'o str {
    let key = key.to_lowercase();
    let given = [origins.get(&key), origins.get(&format!("{key}_file"))].into_iter().flatten();
    given.map(String::as_str).find(|origin| *origin != BUILT_IN).unwrap_or(BUILT_IN)
}

impl Serialize for Endpoint {
    /// With the file that secrets come from, or as many of them as there are.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut keys = serializer.serialize_struct("Endpoint", 4)?;
        let (key, file_key) = Self::secrets_key(self.kind);
        keys.serialize_field("kind", &self.kind)?;
        keys.serialize_field("path", &self.path)?;
        match &self.secrets_file {
            Some(file) => keys.serialize_field(file_key, file)?,
            None => keys.serialize_field(key, &vec![REDACTED; self.secrets.len()])?,
        }
        if self.kind == Scheme::Fin {
            keys.serialize_field("client_secret", self.client_secret.as_ref().map_or("", |_| REDACTED))?;
        }
        keys.end()
    }
}

/// An empty value is the same as none.
pub(super) fn or_empty<S: Serializer>(value: &Option<impl Serialize>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => value.serialize(serializer),
        None => serializer.serialize_str(""),
    }
}

pub(super) fn text<S: Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

pub(super) fn secret<S: Serializer>(value: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.as_ref().map_or("", |_| REDACTED))
}

/// Both keys, empty where there is no TLS.
pub(super) fn certificate<S: Serializer>(files: &Option<certificate::Files>, serializer: S) -> Result<S::Ok, S::Error> {
    pair(files.as_ref(), ["tls_cert_file", "tls_key_file"], serializer)
}

/// The same for a sink that wants to know who finhook is.
pub(super) fn client_certificate<S: Serializer>(
    files: &Option<certificate::Files>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    pair(files.as_ref(), ["client_cert_file", "client_key_file"], serializer)
}

fn pair<S: Serializer>(files: Option<&certificate::Files>, keys: [&str; 2], serializer: S) -> Result<S::Ok, S::Error> {
    let paths = [files.map(|files| &files.cert), files.map(|files| &files.key)];
    serializer.collect_map(keys.into_iter().zip(paths.map(shown)))
}

/// An empty path is the same as none.
pub(super) fn path<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown(path.as_ref()))
}

fn shown(path: Option<&PathBuf>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

pub(super) fn headers<S: Serializer>(headers: &[(String, SecretString)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(headers.iter().map(|(name, _)| (name, REDACTED)))
}

pub(super) fn duration<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&clock::length(*value))
}
