//! The configuration: what it may say ([`Config`]), how it is loaded and checked.
//!
//! Precedence: built-in `config/default.toml` < files < environment `FINHOOK__SECTION__KEY`.
//!
//! - `layer`, `layers`: built-in, files, environment, each value with its origin, merged by the `config` crate;
//! - `duplicate`, `variables`: what is given twice, and variables that nothing reads;
//! - `tree`, `size`: typed reading of the merged tree; what nobody asked for is an unknown key;
//! - `sections`, `sinks`, `secrets`: one section after the other, from the tree to the types below;
//! - `across`: what no section can see alone (two writers of one file, two endpoints on one path);
//! - `access`: paths that can't be written, secrets that others can read;
//! - `render`: the way back, with secrets redacted.
//!
//! Invariants: values are never guessed to be of a type; an unknown key is an error at every level; loading reads files
//! and variables but opens, creates and changes nothing else; no error, warning or `Debug` output holds a secret.

mod access;
mod across;
mod certificate;
mod duplicate;
mod error;
mod layer;
mod layers;
mod relay_url;
mod render;
mod secrets;
mod sections;
mod sinks;
mod size;
mod tree;
mod variables;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::Serialize;

use crate::certificate::Files;
use crate::verify::Scheme;

pub use error::Error;
pub use layers::{Inputs, Loaded};
pub use relay_url::RelayUrl;

/// The whole, validated configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The service's own log, on stderr.
    pub log: Log,
    /// The public listener.
    pub server: Server,
    /// Health, metrics and the admin API.
    pub admin: Admin,
    /// One for each Fin app, by name.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// The durable store.
    pub journal: Journal,
    /// Where events go, by name; only the enabled ones.
    pub sinks: BTreeMap<String, Sink>,
    /// Names of the sinks that are configured but not enabled.
    pub disabled_sinks: BTreeSet<String>,
    /// Where sinks may connect to.
    pub egress: Egress,
    /// Calls Fin for your backends; `None` while `gateway.bind` is empty.
    pub gateway: Option<Gateway>,
    /// Where each value came from, by its key in lower case.
    pub origins: BTreeMap<String, String>,
}

impl Config {
    /// As TOML: each value with its origin as a comment, every secret redacted.
    #[must_use]
    pub fn to_redacted_toml(&self) -> String {
        render::toml(self)
    }

    /// Loads and checks the configuration from `path` (or the built-in one alone) and this process's environment.
    ///
    /// # Errors
    /// The first thing that is wrong, with its key, its origin and the fix.
    pub fn load(path: Option<PathBuf>) -> Result<Loaded, Error> {
        Inputs::from_process(path).load()
    }
}

/// How the service's own log is written.
#[derive(Debug, Clone, Serialize)]
pub struct Log {
    /// `None`: text on a terminal, JSON elsewhere.
    #[serde(serialize_with = "render::or_empty")]
    pub format: Option<LogFormat>,
    /// A `tracing` filter, e.g. `info` or `finhook=debug`.
    pub level: String,
}

/// The form of the service's own log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// `[server]`: the public listener and its limits.
#[derive(Debug, Clone, Serialize)]
pub struct Server {
    /// Address to bind; port 0 takes any.
    pub bind: SocketAddr,
    /// Largest accepted body, in bytes.
    pub max_body_bytes: usize,
    /// From a request's first byte to its complete head.
    #[serde(serialize_with = "render::duration")]
    pub header_timeout: Duration,
    /// From the head to the complete body.
    #[serde(serialize_with = "render::duration")]
    pub body_timeout: Duration,
    /// Between requests on a kept-alive connection.
    #[serde(serialize_with = "render::duration")]
    pub idle_timeout: Duration,
    /// Connections open at once.
    pub max_connections: usize,
    /// The path at which load balancers ask whether finhook is ready, if there is one.
    pub ready_path: Option<String>,
    /// How long a shutdown waits for requests and sinks.
    #[serde(serialize_with = "render::duration")]
    pub drain_timeout: Duration,
    /// TLS, if it ends here and not at a proxy in front.
    #[serde(flatten, serialize_with = "render::certificate")]
    pub tls: Option<Files>,
}

/// `[admin]`: health, metrics and API.
#[derive(Debug, Clone, Serialize)]
pub struct Admin {
    /// Address to bind.
    pub bind: SocketAddr,
    /// Bearer token for the API; always there when `bind` is not loopback.
    #[serde(serialize_with = "render::secret")]
    pub token: Option<SecretString>,
    /// The same for those who look only; never without `token`.
    #[serde(serialize_with = "render::secret")]
    pub reader_token: Option<SecretString>,
    /// TLS, if it ends here and not at a proxy in front.
    #[serde(flatten, serialize_with = "render::certificate")]
    pub tls: Option<Files>,
}

/// `[endpoints.NAME]`: one Fin app, or one app whose classic webhooks come.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Whose webhooks it takes.
    pub kind: Scheme,
    /// Path of the callback URL.
    pub path: String,
    /// The secrets that sign its events, given as values or read from the file at load time; may be empty (not yet known).
    /// Fin's `signing_secrets`, or Intercom's `client_secret`.
    pub secrets: Vec<SecretString>,
    /// The file to watch for changes, if one is configured.
    pub secrets_file: Option<PathBuf>,
    /// Of Fin only: verifies the settings page's test.
    pub client_secret: Option<SecretString>,
}

impl Endpoint {
    /// The key that holds the secrets that sign its events, and its twin for a file.
    #[must_use]
    pub fn secrets_key(kind: Scheme) -> (&'static str, &'static str) {
        match kind {
            Scheme::Fin => ("signing_secrets", "signing_secrets_file"),
            Scheme::Intercom => ("client_secret", "client_secret_file"),
        }
    }
}

/// `[journal]`: the durable store.
#[derive(Debug, Clone, Serialize)]
pub struct Journal {
    /// The database file.
    pub path: PathBuf,
    /// How long bodies are kept after every sink is done with them.
    #[serde(serialize_with = "render::duration")]
    pub retention: Duration,
    /// How long an event is recognised.
    #[serde(serialize_with = "render::duration")]
    pub dedupe_window: Duration,
    /// Bound of the database files' size; 0: the disk's.
    pub max_bytes: u64,
}

/// `[sinks.NAME]`: one destination.
#[derive(Debug, Clone, Serialize)]
pub struct Sink {
    /// Which kind, with its settings.
    #[serde(flatten)]
    pub kind: SinkKind,
    /// Where a sink that is new to the journal begins.
    pub from: From,
    /// Which events go there.
    #[serde(rename = "match")]
    pub matching: Match,
}

/// The kinds of sinks and their settings.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum SinkKind {
    /// One JSON line an event on stdout.
    Log(LogSink),
    /// CloudEvents lines in a rotated file.
    File(FileSink),
    /// A relay by HTTP POST.
    Http(Box<HttpSink>),
}

/// `type = "log"`.
#[derive(Debug, Clone, Serialize)]
pub struct LogSink {
    /// Whether lines carry the body (customers' data).
    pub include_body: bool,
}

/// `type = "file"`.
#[derive(Debug, Clone, Serialize)]
pub struct FileSink {
    /// The file that is appended to.
    pub path: PathBuf,
    /// Size from which the file is rotated, in bytes.
    pub rotate_bytes: u64,
    /// Rotated files kept.
    pub keep: u32,
}

/// `type = "http"`.
#[derive(Debug, Clone, Serialize)]
pub struct HttpSink {
    /// Where to POST; may hold credentials, so it is shown redacted.
    #[serde(serialize_with = "render::text")]
    pub url: RelayUrl,
    /// Conversations in flight at once.
    pub concurrency: usize,
    /// For one whole attempt.
    #[serde(serialize_with = "render::duration")]
    pub timeout: Duration,
    /// Additional headers; their values are secrets.
    #[serde(serialize_with = "render::headers")]
    pub headers: Vec<(String, SecretString)>,
    /// `whsec_…`: adds a Standard Webhooks signature.
    #[serde(serialize_with = "render::secret")]
    pub signing_secret: Option<SecretString>,
    /// When and how long to retry.
    pub retry: Retry,
    /// Attempts a second at most; 0: no limit.
    pub rate: u64,
    /// `egress.deny_private`.
    #[serde(skip)]
    pub deny_private: bool,
    /// What finhook shows a sink that wants to know who it is.
    #[serde(flatten, serialize_with = "render::client_certificate")]
    pub client: Option<Files>,
    /// The authorities that may have signed the sink's certificate, in place of the system's.
    #[serde(serialize_with = "render::path")]
    pub ca_file: Option<PathBuf>,
}

/// `retry = { … }`: see [`crate::dispatch::retry`].
#[derive(Debug, Clone, Serialize)]
pub struct Retry {
    /// Base of the exponential backoff.
    #[serde(serialize_with = "render::duration")]
    pub base: Duration,
    /// Largest backoff.
    #[serde(serialize_with = "render::duration")]
    pub cap: Duration,
    /// Age of the first failure from which an event is dead.
    #[serde(serialize_with = "render::duration")]
    pub max_age: Duration,
}

/// Where a sink that is new to the journal begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// With what comes from now on.
    Now,
    /// With everything stored.
    Start,
}

/// `match = { … }`: all given must hold; an empty list is "not given".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Match {
    /// Endpoint names.
    pub endpoints: Vec<String>,
    /// Event names and topics; `a.*` is every name that begins with `a.`.
    pub events: Vec<String>,
    /// Values of `status`.
    pub statuses: Vec<String>,
    /// Prefixes of `conversation_id`, one of which it must have.
    pub conversation_prefixes: Vec<String>,
    /// Prefixes of `conversation_id`, none of which it may have.
    pub except_conversation_prefixes: Vec<String>,
}

/// `[egress]`: where sinks may connect to.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Egress {
    /// Whether HTTP sinks are refused this machine and the private network that it stands in.
    pub deny_private: bool,
}

/// `[gateway]`: calls Fin for your backends, and listens to the event streams of its answers.
#[derive(Debug, Clone, Serialize)]
pub struct Gateway {
    /// Address to bind.
    pub bind: SocketAddr,
    /// What callers present as Bearer; always there when `bind` is not loopback.
    #[serde(serialize_with = "render::secret")]
    pub token: Option<SecretString>,
    /// Name of the configured endpoint that events by SSE belong to.
    pub endpoint: String,
    /// The key for the Fin Agent API; without it only `/subscriptions` and `/stream` are of use.
    #[serde(serialize_with = "render::secret")]
    pub api_key: Option<SecretString>,
    /// Where the Fin Agent API is: `http` or `https`, without user info, query and fragment.
    #[serde(serialize_with = "render::text")]
    pub base_url: url::Url,
    /// `Intercom-Version`, a valid header value; a caller's own header wins.
    pub version: String,
    /// Whether to listen to the `sse_subscription_url` of each answer.
    pub sse: bool,
    /// Hosts that may be listened to, in lower case: `host`, `host:port` or `*.domain`.
    pub sse_hosts: Vec<String>,
    /// The app that `channels` in a subscription's URL must name.
    #[serde(serialize_with = "render::or_empty")]
    pub app_id: Option<String>,
}
