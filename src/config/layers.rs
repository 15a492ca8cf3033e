//! The layers of the configuration and where each value in them came from.
//!
//! A layer is a tree of `config` values whose origin is spelled out for people: `finhook.toml, line 3`, `variable
//! FINHOOK__SERVER__BIND` or `built-in default`. The `config` crate merges the layers; a later one wins key by key.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use config::{Map, Source, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::tree::{BUILT_IN, Table, VARIABLE};
use super::{Config, Error, sections};

/// The built-in layer, which documents every key.
const DEFAULT: &str = include_str!("../../config/default.toml");
/// What variables that hold configuration begin with.
const PREFIX: &str = "FINHOOK__";
/// Larger files are surely not configuration.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A configuration that was found good.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is allowed but probably not meant, one line each; to be logged once there is a log.
    pub warnings: Vec<String>,
}

/// Everything outside of the binary that the configuration is made from.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// A TOML file, or a directory with `default.toml` and `NAME.toml`.
    pub path: Option<PathBuf>,
    /// How `path` was given, for messages: `--config` or `FINHOOK_CONFIG`.
    pub path_from: &'static str,
    /// Name of the second file in a directory: the value of `FINHOOK_ENV`.
    pub env_name: Option<OsString>,
    /// Environment variables; those that don't begin with `FINHOOK__` are not looked at.
    pub vars: Vec<(OsString, OsString)>,
}

impl Inputs {
    /// `path`, else `FINHOOK_CONFIG`, with this process's environment.
    pub fn from_process(path: Option<PathBuf>) -> Self {
        let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let path_from = if path.is_some() { "--config" } else { "FINHOOK_CONFIG" };
        Self {
            path: path.or_else(|| var("FINHOOK_CONFIG").map(PathBuf::from)),
            path_from,
            env_name: var("FINHOOK_ENV"),
            vars: std::env::vars_os().collect(),
        }
    }

    /// Reads the layers, merges them and checks the result.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(&self) -> Result<Loaded, Error> {
        let mut layers = vec![Layer::from_toml(DEFAULT, None)?];
        for file in self.files()? {
            let text = read(&file, self.path_from)?;
            layers.push(Layer::from_toml(&text, Some(&file))?);
        }
        layers.push(Layer::from_vars(&self.vars)?);
        let user: Vec<Layer> = layers[1..].to_vec();
        let built_in_fin = !user.iter().any(|layer| layer.tables.contains_key("endpoints.fin"));
        sections::config(merge(layers)?, built_in_fin)
    }

    fn files(&self) -> Result<Vec<PathBuf>, Error> {
        let Some(path) = &self.path else { return Ok(Vec::new()) };
        if !path.is_dir() {
            return Ok(vec![path.clone()]);
        }
        let mut files = vec![path.join("default.toml")];
        if let Some(name) = &self.env_name {
            let name = name.to_str().filter(|name| {
                !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
            });
            let name = name.ok_or_else(|| {
                let fix = "use letters, digits, _ and - only: it names a file in the configuration's directory";
                Error::new("FINHOOK_ENV", "variable FINHOOK_ENV", "is not a name", fix)
            })?;
            files.push(path.join(format!("{name}.toml")));
        }
        Ok(files)
    }
}

fn read(file: &Path, path_from: &str) -> Result<String, Error> {
    let origin = file.display().to_string();
    let unreadable = |why: String| {
        let fix = "give a readable TOML file, or a directory with default.toml (and $FINHOOK_ENV.toml if that is set)";
        Error::new(path_from, origin.clone(), format!("can't read the file: {why}"), fix)
    };
    let bytes = super::secrets::read_bounded(file, MAX_FILE_BYTES).map_err(|e| unreadable(e.to_string()))?;
    String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8".into()))
}

fn merge(layers: Vec<Layer>) -> Result<Table, Error> {
    let mut tables = BTreeMap::new();
    let mut builder = config::Config::builder();
    for layer in layers {
        tables.extend(layer.tables.clone());
        builder = builder.add_source(layer);
    }
    // Neither the parsing of files nor that of variables is left to the crate, so nothing in here is known to fail.
    let merged =
        builder.build().map_err(|e| Error::new("configuration", "all layers", e.to_string(), "simplify it"))?;
    match merged.cache.kind {
        ValueKind::Table(entries) => Ok(Table::root(entries, tables)),
        _ => Ok(Table::root(Map::new(), tables)),
    }
}

/// One layer: values with their origins, and the origins of the tables, which merging would lose.
#[derive(Debug, Clone, Default)]
struct Layer {
    entries: Map<String, Value>,
    tables: BTreeMap<String, String>,
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
    fn from_toml(text: &str, file: Option<&Path>) -> Result<Self, Error> {
        let lines = Lines { text, file };
        let table = DeTable::parse(text).map_err(|e| {
            let origin = lines.origin(e.span().map_or(0, |span| span.start));
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

    fn from_vars(vars: &[(OsString, OsString)]) -> Result<Self, Error> {
        let mut sorted = BTreeMap::new();
        for (name, value) in vars {
            let name = name.to_string_lossy();
            let Some(path) = name.strip_prefix(PREFIX) else { continue };
            let origin = format!("{VARIABLE}{name}");
            let path = path.to_lowercase();
            let Some(value) = value.to_str() else {
                return Err(Error::new(path.replace("__", "."), origin, "the value is not UTF-8", "use UTF-8"));
            };
            sorted.insert(path, (origin, value.to_owned()));
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

    fn insert(&mut self, keys: &[String], origin: &str, value: String) -> Result<(), Error> {
        let path = keys.join(".");
        let clash = || {
            let fix = "unset one of them";
            Error::new(path.clone(), origin, "other variables set this key as a value, or keys inside of it", fix)
        };
        let Some((last, parents)) = keys.split_last() else { return Ok(()) };
        let mut entries = &mut self.entries;
        for (n, key) in parents.iter().enumerate() {
            self.tables.insert(keys[..=n].join("."), origin.to_owned());
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    fn with_vars(vars: &[(&str, &str)]) -> Result<Loaded, Error> {
        let vars = vars.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Inputs { vars, ..Inputs::default() }.load()
    }

    fn secrets(loaded: &Loaded, endpoint: &str) -> Vec<String> {
        let secrets = &loaded.config.endpoints[endpoint].signing_secrets;
        secrets.iter().map(|s| s.expose_secret().to_owned()).collect()
    }

    #[test]
    fn the_built_in_file_gives_the_documented_values_and_holds_no_unknown_key() {
        let config = with_vars(&[]).unwrap().config;
        assert_eq!(config.server.bind.to_string(), "0.0.0.0:8080");
        assert_eq!(config.server.max_body_bytes, 1 << 20);
        assert_eq!(config.server.header_timeout, Duration::from_secs(5));
        assert_eq!(config.server.body_timeout, Duration::from_secs(10));
        assert_eq!(config.server.idle_timeout, Duration::from_secs(75));
        assert_eq!(config.server.max_connections, 10_000);
        assert_eq!(config.server.drain_timeout, Duration::from_secs(8));
        assert_eq!(config.admin.bind.to_string(), "127.0.0.1:9090");
        assert!(config.admin.token.is_none());
        assert_eq!(config.endpoints.keys().collect::<Vec<_>>(), ["fin"]);
        assert_eq!(config.endpoints["fin"].path, "/webhooks/fin");
        assert_eq!(config.journal.path, Path::new("data/finhook.db"));
        assert_eq!(config.journal.retention, Duration::from_secs(7 * 86_400));
        assert_eq!(config.journal.dedupe_window, Duration::from_secs(90 * 86_400));
        assert_eq!(config.journal.max_bytes, 0);
        assert_eq!(config.sinks.keys().collect::<Vec<_>>(), ["stdout"]);
        assert!(config.gateway.is_none());

        // Read as a user's file, of which unknown keys are refused.
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("finhook.toml");
        std::fs::write(&file, DEFAULT).unwrap();
        Inputs { path: Some(file), ..Inputs::default() }.load().unwrap();
    }

    #[test]
    fn the_examples_in_the_comments_of_the_built_in_file_are_valid() {
        let example = |line: &str| {
            let key = line.strip_prefix("# ").filter(|rest| {
                rest.starts_with('[') || rest.split_once(" = ").is_some_and(|(key, _)| !key.contains([' ', '`', ':']))
            });
            key.map(|key| key.replace("Bearer …", "Bearer x"))
        };
        let text: Vec<String> = DEFAULT.lines().filter_map(example).collect();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("finhook.toml");
        std::fs::write(&file, text.join("\n")).unwrap();
        let config = Inputs { path: Some(file), ..Inputs::default() }.load().unwrap().config;
        assert_eq!(config.sinks.keys().collect::<Vec<_>>(), ["archive", "backend", "stdout"]);
        assert_eq!(config.sinks["backend"].matching.events, ["fin_replied"]);
    }

    #[test]
    fn the_built_in_endpoint_is_there_only_while_no_other_is_configured() {
        let vars = [("FINHOOK__ENDPOINTS__EU__SIGNING_SECRETS", "0123456789abcdef")];
        let loaded = with_vars(&vars).unwrap();
        assert_eq!(loaded.config.endpoints.keys().collect::<Vec<_>>(), ["eu"]);
        assert_eq!(loaded.config.endpoints["eu"].path, "/webhooks/eu");

        let vars = [vars[0], ("FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS", "abcdef0123456789")];
        let loaded = with_vars(&vars).unwrap();
        assert_eq!(loaded.config.endpoints.keys().collect::<Vec<_>>(), ["eu", "fin"]);
        assert_eq!(loaded.config.endpoints["fin"].path, "/webhooks/fin");
    }

    #[test]
    fn values_of_variables_are_never_guessed_to_be_numbers() {
        let loaded = with_vars(&[("FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS", "00123,1e9, true")]).unwrap();
        assert_eq!(secrets(&loaded, "fin"), ["00123", "1e9", "true"]);
    }

    #[test]
    fn a_header_named_by_a_variable_gets_its_hyphens() {
        let vars = [
            ("FINHOOK__SINKS__B__TYPE", "http"),
            ("FINHOOK__SINKS__B__URL", "http://127.0.0.1:1/"),
            ("FINHOOK__SINKS__B__HEADERS__X_API_KEY", "key"),
        ];
        let loaded = with_vars(&vars).unwrap();
        let super::super::SinkKind::Http(http) = &loaded.config.sinks["b"].kind else { panic!("not http") };
        assert_eq!(http.headers[0].0, "x-api-key");
    }

    #[test]
    fn variables_that_set_a_key_and_what_is_inside_of_it_are_refused() {
        let error = with_vars(&[("FINHOOK__SERVER", "x"), ("FINHOOK__SERVER__BIND", "127.0.0.1:0")]).unwrap_err();
        assert_eq!(error.origin, "variable FINHOOK__SERVER__BIND");
    }

    proptest! {
        #[test]
        fn any_secrets_without_commas_go_through_a_variable_unchanged(
            list in prop::collection::vec("[!-+\\--~][ -+\\--~é]{0,30}[!-+\\--~]", 1..4)
        ) {
            let loaded = with_vars(&[("FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS", &list.join(","))]).unwrap();
            prop_assert_eq!(secrets(&loaded, "fin"), list);
        }

        #[test]
        fn no_variable_makes_loading_panic_or_an_error_of_more_than_one_line(
            name in "FINHOOK__[A-Z_\\[\\].]{0,20}", value in "\\PC{0,20}|[\\x00-\\x20]{0,5}"
        ) {
            if let Err(error) = with_vars(&[(&name, &value)]) {
                prop_assert!(!error.to_string().contains('\n'));
            }
        }

        #[test]
        fn no_file_makes_loading_panic_or_an_error_of_more_than_one_line(
            text in "(\\[(server|sinks|endpoints|gateway)(\\.[a-z\"\\[]{1,3})?\\]\n)?[a-z\\[\\]\"._=0-9\n ]{0,40}"
        ) {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("finhook.toml");
            std::fs::write(&file, text).unwrap();
            if let Err(error) = (Inputs { path: Some(file), ..Inputs::default() }).load() {
                prop_assert!(!error.to_string().contains('\n'));
            }
        }
    }
}
