//! The layers of the configuration and where each value in them came from.
//!
//! A layer is a tree of `config` values whose origin is spelled out for people: `finhook.toml, line 3`, `variable
//! FINHOOK__SERVER__BIND` or `built-in default`.
//!
//! The `config` crate holds the values, keeps each one's origin, and merges the layers: a later one wins key by key. It is not
//! given the files and variables themselves. Its reader of TOML knows a value's file, not its line; its reader of variables
//! can't say which variable a value came from, reads lists only where it also guesses numbers, and takes two variables for one
//! key without a word. Each of these is what an operator needs to find a wrong key.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{Map, ValueKind};

use super::access::{self, Secret};
use super::layer::{FORWARD_TO, Layer};
use super::tree::Table;
use super::{Config, Error, sections, variables};

/// The built-in layer, which documents every key.
const DEFAULT: &str = include_str!("../../config/default.toml");
/// Larger files are surely not configuration.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A configuration that was found good.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is allowed but probably not meant, one line each; to be logged once there is a log.
    pub warnings: Vec<String>,
    secrets: Vec<Secret>,
}

impl Loaded {
    /// The effective configuration as TOML: each value with its origin as a comment, every secret redacted.
    #[must_use]
    pub fn to_redacted_toml(&self) -> String {
        self.config.to_redacted_toml()
    }

    /// What this machine would refuse or give away, one line each: paths that can't be written, secrets that others can read.
    #[must_use]
    pub fn access_warnings(&self) -> Vec<String> {
        access::warnings(&self.config, &self.secrets)
    }
}

/// Everything outside of the binary that the configuration is made from.
#[derive(Clone, Default)]
pub struct Inputs {
    /// A TOML file, or a directory with `default.toml` and `NAME.toml`.
    pub path: Option<PathBuf>,
    /// How `path` was given, for messages: `--config` or `FINHOOK_CONFIG`.
    pub path_from: &'static str,
    /// Name of the second file in a directory: the value of `FINHOOK_ENV`.
    pub env_name: Option<OsString>,
    /// Environment variables: those that begin with `FINHOOK__` hold keys, others that begin with `FINHOOK` are warned of.
    pub vars: Vec<(OsString, OsString)>,
    /// Where a sink `forward` posts to, if there is to be one: `serve --forward-to`.
    pub forward_to: Option<String>,
}

impl fmt::Debug for Inputs {
    /// Without the variables: there are secrets among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, path_from, env_name, vars: _, forward_to: _ } = self;
        let mut shown = f.debug_struct("Inputs");
        shown.field("path", path).field("path_from", path_from).field("env_name", env_name).finish_non_exhaustive()
    }
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
            forward_to: None,
        }
    }

    /// Reads the layers, merges them and checks the result.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(&self) -> Result<Loaded, Error> {
        let mut layers = vec![Layer::from_toml(DEFAULT, None)?, Layer::port(&self.vars)?];
        for file in self.files()? {
            let text = read(&file, self.path_from)?;
            layers.push(Layer::from_toml(&text, Some(&file))?);
        }
        layers.push(Layer::from_vars(&self.vars)?);
        let built_in_fin = !layers[1..].iter().any(|layer| layer.tables.contains_key("endpoints.fin"));
        if let Some(url) = &self.forward_to {
            if let Some(origin) = layers.iter().find_map(|layer| layer.tables.get("sinks.forward")) {
                let problem = format!("is configured already ({origin})");
                return Err(Error::new(
                    "sinks.forward",
                    FORWARD_TO,
                    problem,
                    "rename that sink, or leave the option out",
                ));
            }
            layers.push(Layer::forward_to(url.clone())?);
        }
        let root = merge(layers)?;
        let values = root.values();
        let origins: BTreeMap<_, _> =
            values.iter().map(|value| (value.key.to_lowercase(), value.origin.clone())).collect();
        let secrets = values.iter().filter_map(Secret::of).collect();
        let (config, mut warnings) = sections::config(root, built_in_fin)?;
        warnings.extend(variables::unknown(&self.vars, origins.keys()));
        Ok(Loaded { config: Config { origins, ..config }, warnings, secrets })
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
        let secrets = &loaded.config.endpoints[endpoint].secrets;
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
    fn an_empty_variable_configures_no_endpoint() {
        let vars = [
            ("FINHOOK__ENDPOINTS__EU__SIGNING_SECRETS", "0123456789abcdef"),
            ("FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS", ""),
        ];
        assert_eq!(with_vars(&vars).unwrap().config.endpoints.keys().collect::<Vec<_>>(), ["eu"]);
        assert!(secrets(&with_vars(&vars[1..]).unwrap(), "fin").is_empty());
    }

    #[test]
    fn the_debug_output_of_everything_that_holds_secrets_shows_none() {
        let secret = "hunter2-hunter2-hunter2";
        let vars = [("FINHOOK__ADMIN__TOKEN", secret), ("FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS", secret)];
        let inputs = Inputs { vars: vars.map(|(name, value)| (name.into(), value.into())).into(), ..Inputs::default() };
        let layer = Layer::from_vars(&inputs.vars).unwrap();
        let shown = format!("{inputs:?} {layer:?} {:?}", inputs.load().unwrap());
        assert!(shown.contains("0.0.0.0:8080") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn of_a_secret_in_a_file_the_line_end_is_trimmed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for contents in ["0012 3", "0012 3\n", "0012 3\r\n"] {
            let file = dir.path().join("secret");
            std::fs::write(&file, contents).unwrap();
            let file = file.to_str().unwrap();
            let vars = [
                ("FINHOOK__ENDPOINTS__FIN__CLIENT_SECRET_FILE", file),
                ("FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS_FILE", file),
            ];
            let loaded = with_vars(&vars).unwrap();
            assert_eq!(secrets(&loaded, "fin"), ["0012 3"]);
            let client_secret = loaded.config.endpoints["fin"].client_secret.clone().unwrap();
            assert_eq!(client_secret.expose_secret(), "0012 3");
        }
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
        let error = with_vars(&[("FINHOOK__SERVER__BIND", "x"), ("FINHOOK__server__BIND", "y")]).unwrap_err();
        assert_eq!(error.key, "server.bind");
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
