//! Every section but the sinks, from the merged tree to the types.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::certificate::LISTENER;
use super::error::one_line;
use super::tree::{Field, Table};
use super::{
    Admin, Config, Egress, Endpoint, Error, Gateway, Journal, Log, LogFormat, Server, across, certificate, secrets,
    sinks,
};
use crate::clock;
use crate::verify::Scheme;

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Longer than anyone can mean, and short enough for calculations with times.
const CENTURY: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);
/// What the targets of log lines begin with.
const PROGRAM: &str = "finhook";
/// The modules of the program, which log under their names.
const MODULES: [&str; 23] = [
    "admin",
    "app",
    "body",
    "certificate",
    "cli",
    "clock",
    "config",
    "console",
    "conversations",
    "dispatch",
    "event",
    "fake_fin",
    "fin",
    "gateway",
    "journal",
    "live",
    "metrics",
    "outbound",
    "receive",
    "serve",
    "sink",
    "subscribe",
    "verify",
];
/// A body is held in memory.
const MAX_BODY_BYTES: u64 = 1 << 30;

/// The whole tree, and what to warn of. `built_in_fin`: the endpoint `fin` is only the built-in one.
pub(super) fn config(mut root: Table, built_in_fin: bool) -> Result<(Config, Vec<String>), Error> {
    let mut warnings = Vec::new();
    let mut seen = across::Seen::default();

    let log = log(root.table("log")?, &mut warnings)?;
    let server = server(root.table("server")?, &mut seen)?;
    let admin = admin(root.table("admin")?, &mut seen, &mut warnings)?;
    let endpoints = endpoints(root.table("endpoints")?, built_in_fin, &mut seen, &mut warnings)?;
    let journal = journal(root.table("journal")?, &mut seen)?;
    let egress = egress(root.table("egress")?)?;
    let (sinks, disabled_sinks) = sinks::sinks(root.table("sinks")?, &endpoints, egress, &mut seen, &mut warnings)?;
    let gateway = gateway(root.table("gateway")?, &endpoints, &mut seen, &mut warnings)?;
    root.finish()?;

    if sinks.is_empty() {
        warnings.push("sinks: none is enabled, so events are stored but delivered nowhere".into());
    }
    let config = Config {
        log,
        server,
        admin,
        endpoints,
        journal,
        sinks,
        disabled_sinks,
        egress,
        gateway,
        origins: BTreeMap::new(),
    };
    let warnings = warnings.iter().map(|warning| one_line(warning)).collect();
    Ok((config, warnings))
}

fn log(mut table: Table, warnings: &mut Vec<String>) -> Result<Log, Error> {
    let format = table.take("format").filter(|field| !field.is_empty());
    let format = match &format {
        None => None,
        Some(field) => Some(match field.text()? {
            "json" => LogFormat::Json,
            "text" => LogFormat::Text,
            _ => return Err(field.error("is not a format", r#"use "json", "text" or "" (text on a terminal only)"#)),
        }),
    };
    let level = table.require("level", r#"set it, e.g. to "info""#)?;
    let text = level.text()?.to_owned();
    let is_level =
        |s: &str| ["off", "error", "warn", "info", "debug", "trace"].iter().any(|level| s.eq_ignore_ascii_case(level));
    let valid = text.split(',').all(|part| is_level(part.trim().rsplit('=').next().unwrap_or_default()))
        && tracing_subscriber::EnvFilter::builder().parse(&text).is_ok();
    if !valid {
        let fix = r#"use off, error, warn, info, debug or trace, or a list such as "info,finhook::sink=debug""#;
        return Err(level.error("is not a log level", fix));
    }
    for target in text.split(',').filter_map(|part| Some(part.trim().rsplit_once('=')?.0)) {
        if !logs(target) {
            let (key, origin) = (&level.key, &level.origin);
            warnings.push(format!(
                "{key} ({origin}): nothing logs as {target:?}; known: {PROGRAM}::MODULE, such as {PROGRAM}::sink"
            ));
        }
    }
    table.finish()?;
    Ok(Log { format, level: text })
}

/// Whether any line of the log can have this target. What has a `[` names spans, and is left to the filter.
fn logs(target: &str) -> bool {
    let target = target.trim();
    let module = target.strip_prefix(PROGRAM).and_then(|rest| rest.strip_prefix("::"));
    let module = module.map(|path| path.split("::").next().unwrap_or_default());
    target.contains('[') || target == PROGRAM || module.is_some_and(|module| MODULES.contains(&module))
}

fn server(mut table: Table, seen: &mut across::Seen) -> Result<Server, Error> {
    let t = &mut table;
    let bind = t.require("bind", "set it, e.g. to \"0.0.0.0:8080\"")?;
    seen.listener(&bind)?;
    let server = Server {
        bind: bind.address()?,
        max_body_bytes: {
            let field = t.require("max_body_bytes", "set it, e.g. to \"1MiB\"")?;
            fits(field.size(1..=MAX_BODY_BYTES)?, &field)?
        },
        header_timeout: duration(t, "header_timeout", MILLISECOND, DAY)?,
        body_timeout: duration(t, "body_timeout", MILLISECOND, DAY)?,
        idle_timeout: duration(t, "idle_timeout", MILLISECOND, DAY)?,
        max_connections: {
            let field = t.require("max_connections", "set it to a whole number")?;
            fits(field.number(1..=1_000_000)?, &field)?
        },
        ready_path: t
            .take("ready_path")
            .filter(|field| !field.is_empty())
            .map(|field| path(&field, seen))
            .transpose()?,
        drain_timeout: duration(t, "drain_timeout", Duration::ZERO, DAY)?,
        tls: certificate::pair(t, LISTENER)?,
    };
    table.finish()?;
    Ok(server)
}

fn admin(mut table: Table, seen: &mut across::Seen, warnings: &mut Vec<String>) -> Result<Admin, Error> {
    let bind = table.require("bind", "set it, e.g. to \"127.0.0.1:9090\"")?;
    seen.listener(&bind)?;
    let address = bind.address()?;
    let token = secrets::token(&mut table, why_token(address, &bind).as_deref(), warnings)?;
    let reader_token = secrets::reader_token(&mut table, token.as_ref(), warnings)?;
    let tls = certificate::pair(&mut table, LISTENER)?;
    table.finish()?;
    Ok(Admin { bind: address, token, reader_token, tls })
}

/// Why a listener needs a token, if it does.
fn why_token(address: SocketAddr, bind: &Field) -> Option<String> {
    (!address.ip().to_canonical().is_loopback())
        .then(|| format!("{} = {address} ({}) is not loopback", bind.key, bind.origin))
}

fn endpoints(
    table: Table,
    built_in_fin: bool,
    seen: &mut across::Seen,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<String, Endpoint>, Error> {
    let mut tables = table.named_tables()?;
    if built_in_fin && tables.len() > 1 {
        tables.remove("fin");
    }
    let mut endpoints = BTreeMap::new();
    for (name, mut table) in tables {
        let path = match table.take("path") {
            Some(field) => self::path(&field, seen)?,
            None => {
                let path = format!("/webhooks/{name}");
                seen.public_path(&path, &table.key("path"), &table.origin())?;
                path
            }
        };
        let kind = match table.take("kind") {
            None => Scheme::Fin,
            Some(field) => match field.text()? {
                "fin" => Scheme::Fin,
                "intercom" => Scheme::Intercom,
                _ => return Err(field.error("is not a kind of endpoint", r#"use "fin" or "intercom""#)),
            },
        };
        let (secrets, secrets_file) = secrets::several(&mut table, Endpoint::secrets_key(kind), warnings)?;
        let client_secret = match kind {
            Scheme::Fin => secrets::single(&mut table, "client_secret", "client_secret_file", true)?,
            Scheme::Intercom => None,
        };
        table.finish()?;
        let client_secret = client_secret.map(|(secret, _)| secret);
        endpoints.insert(name, Endpoint { kind, path, secrets, secrets_file, client_secret });
    }
    Ok(endpoints)
}

/// A path of the public listener that nothing else has.
fn path(field: &Field, seen: &mut across::Seen) -> Result<String, Error> {
    let path = field.text()?;
    seen.public_path(path, &field.key, &field.origin)?;
    if !is_path(path) {
        let fix = "use one such as \"/webhooks/fin\": letters, digits and -._~ between slashes, no pattern";
        return Err(field.error(format!("is not a path: {path:?}"), fix));
    }
    Ok(path.to_owned())
}

/// Whether a request's path can be compared with it as it is, and the router takes it for no pattern.
fn is_path(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    let segment = |s: &str| {
        s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)) && !s.is_empty() && s != "." && s != ".."
    };
    // "/" alone and one slash at the end are fine.
    path.len() <= 1024 && rest.strip_suffix('/').unwrap_or(rest).split('/').all(|s| segment(s) || rest.is_empty())
}

fn journal(mut table: Table, seen: &mut across::Seen) -> Result<Journal, Error> {
    let path = table.require("path", "set it, e.g. to \"data/finhook.db\"")?;
    seen.journal(&path)?;
    let retention = duration(&mut table, "retention", Duration::ZERO, CENTURY)?;
    let window = table.require("dedupe_window", "set it, e.g. to \"90d\"")?;
    let dedupe_window = window.duration(Duration::from_secs(1)..=CENTURY)?;
    if dedupe_window < retention {
        let kept = clock::length(retention);
        let fix = format!("set it to {kept} or more, or shorten the retention");
        return Err(window.error(format!("is shorter than {} ({kept})", table.key("retention")), fix));
    }
    let max_bytes = table.require("max_bytes", "set it, or 0 for no bound")?.size(0..=i64::MAX as u64)?;
    table.finish()?;
    Ok(Journal { path: PathBuf::from(path.text()?), retention, dedupe_window, max_bytes })
}

fn egress(mut table: Table) -> Result<Egress, Error> {
    let deny_private = table.require("deny_private", "set it to true or false")?.boolean()?;
    table.finish()?;
    Ok(Egress { deny_private })
}

fn gateway(
    mut table: Table,
    endpoints: &BTreeMap<String, Endpoint>,
    seen: &mut across::Seen,
    warnings: &mut Vec<String>,
) -> Result<Option<Gateway>, Error> {
    let t = &mut table;
    let bind = t.take("bind").filter(|field| !field.is_empty());
    let endpoint = t.require("endpoint", "name a configured endpoint")?;
    let base_url = t.require("base_url", "set it, e.g. to \"https://api.intercom.io\"")?;
    let url = base(&base_url)?;
    let version = t.require("version", "set it, e.g. to \"2.14\"")?;
    if version.is_empty() || !version.text()?.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err(version.error("is not a version of the API", "use one such as \"2.14\" or \"Preview\""));
    }
    let sse = t.require("sse", "set it to true or false")?.boolean()?;
    let hosts = t.require("sse_hosts", "name the hosts")?;
    let mut sse_hosts = Vec::new();
    for host in hosts.list()? {
        let name = host.text()?.to_ascii_lowercase();
        let rest = name.strip_prefix("*.").unwrap_or(&name);
        if !rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b)) || rest.is_empty() {
            return Err(host.error("is not a host", "write \"host\", \"host:port\" or \"*.domain\""));
        }
        sse_hosts.push(name);
    }
    let app_id = t.take("app_id").filter(|field| !field.is_empty());
    if let Some(field) = &app_id
        && !field.text()?.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    {
        return Err(field.error("is not an app's id", "use the one in the addresses of your Intercom workspace"));
    }
    let app_id = app_id.map(|field| field.text().map(str::to_owned)).transpose()?;
    let Some(bind) = bind else {
        // Off: the keys are checked for their names only, the files are not read.
        secrets::single(t, "token", "token_file", false)?;
        secrets::single(t, "api_key", "api_key_file", false)?;
        table.finish()?;
        return Ok(None);
    };
    seen.listener(&bind)?;
    let address = bind.address()?;
    if !endpoints.contains_key(endpoint.text()?) {
        return Err(endpoint.error("is not the name of a configured endpoint", across::use_one_of(endpoints)));
    }
    let token = secrets::token(t, why_token(address, &bind).as_deref(), warnings)?;
    let api_key = api_key(t, &url, warnings)?;
    table.finish()?;
    let (endpoint, version) = (endpoint.text()?.to_owned(), version.text()?.to_owned());
    Ok(Some(Gateway { bind: address, token, endpoint, api_key, base_url: url, version, sse, sse_hosts, app_id }))
}

fn api_key(t: &mut Table, base_url: &Url, warnings: &mut Vec<String>) -> Result<Option<SecretString>, Error> {
    let Some((key, field)) = secrets::single(t, "api_key", "api_key_file", true)? else {
        let key = t.key("api_key");
        warnings.push(format!("{key} is not set: calls of Fin can't be passed on; set it or {key}_file"));
        return Ok(None);
    };
    secrets::header_safe(&key, &field)?;
    let local = match base_url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    if base_url.scheme() == "http" && !local {
        warnings.push(format!("{} is http: the API key can be read on the way", t.key("base_url")));
    }
    Ok(Some(key))
}

fn base(field: &Field) -> Result<Url, Error> {
    let url = field.url()?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        let fix = "use scheme, host, port and path only, such as \"https://api.eu.intercom.io\"";
        return Err(field.error("holds user info, a query or a fragment", fix));
    }
    Ok(url)
}

fn fits(number: u64, field: &Field) -> Result<usize, Error> {
    usize::try_from(number).map_err(|_| field.error("is too large for this machine", "use a smaller number"))
}

fn duration(t: &mut Table, name: &'static str, from: Duration, to: Duration) -> Result<Duration, Error> {
    t.require(name, "set it to a length of time such as \"5s\"")?.duration(from..=to)
}

#[cfg(test)]
mod tests {
    use super::{MODULES, is_path, logs};

    #[test]
    fn the_modules_that_log_are_those_of_the_program() {
        let modules: Vec<_> = include_str!("../lib.rs").lines().filter_map(|l| l.strip_prefix("pub mod ")).collect();
        assert_eq!(modules, MODULES.map(|module| format!("{module};")));
        for target in ["finhook", "finhook::sink", "finhook::sink::http", "[span]"] {
            assert!(logs(target), "{target}");
        }
        for target in ["finhok", "finhook::sinks", "finhook::", "sink", "finhooks", ""] {
            assert!(!logs(target), "{target}");
        }
    }

    #[test]
    fn an_endpoints_path_is_plain() {
        for good in ["/", "/webhooks/fin", "/a/b-c_d.e~f/", "/.well-known/fin"] {
            assert!(is_path(good), "{good}");
        }
        for bad in [
            "", "fin", "//", "/a//b", "/{x}", "/a/*b", "/:a", "/a?b", "/a#b", "/a b", "/../a", "/a/.", "/ä", "/a\n",
            "/%41",
        ] {
            assert!(!is_path(bad), "{bad}");
        }
    }
}
