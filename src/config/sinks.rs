//! `[sinks.NAME]`, from the merged tree to the types.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::tree::{Field, Table};
use super::{
    Egress, Endpoint, Error, FileSink, From, HttpSink, LogSink, Match, RelayUrl, Retry, Sink, SinkKind, across,
    certificate, secrets,
};
use crate::event::names;
use crate::outbound;
use crate::verify;
use crate::verify::standard_webhooks::Signer;

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Headers that the relay sets itself, or that would change what is sent.
const RESERVED: [&str; 14] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    verify::FIN_HEADER,
    "x-hub-signature",
];
const RESERVED_PREFIXES: [&str; 3] = ["ce-", "webhook-", "finhook-"];

/// The enabled sinks, and the names of the others.
pub(super) fn sinks(
    table: Table,
    endpoints: &BTreeMap<String, Endpoint>,
    egress: Egress,
    seen: &mut across::Seen,
    warnings: &mut Vec<String>,
) -> Result<(BTreeMap<String, Sink>, BTreeSet<String>), Error> {
    let (mut sinks, mut disabled) = (BTreeMap::new(), BTreeSet::new());
    for (name, mut table) in table.named_tables()? {
        let t = &mut table;
        let enabled = t.take("enabled").map_or(Ok(true), |field| field.boolean())?;
        let kind = t.require("type", r#"set it to "log", "file" or "http""#)?;
        let kind = match kind.text()? {
            "log" => SinkKind::Log(log(t)?),
            "file" => SinkKind::File(file(t, enabled, seen)?),
            "http" => SinkKind::Http(Box::new(http(t, enabled, egress.deny_private)?)),
            _ => return Err(kind.error("is not a type of sink", r#"use "log", "file" or "http""#)),
        };
        let from = match t.take("from") {
            None => From::Now,
            Some(field) => match field.text()? {
                "now" => From::Now,
                "start" => From::Start,
                _ => return Err(field.error("is not a place to begin", r#"use "now" or "start""#)),
            },
        };
        let matching = matching(t.table("match")?, enabled.then_some(endpoints), warnings)?;
        table.finish()?;
        if enabled {
            sinks.insert(name, Sink { kind, matching, from });
        } else {
            disabled.insert(name);
        }
    }
    Ok((sinks, disabled))
}

fn log(t: &mut Table) -> Result<LogSink, Error> {
    Ok(LogSink { include_body: t.take("include_body").map_or(Ok(false), |field| field.boolean())? })
}

fn file(t: &mut Table, enabled: bool, seen: &mut across::Seen) -> Result<FileSink, Error> {
    let path = t.require("path", "name the file that events are appended to")?;
    let rotate_bytes = t.take("rotate_bytes").map_or(Ok(104_857_600), |field| field.size(1..=1 << 50))?;
    let keep = t.take("keep").map_or(Ok(10), |field| field.number(1..=10_000))?;
    let keep = u32::try_from(keep).unwrap_or(u32::MAX);
    if enabled {
        seen.sink_file(&path, keep)?;
    }
    if path.text()?.is_empty() {
        return Err(path.error("is empty", "name the file that events are appended to"));
    }
    Ok(FileSink { path: PathBuf::from(path.text()?), rotate_bytes, keep })
}

fn http(t: &mut Table, enabled: bool, deny_private: bool) -> Result<HttpSink, Error> {
    let url = t.require("url", r#"set it, e.g. to "http://backend:3000/fin""#)?;
    let (url, url_field) = (RelayUrl(url.url()?), url);
    let concurrency = t.take("concurrency").map_or(Ok(16), |field| field.number(1..=10_000))?;
    let timeout = t.take("timeout").map_or(Ok(Duration::from_secs(10)), |field| field.duration(MILLISECOND..=DAY))?;
    let headers = headers(t.table("headers")?)?;
    let signing_secret = match secrets::single(t, "signing_secret", "signing_secret_file", enabled)? {
        None => None,
        Some((secret, field)) => {
            if Signer::parse(secret.expose_secret()).is_err() {
                let fix = "use \"whsec_\" and the key in base64, e.g. from: echo whsec_$(openssl rand -base64 32)";
                return Err(field.error("is not a Standard Webhooks secret", fix));
            }
            Some(secret)
        }
    };
    let retry = retry(t.table("retry")?)?;
    let rate = t.take("rate").map_or(Ok(0), |field| field.number(0..=1_000_000))?;
    // Of a sink that is off the files are not looked at.
    let (client, ca_file) = if enabled {
        (certificate::pair(t, certificate::CLIENT)?, certificate::ca_file(t)?)
    } else {
        for name in certificate::CLIENT.into_iter().chain(["ca_file"]) {
            t.take(name);
        }
        (None, None)
    };
    let literal = match url.0.host() {
        Some(url::Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
        Some(url::Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
        _ => None,
    };
    if enabled && deny_private && literal.is_some_and(outbound::is_private) {
        let fix = "use a public address, or set egress.deny_private = false";
        return Err(url_field.error("is a private address, which egress.deny_private refuses", fix));
    }
    if url.0.scheme() == "http" && (client.is_some() || ca_file.is_some()) {
        let fix = "use https, or remove client_cert_file, client_key_file and ca_file";
        return Err(url_field.error("is http: there is no certificate to show or to check", fix));
    }
    let concurrency = usize::try_from(concurrency).unwrap_or(usize::MAX);
    Ok(HttpSink { url, concurrency, timeout, headers, signing_secret, retry, rate, deny_private, client, ca_file })
}

fn headers(table: Table) -> Result<Vec<(String, SecretString)>, Error> {
    let mut names = BTreeSet::new();
    let mut headers = Vec::new();
    for (name, field) in table.named_fields() {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| field.error("is not a header's name", "use letters, digits and hyphens"))?;
        let name = name.as_str().to_owned();
        if RESERVED.contains(&name.as_str()) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            return Err(field.error("is a header that the relay sets itself", "remove it"));
        }
        if !names.insert(name.clone()) {
            return Err(field.error("is given twice, in different case", "remove one of them"));
        }
        // The value is a secret, so no message shows it.
        let value = field.text()?;
        if value.trim().is_empty() {
            return Err(field.error("is empty", "give it a value or remove it"));
        }
        if HeaderValue::from_str(value).is_err() || value.trim() != value {
            let fix = "use visible ASCII, without line breaks and without spaces at the ends";
            return Err(field.error("is not a header's value", fix));
        }
        headers.push((name, SecretString::from(value)));
    }
    Ok(headers)
}

fn retry(mut table: Table) -> Result<Retry, Error> {
    let t = &mut table;
    let base = t.take("base").map_or(Ok(Duration::from_secs(1)), |field| field.duration(MILLISECOND..=DAY))?;
    let cap_field = t.take("cap");
    let hour = Duration::from_secs(3600);
    let cap = cap_field.as_ref().map_or(Ok(hour.max(base)), |field| field.duration(MILLISECOND..=30 * DAY))?;
    if let Some(field) = &cap_field
        && cap < base
    {
        return Err(field.error("is shorter than base", "make it as long as base or longer"));
    }
    let max_age = t.take("max_age").map_or(Ok(7 * DAY), |field| field.duration(MILLISECOND..=100 * YEAR))?;
    table.finish()?;
    Ok(Retry { base, cap, max_age })
}

/// `endpoints` is `None` for a sink that is off: what it would match is not compared with what there is.
fn matching(
    mut table: Table,
    endpoints: Option<&BTreeMap<String, Endpoint>>,
    warnings: &mut Vec<String>,
) -> Result<Match, Error> {
    let t = &mut table;
    let texts = |field: Option<Field>| field.map_or(Ok(Vec::new()), |field| field.texts());
    let named = t.take("endpoints");
    if let (Some(field), Some(endpoints)) = (&named, endpoints) {
        for item in field.list()? {
            if !endpoints.contains_key(item.text()?) {
                let problem = format!("is not the name of a configured endpoint: {:?}", item.text()?);
                return Err(item.error(problem, across::use_one_of(endpoints)));
            }
        }
    }
    // Fin will have more than are known today: not a fault.
    let mut names = |field: Option<Field>, what: &str, known: &[&str]| {
        for item in field.as_ref().map_or(Ok(Vec::new()), Field::list)? {
            let name = item.text()?;
            // Intercom has hundreds of topics, all of them with a dot.
            if endpoints.is_some() && !known.contains(&name) && !name.contains('.') {
                let (key, origin) = (&item.key, &item.origin);
                warnings.push(format!("{key} ({origin}): is no known {what}: {name:?}; known: {}", known.join(", ")));
            }
        }
        texts(field)
    };
    let matching = Match {
        endpoints: texts(named)?,
        events: names(t.take("events"), "event", &names::EVENTS)?,
        statuses: names(t.take("statuses"), "status", &names::STATUSES)?,
        conversation_prefixes: texts(t.take("conversation_prefixes"))?,
        except_conversation_prefixes: texts(t.take("except_conversation_prefixes"))?,
    };
    table.finish()?;
    Ok(matching)
}
